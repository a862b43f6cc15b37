"""How a fine-tuning went: for Python, a report for programs and one for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_effnet.artifacts import MODEL
from keras_effnet.data.training_photos import TrainingPhotos
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.evaluate import provenance


@dataclass(frozen=True)
class Epoch:
    """One pass over the photos, in the phase "head" or "blocks"; losses are those that were minimised."""

    phase: str
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class FineTuned:
    """A model that was fine-tuned, and how that went.

    Args:
        classifier: the model with its classes.
        photos: what it was trained and measured on, without those that could not be read.
        history: its epochs.
        predicted: the class that it gives each of `photos.val`.
        settings: all that could be chosen.
        seconds: by part of the run.
        cpu_seconds: of this process, on all cores together.
        errors: why photos could not be read, one each.
        interrupted: whether it was stopped before the last epoch.
        blocks_dropped: why phase 2 was given up, so that the model is that of phase 1; empty where it was not.
    """

    classifier: Classifier
    photos: TrainingPhotos
    history: tuple[Epoch, ...]
    predicted: np.ndarray
    settings: Mapping[str, Any]
    seconds: Mapping[str, float]
    cpu_seconds: float
    errors: tuple[str, ...] = ()
    interrupted: bool = False
    blocks_dropped: str = ""

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.classifier.model

    @cached_property
    def confusion(self) -> np.ndarray:
        """How many photos of each class (row) were given each class (column), int64 of shape (classes, classes)."""
        classes = len(self.photos.classes)
        targets = np.array([row.target for row in self.photos.val])
        return np.bincount(targets * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    @property
    def val_accuracy(self) -> float:
        """Part of the photos held out that are given their class, 0..1."""
        return int(self.confusion.trace()) / len(self.photos.val)

    @property
    def head_val_accuracy(self) -> float:
        """The same after phase 1, the head alone."""
        measured = [row.val_accuracy for row in self.history if row.phase == "head"][-1]
        # Keras gives it in float32: a part of the photos in float64, as the one above.
        return round(measured * len(self.photos.val)) / len(self.photos.val)

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be assumed, left out or dropped, a sentence or two each."""
        dropped = f"What is kept is the head on the network as it was: {self.blocks_dropped}"
        return (*self.photos.notes, *([dropped] if self.blocks_dropped else []))

    def report(self) -> dict[str, Any]:
        """All that `report.json` holds."""
        return {
            "val_accuracy": self.val_accuracy,
            "val_correct": int(self.confusion.trace()),
            "head_val_accuracy": self.head_val_accuracy,
            "seconds": round(sum(self.seconds.values()), 1),
            "seconds_of": {part: round(value, 1) for part, value in self.seconds.items()},
            "cpu_seconds": round(self.cpu_seconds, 1),
            "seed": self.settings["seed"],
            "interrupted": self.interrupted,
            "counts": {"train": self._counts("train"), "val": self._counts("val"), "unreadable": len(self.errors)},
            **provenance(self.classifier),
            "settings": dict(self.settings),
            "classes": list(self.photos.classes),
            "confusion": self.confusion.tolist(),
            "notes": list(self.notes),
            "errors": list(self.errors),
        }

    def _counts(self, part: str) -> dict[str, int]:
        counted = Counter(row.target for row in getattr(self.photos, part))
        return {name: counted[i] for i, name in enumerate(self.photos.classes)}


def markdown(run: FineTuned, pictures: Sequence[str] = (), why_none: str = "") -> str:
    """The report for people, with its pictures or why there are none."""
    report = run.report()
    trained, held_out = len(run.photos.train), len(run.photos.val)
    recall = run.confusion.diagonal() / np.maximum(run.confusion.sum(axis=1), 1)
    lines = [
        f"# {report['model']}, fine-tuned on {len(run.photos.classes)} classes",
        "",
        (
            f"**{run.val_accuracy:.1%}** of {held_out} photos that it was not trained on get their class "
            f"({report['val_correct']} of {held_out}); with the head alone trained, {run.head_val_accuracy:.1%}."
        ),
        "",
        (
            f"Trained on {trained} photos in {report['seconds']:.0f} s, seed {report['seed']}, images of "
            f"{report['resolution']} x {report['resolution']} pixels."
        ),
        *(["", "It was interrupted: the model is as far as it had come."] if run.interrupted else []),
        "",
        "| class | trained on | measured on | right |",
        "|---|---:|---:|---:|",
        *(
            f"| {_cell(name)} | {report['counts']['train'][name]} | {report['counts']['val'][name]} | {part:.0%} |"
            for name, part in zip(run.photos.classes, recall, strict=True)
        ),
        "",
        *(f"- {_cell(note)}" for note in (*run.notes, *run.errors)),
        "",
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures),
        *([f"No pictures: {why_none}."] if why_none else []),
        "",
        f"Classify with it: `keras-effnet classify --model {MODEL} PHOTO` in this folder.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
