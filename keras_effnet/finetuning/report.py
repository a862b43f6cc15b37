"""The result of a fine-tuning run, as an object, as JSON and as Markdown."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_effnet.artifacts import MODEL
from keras_effnet.data.photos import named
from keras_effnet.data.training_photos import TrainingPhotos
from keras_effnet.errors import counted
from keras_effnet.inference.accuracy import Answer
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.provenance import provenance
from keras_effnet.inference.report_page import report_page
from keras_effnet.reports.model_card import RUN_LOAD, Card, Metric, model_card
from keras_effnet.weights.registry import WEIGHTS


@dataclass(frozen=True)
class Epoch:
    """One epoch of the phase "head" or "blocks"; losses include label smoothing."""

    phase: str
    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model, and how it was trained.

    Args:
        classifier: the model with its classes.
        photos: the photos for training and validation, without the unreadable ones.
        history: the epochs of both phases.
        predicted: the predicted class of each of `photos.val`.
        settings: of the run.
        seconds: duration of each part of the run.
        cpu_seconds: CPU time of this process, over all cores.
        errors: one message for each unreadable photo.
        interrupted: whether the run was interrupted.
        blocks_dropped: why phase 2 was discarded and the model of phase 1 kept; empty if it was not.
        confidence: the score of each predicted class, 0..1, (validation photos,).
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
    confidence: np.ndarray | None = None

    def __repr__(self) -> str:
        photos, epochs = counted(len(self.photos.val), "photo"), counted(len(self.history), "epoch")
        return f"FineTuned({self.classifier!r}, {self.val_accuracy:.1%} of {photos} right, {epochs})"

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.classifier.model

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of validation photos by true class (row) and predicted class (column), int64 (classes, classes)."""
        classes = len(self.photos.classes)
        targets = np.array([row.target for row in self.photos.val])
        return np.bincount(targets * classes + self.predicted, minlength=classes**2).reshape(classes, classes)

    @property
    def val_accuracy(self) -> float:
        """Share of the validation photos that are classified correctly, 0..1."""
        return int(self.confusion.trace()) / len(self.photos.val)

    @property
    def head_val_accuracy(self) -> float:
        """The accuracy after phase 1, with only the head trained."""
        measured = [row.val_accuracy for row in self.history if row.phase == "head"][-1]
        # Keras computes it in float32; as a fraction of whole photos it is comparable with val_accuracy.
        return round(measured * len(self.photos.val)) / len(self.photos.val)

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions made, photos left out, and whether phase 2 was discarded; one or two sentences each."""
        dropped = f"The model of phase 1 is kept (new head, pretrained blocks): {self.blocks_dropped}"
        return (*self.photos.notes, *([dropped] if self.blocks_dropped else []))

    def report(self) -> dict[str, Any]:
        """The contents of `report.json`."""
        return deepcopy(self._report)

    @cached_property
    def _report(self) -> dict[str, Any]:
        # Once: the weight file is hashed.
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


def markdown(run: FineTuned, plots: Sequence[str] = (), why_none: str = "") -> str:
    """The report as Markdown, with links to the plots or the reason why there are none."""
    report = run.report()
    trained, held_out = len(run.photos.train), len(run.photos.val)
    recall = run.confusion.diagonal() / np.maximum(run.confusion.sum(axis=1), 1)
    lines = [
        f"# {report['model']}, fine-tuned on {len(run.photos.classes)} classes",
        "",
        (
            f"Validation accuracy: **{run.val_accuracy:.1%}** ({report['val_correct']} of {held_out} photos); "
            f"{run.head_val_accuracy:.1%} with only the head trained."
        ),
        "",
        (
            f"Trained on {trained} photos in {report['seconds']:.0f} s, with seed {report['seed']} and images of "
            f"{report['resolution']} x {report['resolution']} pixels."
        ),
        *(["", "The run was interrupted; this is the model at that point."] if run.interrupted else []),
        "",
        "| class | training photos | validation photos | correct |",
        "|---|---:|---:|---:|",
        *(
            f"| {_cell(name)} | {report['counts']['train'][name]} | {report['counts']['val'][name]} | {part:.0%} |"
            for name, part in zip(run.photos.classes, recall, strict=True)
        ),
        "",
        *(f"- {_cell(note)}" for note in (*run.notes, *run.errors)),
        "",
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots),
        *([f"No plots: {why_none}."] if why_none else []),
        "",
        f"To classify a photo, run `keras-effnet classify --model {MODEL} PHOTO` in this folder.",
        "",
    ]
    return "\n".join(lines)


def card(run: FineTuned) -> str:
    """The model card, README.md."""
    report = run.report()
    trained, held_out = len(run.photos.train), len(run.photos.val)
    started = (report["model"], report["weights"] or "")
    limits = ["The validation photos also decided which model was kept, so unseen photos may get a lower accuracy."]
    if run.interrupted:
        limits.append("The training was interrupted.")
    return model_card(
        Card(
            name=f"{report['model']}, fine-tuned on {len(run.photos.classes)} classes",
            labels=run.photos.classes,
            size=report["resolution"],
            library="keras",
            base=f"{report['model']}, weights {report['weights'] or 'of its own'}",
            weights=started if started in WEIGHTS else None,
            data=f"{counted(trained, 'photo')} for training, {counted(held_out, 'photo')} for validation",
            metrics=[Metric("accuracy", run.val_accuracy, held_out, "validation photos")],
            load=RUN_LOAD,
            limits=limits,
        )
    )


def page(run: FineTuned) -> str:
    """The report as one HTML page: accuracy, curves, confusions, classes, and the wrong photos with their maps."""
    rows = run.photos.val
    scores = [None] * len(rows) if run.confidence is None else run.confidence.tolist()
    answers = [
        Answer(named(row.photo, i).name, row.target, int(predicted), score)
        for i, (row, predicted, score) in enumerate(zip(rows, run.predicted, scores, strict=True))
    ]
    history = {
        what: {
            "training": [getattr(epoch, what) for epoch in run.history],
            "held out": [getattr(epoch, f"val_{what}") for epoch in run.history],
        }
        for what in ("loss", "accuracy")
    }
    model = run.classifier.name or run.classifier.model.name
    return report_page(
        f"{model}, fine-tuned on {counted(len(run.photos.classes), 'class')}",
        answers,
        run.classifier.classes,
        photos=[row.photo for row in rows],
        classifier=run.classifier,
        subtitle=f"{counted(len(run.photos.train), 'photo')} to train on; the figures are of the held-out photos.",
        facts=[(f"{sum(run.seconds.values()):.0f} s", "of training")],
        history=history,
        notes=(*run.notes, *run.errors),
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
