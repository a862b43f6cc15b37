"""Find photos to train on: one folder per class, train/ and val/, a CSV, or TensorFlow Datasets."""

import csv
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_effnet.artifacts import LABELS, MODEL
from keras_effnet.data.labelled_photos import SPLITS, Example, find_splits, subfolders
from keras_effnet.data.listed_files import Folder, read_rows, report_missing
from keras_effnet.data.tf_records import Dataset, open_dataset
from keras_effnet.errors import Range, counted
from keras_effnet.image_files import SUFFIXES, find_images, is_ignored, normal_name

LAYOUTS = "one folder per class, train/ and val/ with these, a CSV with path,label[,split], or tfds:NAME"


@dataclass(frozen=True)
class TrainingPhotos:
    """Photos to train on and photos to evaluate on.

    Args:
        classes: names, in the order of the model's outputs.
        train: photos to train on; `target` is an index of `classes`.
        val: photos to evaluate on; empty until some are held out.
        notes: assumptions made and photos left out.
        drawn: whether `val` was drawn from the photos, because the data has no validation split.
    """

    classes: tuple[str, ...]
    train: tuple[Example, ...]
    val: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    drawn: bool = False

    def __repr__(self) -> str:
        sizes = f"{len(self.train):,} to train on, {len(self.val):,} to evaluate on"
        return f"TrainingPhotos({sizes}, {counted(len(self.classes), 'class')})"


def open_training_photos(data: str | os.PathLike[str], *, val_share: float = 0.2, seed: int = 0) -> TrainingPhotos:
    """Find labelled photos, and hold out a share of each class if the data has no validation split.

    Args:
        data: a folder with one folder per class; a folder with train/ and optionally val/ that contain them; a CSV file
            with the columns path, label and optionally split; or "tfds:NAME".
        val_share: share of each class to hold out, above 0 and below 1.
        seed: of the random choice.

    Raises:
        ImportError: TensorFlow Datasets is needed for "tfds:NAME" and not installed.
        ValueError: there is no data, it has fewer than two classes, or an unknown layout.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         Path(folder, name).touch()
        ...     len(open_training_photos(folder).val)
        2
    """
    Range(above=0, below=1).check("val_share", val_share)
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
    splits = find_splits(folder)
    train, val = splits.get("train"), splits.get("val") or splits.get("test")
    if train is None and val is not None:
        raise ValueError(
            f"The folder {str(folder)!r} contains {val.name}/ but no train/. Expected {LAYOUTS}. Rename the folder "
            "with the training photos to train, or pass the folder that contains the classes."
        )
    if train is None:
        return _of_classes(folder)
    aside = [path.name for path in subfolders(folder) if path not in (train, val) and _photos_in(path)]
    notes = (f"Ignored folders next to {train.name}/: {listed(aside)}.",) if aside else ()
    photos = _of_classes(train)
    photos = replace(photos, notes=(*photos.notes, *notes))
    return photos if val is None else _with_validation(photos, train, val, tested=val == splits.get("test"))


def _with_validation(photos: TrainingPhotos, train: Path, val: Path, *, tested: bool) -> TrainingPhotos:
    found = _of_classes(val)
    unknown = sorted(set(found.classes) - set(photos.classes))
    if unknown:
        raise ValueError(
            f"The folder {str(val)!r} has {counted(len(unknown), 'class')} without photos in {train.name}/: "
            f"{listed(unknown)}. Expected only classes that are trained. Rename or remove their folders."
        )
    targets = {i: photos.classes.index(name) for i, name in enumerate(found.classes)}
    rows = tuple(Example(row.photo, targets[row.target]) for row in found.train)
    note = (f"There is no val/ next to {train.name}/, so the accuracy is measured on {val.name}/.",) if tested else ()
    return TrainingPhotos(photos.classes, photos.train, rows, (*photos.notes, *found.notes, *note))


def _photos_in(folder: Path) -> list[Path]:
    """All photos below a folder, except the plots of earlier runs."""
    found = [photo for photo in find_images([folder]) if photo != folder]
    runs = {parent for parent in {photo.parent for photo in found} if (parent / MODEL).is_file()}
    return [photo for photo in found if photo.parent not in runs]


def _of_classes(folder: Path) -> TrainingPhotos:
    by_class: dict[str, list[Path]] = {}
    for path in subfolders(folder):
        by_class.setdefault(normal_name(path.name), []).extend(_photos_in(path))
    files = (path for path in folder.iterdir() if not is_ignored(path.name))
    loose = [path.name for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not by_class or loose:
        raise ValueError(
            f"The folder {str(folder)!r} contains {counted(len(by_class), 'folder')} and "
            f"{counted(len(loose), 'photo')}. "
            f"Expected {LAYOUTS}. Move the photos into folders named after their classes."
        )
    empty = [name for name, photos in by_class.items() if not photos]
    notes = (f"Ignored folders without photos ({len(empty)}): {listed(empty)}.",) if empty else ()
    return _grouped({name: photos for name, photos in by_class.items() if photos}, notes)


def _grouped(by_class: Mapping[str, Sequence[Path]], notes: tuple[str, ...] = ()) -> TrainingPhotos:
    rows = (Example(photo, target) for target, photos in enumerate(by_class.values()) for photo in photos)
    return TrainingPhotos(tuple(by_class), tuple(rows), notes=notes)


def _read_csv(file: Path) -> list[tuple[int, list[str]]]:
    """The non-empty lines with their numbers, without the header."""
    try:
        lines = read_rows(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The list {str(file)!r} cannot be read: {error}. Expected {LAYOUTS}. Check it.") from error
    if lines and [cell.strip().lower() for cell in lines[0][1][:2]] == ["path", "label"]:
        del lines[0]
    elif lines and not Path(lines[0][1][0].strip()).suffix:
        raise ValueError(
            f"The list {str(file)!r} begins with {','.join(lines[0][1])!r}. Expected the header path,label or "
            "path,label,split, or a photo. Correct the header."
        )
    return lines


def _of_csv(file: Path) -> TrainingPhotos:
    by_part: dict[str, dict[str, list[Path]]] = {"train": defaultdict(list), "val": defaultdict(list)}
    seen: set[Path] = set()
    missing: list[str] = []
    folder = Folder(file.parent)
    for number, row in _read_csv(file):
        path, label, part = (*(cell.strip() for cell in row), "", "", "")[:3]
        part = next((split for split, names in SPLITS.items() if part.lower() in names), part or "train")
        if not path or not label or part not in by_part:
            raise ValueError(
                f"Line {number} of the list {str(file)!r} is {','.join(row)!r}. Expected path,label or "
                "path,label,split with the split train or val. Correct the line."
            )
        photo = folder.find(path)
        if not photo.exists():
            missing.append(f"{path!r} (line {number})")
        if photo in seen:
            raise ValueError(
                f"Line {number} of the list {str(file)!r} repeats the photo {path!r}. Expected each photo once, with "
                "one label and in one split. Remove one of the lines."
            )
        seen.add(photo)
        by_part[part][normal_name(label)].append(photo)
    train = _grouped(dict(sorted(by_part["train"].items())))
    unknown = sorted(set(by_part["val"]) - set(train.classes))
    if unknown:
        raise ValueError(
            f"The list {str(file)!r} has {counted(len(unknown), 'class')} in val only: {listed(unknown)}. "
            "Expected only classes that are trained. Correct the lines."
        )
    val = tuple(Example(path, train.classes.index(label)) for label in by_part["val"] for path in by_part["val"][label])
    return TrainingPhotos(train.classes, train.train, val, report_missing(file, missing, len(seen)))


def _of_dataset(name: str) -> TrainingPhotos:
    train = open_dataset(name, "train")
    for split in ("validation", "test"):
        try:
            val = open_dataset(name, split)
        except ValueError:  # the dataset does not have this split
            continue
        note = f"The accuracy is measured on the split {split!r} of 'tfds:{name}'."
        return TrainingPhotos(train.names, _rows(train), _rows(val), (note,))
    return TrainingPhotos(train.names, _rows(train))


def _rows(dataset: Dataset) -> tuple[Example, ...]:
    return tuple(Example((record.name, record.image), record.label) for record in dataset.records)


def _check_classes(classes: Sequence[str], data: str) -> None:
    if len(classes) < 2:
        raise ValueError(
            f"The data {data!r} has {counted(len(classes), 'class')} with photos{': ' if classes else ''}"
            f"{listed(classes)}. Expected at least two. Add photos of another class."
        )
    odd = [name for name in classes if name != name.strip() or not name.isprintable()]
    if odd:
        raise ValueError(
            f"The data {data!r} has the classes {', '.join(map(repr, odd[:5]))}. Expected printable names without "
            f"leading or trailing spaces, as {LABELS} has one name per line. Rename them."
        )


def listed(names: Sequence[str], most: int = 10) -> str:
    """The names, comma-separated; only the first `most` of a long list."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _hold_out(photos: TrainingPhotos, share: float, seed: int) -> TrainingPhotos:
    """Hold out the same share of every class; a class with a single photo is only trained on."""
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
            "Every class has only one photo. Expected at least two of some class, so that one can be held out. Add "
            "photos."
        )
    train = tuple(row for i, row in enumerate(photos.train) if i not in held)
    val = tuple(photos.train[i] for i in sorted(held))
    part = len(val) / len(photos.train)
    note = f"There is no validation split, so {len(val)} of {len(photos.train)} photos ({part:.0%}) are held out."
    notes = (*photos.notes, note)
    if single:
        notes = (*notes, f"Classes with too few photos to hold one out ({len(single)}): {listed(single)}.")
    return TrainingPhotos(photos.classes, train, val, notes, drawn=True)
