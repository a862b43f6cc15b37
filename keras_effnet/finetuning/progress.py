"""What a fine-tuning has come to, kept as it goes on."""

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
    """What a run has come to, filled on the way so that an interrupt keeps it.

    Args:
        settings: all that could be chosen.
        tell: called with the part of the run, how far it is and how far it goes.
        history: the epochs that are done.
        seconds: by part.
        head: the weights of the network after phase 1, once phase 2 is begun.
        head_scores: the probabilities that phase 1 gives the photos held out.
        scores: those that the network as it is gives them, None where that has not been measured.
        interrupted: whether it was stopped before its end.
        failure: why phase 2 has failed, if it has.
    """

    settings: Settings
    tell: Progress
    history: list[Epoch] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    head: list[np.ndarray] = field(default_factory=list)
    head_scores: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    scores: np.ndarray | None = None
    interrupted: bool = False
    failure: str = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def watch(self, phase: str, epochs: int, steps: int, measure: Callable[[], dict[str, float]] = dict) -> Any:
        """A callback that keeps the epochs and tells how far `fit` is, in batches; `measure` gives what logs lack."""
        start = time.perf_counter()
        done = 0

        def batch(_: int, logs: Any = None) -> None:
            nonlocal done
            done += 1
            self.tell(phase, done, epochs * steps)

        def epoch(number: int, logs: Any) -> None:
            figures = {name: float(value) for name, value in (logs | measure()).items()}
            seconds = round(time.perf_counter() - start, 2)
            self.history.append(Epoch(phase, number + 1, **figures, seconds=seconds))
            if not math.isfinite(figures["loss"]):
                # Of the blocks nothing is kept then, since the head alone is better.
                watch.model.stop_training = True

        watch = keras.callbacks.LambdaCallback(on_epoch_end=epoch, on_train_batch_end=batch)
        return watch
