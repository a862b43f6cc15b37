"""Labelled photos from folders, a list, TFRecords or TensorFlow Datasets, with labels as outputs of a model."""

import glob
import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from keras_effnet.data.class_names import Classes, has_photo_names, match_classes, read_labels
from keras_effnet.data.photos import Photo
from keras_effnet.data.tf_records import Record, count_records, open_dataset, read_records
from keras_effnet.errors import at_least_one, counted
from keras_effnet.image_files import SUFFIXES, find_images, is_ignored

# Folder names of the splits of a data set; case is ignored.
SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}

Location = str | os.PathLike[str]


@dataclass(frozen=True)
class Example:
    """One photo and its target, the output of the model for its class; or the error if there is no photo."""

    photo: Photo = ""
    target: int = -1
    error: str | None = None


@dataclass(frozen=True)
class Examples:
    """Labelled photos.

    Args:
        rows: the photos, in order.
        total: number of photos; `rows` yields fewer if a file is damaged.
        notes: assumptions made.
    """

    rows: Iterable[Example]
    total: int
    notes: tuple[str, ...] = ()


def open_examples(
    data: Location | Sequence[Location],
    classes: Classes,
    *,
    labels: Location | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Examples:
    """Find labelled photos and match their classes to those of a model. Nothing is skipped silently.

    Args:
        data: a folder with one folder per class, or with a val/ or test/ folder that contains them; with `labels`, a
            folder of photos; TFRecord files in ImageNet's layout, or glob patterns; or "tfds:NAME".
        classes: of the model, a pair (wnid or None, label) each.
        labels: a text file with lines "photo class", or with one class per line in the order of the photos' names.
        split: of "tfds:NAME", "validation" by default.
        limit: maximum number of photos: evenly spaced ones from a folder, otherwise the first ones.

    Raises:
        ImportError: TensorFlow or TensorFlow Datasets is needed for this data and not installed.
        ValueError: there is no data, or classes are not in the model; the message lists them.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "Tabby").mkdir()
        ...     Path(folder, "Tabby", "1.jpg").touch()
        ...     [row.target for row in open_examples(folder, (("n02123045", "tabby"),)).rows]
        [0]
    """
    at_least_one(limit=limit)
    names = [os.fspath(path) for path in ([data] if isinstance(data, str | os.PathLike) else data)]
    dataset = names[0].removeprefix("tfds:") if len(names) == 1 and names[0].startswith("tfds:") else None
    folder = Path(names[0]) if len(names) == 1 and dataset is None and Path(names[0]).is_dir() else None
    _refuse("split", split, "tfds:NAME", dataset)
    _refuse("labels", labels, "one folder of photos", folder)
    if dataset is not None:
        return _of_dataset(dataset, split or "validation", classes, limit)
    if folder is None:
        return _of_records(_files(names), classes, limit)
    examples = _of_folders(folder, classes) if labels is None else _of_list(folder, Path(labels), classes)
    if limit is None or limit >= examples.total:
        return examples
    rows = list(examples.rows)
    # The first photos would all belong to the first classes.
    return Examples([rows[i * len(rows) // limit] for i in range(limit)], limit, examples.notes)


def names_photos(labels: Location, data: Location | Sequence[Location]) -> bool:
    """Whether a file of labels belongs to the photos of a folder; if not, it contains the labels of a model.

    It belongs to the photos if it has lines "photo class", or if the folder contains photos outside of class folders.
    """
    names = [os.fspath(path) for path in ([data] if isinstance(data, str | os.PathLike) else data)]
    if len(names) != 1 or not Path(names[0]).is_dir():
        return False
    loose = any(path.suffix.lower() in SUFFIXES and path.is_file() for path in Path(names[0]).iterdir())
    return loose or has_photo_names(Path(labels))


def _refuse(option: str, value: object, belongs_to: str, given: object) -> None:
    if value is not None and given is None:
        raise ValueError(
            f"{option} is {str(value)!r}. Expected it with {belongs_to} only. Omit {option}, or pass {belongs_to}."
        )


def _files(names: Sequence[str]) -> list[str]:
    files: list[str] = []
    for name in names:
        # pathlib does not support absolute patterns.
        found = [name] if Path(name).is_file() else sorted(glob.glob(name))  # noqa: PTH207
        if not found or not all(Path(file).is_file() for file in found):
            raise ValueError(
                f"There is no data {name!r}. Expected one folder of photos, TFRecord files or glob patterns, or one "
                "tfds:NAME. Check the path. For a folder of TFRecords pass its files, as in 'folder/validation-*'."
            )
        files += found
    return files


def subfolders(folder: Path) -> list[Path]:
    """The subfolders of a folder, sorted; hidden ones and those of operating systems are ignored.

    Raises:
        ValueError: a link is broken that may have been a folder of photos.
    """
    inside = sorted(path for path in folder.iterdir() if not is_ignored(path.name))
    for path in inside:
        if path.is_symlink() and not path.exists() and path.suffix.lower() not in SUFFIXES:
            raise ValueError(
                f"{str(path)!r} is a broken link to {str(path.readlink())!r}. Expected a folder of photos there. Mend "
                "or remove the link."
            )
    return [path for path in inside if path.is_dir()]


def find_splits(folder: Path) -> dict[str, Path]:
    """The folders of the splits train, val and test; only those that exist and contain subfolders."""
    named = {path.name.casefold(): path for path in subfolders(folder) if subfolders(path)}
    found = {split: next((named[name] for name in names if name in named), None) for split, names in SPLITS.items()}
    return {split: path for split, path in found.items() if path}


def _of_folders(folder: Path, classes: Classes) -> Examples:
    splits = find_splits(folder)
    if held_out := splits.get("val") or splits.get("test"):
        note = f"Only the photos in {held_out.name}/ of the folder {str(folder)!r} are used."
        found = _of_classes(held_out, classes)
        return replace(found, notes=(note, *found.notes))
    return _of_classes(folder, classes)


def _of_classes(folder: Path, classes: Classes) -> Examples:
    inside = [path for path in sorted(folder.iterdir()) if not is_ignored(path.name)]
    folders = subfolders(folder)
    loose = [path.name for path in inside if path.suffix.lower() in SUFFIXES and path not in folders]
    if not folders or loose:
        raise ValueError(
            f"The folder {str(folder)!r} contains {counted(len(folders), 'folder')} and "
            f"{counted(len(loose), 'photo')}. "
            "Expected one folder per class, and no photos outside them. "
            "For unsorted photos pass labels=, a file with their classes; for "
            "TFRecords pass the files."
        )
    matched = match_classes([path.name for path in folders], classes, f"the folder {str(folder)!r}")
    rows = [
        Example(photo, target)
        for path, target in zip(folders, matched.targets, strict=True)
        for photo in find_images([path])
    ]
    return Examples(rows, len(rows), matched.notes)


def _of_list(folder: Path, labels: Path, classes: Classes) -> Examples:
    photos = sorted((path for path in find_images([folder]) if path != folder), key=lambda path: path.parts)
    if not photos:
        raise ValueError(f"The folder {str(folder)!r} contains no photos. Expected *.jpg, *.png, ... Check the path.")
    names = [path.relative_to(folder).as_posix() for path in photos]
    targets, notes = read_labels(labels, names, classes)
    rows = [Example(photo, targets[name]) for photo, name in zip(photos, names, strict=True)]
    return Examples(rows, len(rows), notes)


def _of_records(files: Sequence[str], classes: Classes, limit: int | None) -> Examples:
    (total, _), wnids = count_records(files), {wnid for wnid, _ in classes}
    rows = (_example(record, classes, wnids) for file in files for record in read_records(file))
    return Examples(islice(rows, limit), min(total, limit or total))


def _example(record: Record, classes: Classes, wnids: Set[str | None]) -> Example:
    if record.error:
        return Example(error=record.error)
    target = record.label - 1  # 0 is reserved for a background class, which no photo has
    if not 0 <= target < len(classes) or (record.wnid in wnids and classes[target][0] != record.wnid):
        label = f"{record.label} {record.wnid}".strip()
        error = (
            f"{record.name!r} has the label {label}. Expected a number from 1 to {len(classes)}, in the order of the "
            "model's classes, and the wnid of the same class. Rewrite the records with labels that count from 1."
        )
        return Example(error=error)
    return Example((record.name, record.image), target)


def _of_dataset(name: str, split: str, classes: Classes, limit: int | None) -> Examples:
    dataset = open_dataset(name, split)
    matched = match_classes(dataset.names, classes, f"'tfds:{name}'")
    rows = (Example((record.name, record.image), matched.targets[record.label]) for record in dataset.records)
    return Examples(islice(rows, limit), min(dataset.total, limit or dataset.total), matched.notes)
