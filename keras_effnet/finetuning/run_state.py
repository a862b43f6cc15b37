"""The state of a fine-tuning run, updated as it progresses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from keras_effnet.data.photo_batches import Photos
from keras_effnet.finetuning.report import Epoch
from keras_effnet.finetuning.settings import Settings

Progress = Callable[[str, int, int], object]


@dataclass
class Run:
    """The state of a run; it is complete at any time, so that an interrupt loses nothing.

    Args:
        network: the model to train, with a new head.
        size: side of the images in pixels.
        train, val: the photos to train and to evaluate on.
        labels: their one-hot labels.
        settings: of the run.
        report: called with the part of the run, the number of finished steps and the total number of steps.
        callbacks: of the user, for `fit` in both phases.
        seconds: duration of each part.
        history: the finished epochs.
        head: the weights of the network after phase 1; empty until phase 2 begins.
        head_scores: probabilities of the validation photos after phase 1.
        scores: probabilities of the validation photos for the current weights; None if not computed.
        interrupted: whether the run was interrupted.
        failure: why phase 2 failed; empty if it did not.
    """

    network: Any
    size: int
    train: Photos
    val: Photos
    labels: tuple[np.ndarray, np.ndarray]
    settings: Settings
    report: Progress
    callbacks: tuple[Any, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    head: list[np.ndarray] = field(default_factory=list)
    head_scores: np.ndarray = field(default_factory=partial(np.empty, (0, 0)))
    scores: np.ndarray | None = None
    interrupted: bool = False
    failure: str = ""
