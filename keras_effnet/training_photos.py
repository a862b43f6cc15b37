"""Photos to train a classifier on: a folder for each class, train/ and val/, a CSV, or TensorFlow Datasets."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.images import SUFFIXES, find_images
from keras_effnet.labelled import Example
from keras_effnet.tf_data import Dataset, open_dataset

VALIDATION = ("val", "validation", "valid")
LAYOUTS = "a folder for each class, train/ and val/ with these, a CSV with path,label[,split], or tfds:NAME"


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos to train on and photos to measure on.

    Args:
        classes: their names, in the order of the model's outputs.
        train: what is learnt; `target` counts the classes from 0.
        val: what the accuracy is measured on, empty until a part is held out.
        notes: what had to be assumed or left out.
    """

    classes: tuple[str, ...]
    train: tuple[Example, ...]
    val: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()


def open_training_photos(data: str | os.PathLike[str], *, val_share: float = 0.2, seed: int = 0) -> TrainingPhotos:
    """Find labelled photos, and hold a part of each class out where none is given for validation.

    Args:
        data: a folder with a folder for each class; a folder with train/ and perhaps val/ that hold these; a CSV file
            with the columns path, label and perhaps split; or "tfds:NAME".
        val_share: part of each class that is held out, above 0 and below 1.
        seed: of the draw which photos these are.

    Raises:
        ImportError: TensorFlow Datasets is missing for "tfds:NAME".
        ValueError: nothing there, fewer than two classes, or a layout that is none of these.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         Path(folder, name).touch()
        ...     len(open_training_photos(folder).val)
        2
    """
    if not 0 < val_share < 1:
        raise ValueError(
            f"val_share is {val_share!r}. Expected a part between 0 and 1. Pass for example 0.2 to hold out a fifth."
        )
    name = os.fspath(data)
    if name.startswith("tfds:"):
        photos = _of_dataset(name.removeprefix("tfds:"))
    elif Path(name).is_file():
        photos = _of_csv(Path(name))
    else:
        photos = _of_folder(Path(name))
    _check_classes(photos.classes, name)
    return photos if photos.val else _hold_out(photos, val_share, seed)


def _of_folder(folder: Path) -> TrainingPhotos:
    if not folder.is_dir():
        raise ValueError(f"There is no data {str(folder)!r}. Expected {LAYOUTS}. Check the path.")
    train = folder / "train"
    if not (train.is_dir() and _folders(train)):
        return _of_classes(folder)
    photos = _of_classes(train)
    val = next((folder / name for name in VALIDATION if _folders(folder / name)), None)
    if val is None:
        return photos
    found = _of_classes(val)
    unknown = sorted(set(found.classes) - set(photos.classes))
    if unknown:
        raise ValueError(
            f"The folder {str(val)!r} has {len(unknown)} classes without photos in {train.name}/: {_listed(unknown)}. "
            "Expected the classes that are trained. Rename their folders, or take them out."
        )
    targets = {i: photos.classes.index(name) for i, name in enumerate(found.classes)}
    rows = tuple(Example(row.photo, targets[row.target]) for row in found.train)
    return TrainingPhotos(photos.classes, photos.train, rows, (*photos.notes, *found.notes))


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _of_classes(folder: Path) -> TrainingPhotos:
    by_class = {path.name: [photo for photo in find_images([path]) if photo != path] for path in _folders(folder)}
    loose = [path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not by_class or loose:
        raise ValueError(
            f"The folder {str(folder)!r} holds {len(by_class)} folders and {len(loose)} photos beside them. Expected "
            f"{LAYOUTS}. Sort the photos into folders named after their classes."
        )
    empty = [name for name, photos in by_class.items() if not photos]
    notes = (f"{len(empty)} folders hold no photos and are no classes: {_listed(empty)}.",) if empty else ()
    return _grouped({name: photos for name, photos in by_class.items() if photos}, notes)


def _grouped(by_class: Mapping[str, Sequence[Path]], notes: tuple[str, ...] = ()) -> TrainingPhotos:
    rows = (Example(photo, target) for target, photos in enumerate(by_class.values()) for photo in photos)
    return TrainingPhotos(tuple(by_class), tuple(rows), notes=notes)


def _of_csv(file: Path) -> TrainingPhotos:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = [(number, row) for number, row in enumerate(csv.reader(opened), 1) if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The list {str(file)!r} cannot be read: {error}. Expected {LAYOUTS}. Check it.") from error
    if lines and [cell.strip().lower() for cell in lines[0][1][:2]] == ["path", "label"]:
        del lines[0]
    elif lines and not Path(lines[0][1][0].strip()).suffix:
        raise ValueError(
            f"The list {str(file)!r} begins with {','.join(lines[0][1])!r}. Expected the columns path,label or "
            "path,label,split, or a photo. Name and order the columns so."
        )
    by_part: dict[str, dict[str, list[Path]]] = {"train": defaultdict(list), "val": defaultdict(list)}
    for number, row in lines:
        path, label, part = (*(cell.strip() for cell in row), "", "", "")[:3]
        part = "val" if part.lower() in VALIDATION else part.lower() or "train"
        if not path or not label or part not in by_part:
            raise ValueError(
                f"The list {str(file)!r} has the line {number} {','.join(row)!r}. Expected path,label or "
                "path,label,split with the split train or val. Correct the line."
            )
        by_part[part][label].append(file.parent / path)
    train = _grouped(dict(sorted(by_part["train"].items())))
    unknown = sorted(set(by_part["val"]) - set(train.classes))
    if unknown:
        raise ValueError(
            f"The list {str(file)!r} has {len(unknown)} classes in val only: {_listed(unknown)}. Expected the classes "
            "that are trained. Correct the lines."
        )
    val = tuple(Example(path, train.classes.index(label)) for label in by_part["val"] for path in by_part["val"][label])
    return TrainingPhotos(train.classes, train.train, val)


def _of_dataset(name: str) -> TrainingPhotos:
    train = open_dataset(name, "train")
    for split in ("validation", "test"):
        try:
            val = open_dataset(name, split)
        except ValueError:  # it has no such split
            continue
        note = f"The accuracy is measured on the split {split!r} of 'tfds:{name}'."
        return TrainingPhotos(train.names, _rows(train), _rows(val), (note,))
    return TrainingPhotos(train.names, _rows(train))


def _rows(dataset: Dataset) -> tuple[Example, ...]:
    return tuple(Example((record.name, record.image), record.label) for record in dataset.records)


def _check_classes(classes: Sequence[str], data: str) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"The data {data!r} has {len(classes)} classes with photos{': ' if classes else ''}{_listed(classes)}. "
            "Expected at least two to tell apart. Add a folder, or lines, for another class."
        )
    odd = [name for name in classes if name != name.strip() or not name.isprintable()]
    if odd:
        raise ValueError(
            f"The data {data!r} has the classes {', '.join(map(repr, odd[:5]))}. Expected names that can stand in a "
            "line of labels.txt, without spaces around them. Rename them."
        )


def check_parts(photos: TrainingPhotos, errors: Sequence[str], *, strict: bool) -> None:
    """Refuse photos of which too few could be read.

    Raises:
        ValueError: nothing is left to measure on or of a class to train on; with `strict`, any error.
    """
    if strict and errors:
        raise ValueError(
            f"{len(errors)} photos cannot be read, the first: {errors[0]} Expected none, as strict asks. Take them "
            "out, or leave strict away to go on without them."
        )
    trained = {row.target for row in photos.train}
    lost = [name for i, name in enumerate(photos.classes) if i not in trained]
    if lost or not photos.val:
        what = f"to train the classes {_listed(lost)}" if lost else "to measure on"
        raise ValueError(
            f"No photos are left {what}: {len(errors)} cannot be read{', the first: ' if errors else ''}"
            f"{errors[0] if errors else '.'} Expected some. Replace them."
        )


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _hold_out(photos: TrainingPhotos, share: float, seed: int) -> TrainingPhotos:
    """Draw the same share of every class; a class of one photo is only trained."""
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    single = []
    for target, name in enumerate(photos.classes):
        rows = [i for i, row in enumerate(photos.train) if row.target == target]
        if len(rows) < 2:
            single.append(name)
            continue
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held |= set(rng.permutation(rows)[:count].tolist())
    if not held:
        raise ValueError(
            "Every class has one photo. Expected at least two of some class, one of which is held out. Add photos."
        )
    train = tuple(row for i, row in enumerate(photos.train) if i not in held)
    val = tuple(photos.train[i] for i in sorted(held))
    note = f"No photos were given for validation: {len(val)} of {len(photos.train)}, {share:.0%} a class, held out."
    notes = (*photos.notes, note)
    if single:
        notes = (*notes, f"{len(single)} classes have too few photos to hold one out: {_listed(single)}.")
    return TrainingPhotos(photos.classes, train, val, notes)
