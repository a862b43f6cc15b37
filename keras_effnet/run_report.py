"""What a fine-tuning leaves behind: a folder with the model, a report for programs and one for people, and pictures."""

import csv
import json
import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.classifier import Classifier
from keras_effnet.evaluate import provenance
from keras_effnet.run_plots import confusion_matrix, learning_curves
from keras_effnet.training_photos import TrainingPhotos

MODEL = "model.keras"
WEIGHTS = "model.weights.h5"


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
        blocks_dropped: whether phase 2 made the model worse on the photos held out, so that it is that of phase 1.
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
    blocks_dropped: bool = False

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
        return [row.val_accuracy for row in self.history if row.phase == "head"][-1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be assumed, left out or dropped, a sentence or two each."""
        dropped = (
            "Training the blocks made the model worse on the photos held out: what is kept is the head on the network "
            "as it was. A lower learning rate (--learning-rate), or photos whose labels are checked, may help."
        )
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


def claim(folder: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Make sure, before any work, that a run can be written to a folder.

    Raises:
        ValueError: it holds something and may not be overwritten, or nothing can be written there.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        taken = any(path.iterdir())
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"The folder {str(path)!r} cannot be written to: {error.strerror}. Expected a folder for the results. "
            "Choose another one."
        ) from error
    if taken and not overwrite:
        raise ValueError(
            f"The folder {str(path)!r} is not empty. Expected a new one, so that no earlier result is lost. Choose "
            "another name, or overwrite it (--overwrite, overwrite=True)."
        )
    return path


def write_run(folder: Path, run: FineTuned) -> tuple[str, ...]:
    """Write a run: all of it, or nothing.

    Returns:
        The names of the files.

    Raises:
        OSError: there is no room.
    """
    names = "\n".join(run.photos.classes) + "\n"
    writers = {
        MODEL: run.model.save,
        WEIGHTS: lambda path: _extract_weights(path.with_name(MODEL), path),
        "labels.txt": lambda path: path.write_text(names, "utf-8"),
        "history.csv": lambda path: _write_history(path, run.history),
        "report.json": lambda path: path.write_text(json.dumps(run.report(), indent=2) + "\n", "utf-8"),
    }
    pictures = {
        "learning_curves.png": lambda path: learning_curves(path, run.history),
        "confusion_matrix.png": lambda path: confusion_matrix(path, run.confusion, run.photos.classes),
    }
    shown = pictures if find_spec("matplotlib") else {}
    writers |= shown | {"report.md": lambda path: path.write_text(markdown(run, tuple(shown)), "utf-8")}
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as aside:
        for name, write in writers.items():
            write(Path(aside, name))
        for name in writers:
            Path(aside, name).replace(folder / name)
    for name in pictures.keys() - shown.keys():
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    return tuple(writers)


def _extract_weights(model: Path, path: Path) -> None:
    """The file of weights that is inside of a model's; HDF5 itself ends the process on a disk that is full."""
    with zipfile.ZipFile(model) as archive, archive.open(WEIGHTS) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


def write_somewhere(folder: Path, run: FineTuned) -> None:
    """Write a run, and where the folder has no room for it, to another one: what was learnt is not lost.

    Raises:
        OSError: it is not in the folder; the message says where it is.
    """
    try:
        write_run(folder, run)
    except OSError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="keras-effnet-"))
        try:
            write_run(elsewhere, run)
        except OSError:
            elsewhere.rmdir()
            kept = "It is in no other place either. Make room, and start again."
        else:
            kept = f"The results are in {str(elsewhere)!r}. Move them from there."
        raise OSError(
            f"Nothing can be written to {str(folder)!r}: {error}. Expected room for the model. {kept}"
        ) from error


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)


def markdown(run: FineTuned, pictures: Sequence[str] = ()) -> str:
    """The report for people."""
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
        *([] if pictures else ['No pictures: Matplotlib is missing (`pip install "keras_effnet[plots]"`).']),
        "",
        f"Classify with it: `keras-effnet classify --model {MODEL} PHOTO` in this folder.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
