"""The state of a fine-tuning run, updated as it progresses."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.finetuning.report import Epoch
from keras_effnet.finetuning.settings import Settings

Progress = Callable[[str, int, int], object]


@dataclass
class Run:
    """The state of a run; it is complete at any time, so that an interrupt loses nothing.

    Args:
        settings: of the run.
        report: called with the part of the run, the number of finished steps and the total number of steps.
        callbacks: of the user, for `fit` in both phases.
        history: the finished epochs.
        seconds: duration of each part.
        head: the weights of the network after phase 1; empty until phase 2 begins.
        head_scores: probabilities of the validation photos after phase 1.
        scores: probabilities of the validation photos for the current weights; None if not computed.
        interrupted: whether the run was interrupted.
        failure: why phase 2 failed; empty if it did not.
    """

    settings: Settings
    report: Progress
    callbacks: tuple[Any, ...] = ()
    history: list[Epoch] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    head: list[np.ndarray] = field(default_factory=list)
    head_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    scores: np.ndarray | None = None
    interrupted: bool = False
    failure: str = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the duration of a `with` block to a part of the run."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def all_callbacks(
        self, phase: str, epochs: int, steps: int, measure: Callable[[], dict[str, float]] = dict
    ) -> list[Any]:
        """Keras callbacks: the user's after one that records epochs and reports progress.

        Args:
            phase: "head" or "blocks".
            epochs: of the phase.
            steps: batches per epoch.
            measure: returns metrics that `fit` lacks, called after each epoch.
        """
        start = time.perf_counter()
        done = 0

        def batch(_: int, logs: Any = None) -> None:
            nonlocal done
            done += 1
            self.report(phase, done, epochs * steps)

        def epoch(number: int, logs: Any) -> None:
            logs.update(measure())  # in place, so that the following callbacks get them
            figures = {name: float(value) for name, value in logs.items()}
            seconds = round(time.perf_counter() - start, 2)
            self.history.append(Epoch(phase, number + 1, **figures, seconds=seconds))
            if not math.isfinite(figures["loss"]):
                # The model cannot recover. Phase 2 is discarded then, as the head alone is better.
                callback.model.stop_training = True

        callback = keras.callbacks.LambdaCallback(on_epoch_end=epoch, on_train_batch_end=batch)
        return [callback, *self.callbacks]
