"""Find the images to train on: in folders, a CSV, ImageNet's TFRecords, TensorFlow Datasets or arrays."""

import glob
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.tf_records import SHARDS, count_records, find_remote_records, open_dataset
from keras_effnet.data.tf_sources import Source, from_dataset, from_records, from_rows
from keras_effnet.data.training_photos import open_training_photos
from keras_effnet.imagenet import class_index
from keras_effnet.images import SUFFIXES

# Files with these suffixes were passed by mistake, instead of their folder or of TFRecords.
NO_RECORDS = (*SUFFIXES, ".csv", ".json", ".tar", ".tsv", ".txt", ".zip")

Data = str | os.PathLike[str] | Sequence[str] | tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class TrainingData:
    """Images to train on, and held-out images that select the best epoch.

    Args:
        classes: names, in the order of the model's outputs.
        train: images to train on.
        held_out: images to evaluate on.
        digest: hash of class names, file names, labels and, for arrays, pixels; it does not depend on the location.
        notes: assumptions made and images left out.
    """

    classes: tuple[str, ...]
    train: Source
    held_out: Source
    digest: str
    notes: tuple[str, ...] = ()


def open_training_data(data: Data, *, holdout: float = 20 / 1024, seed: int = 0) -> TrainingData:
    """Find images and their classes, and hold out a share of them.

    Args:
        data: a folder with one folder per class, or with train/ and val/ that contain them; a CSV file with the columns
            path,label[,split]; TFRecord files in ImageNet's layout, a glob pattern or their folder, local or remote
            ("gs://..."); "tfds:NAME" or "tfds:NAME:SPLIT"; or a pair (images, labels): uint8 (n, height, width, 3), and
            classes counted from 0.
        holdout: share to hold out if the data has no val/. Of TFRecord files and TensorFlow Datasets, the first ones
            are held out, as for the published networks; otherwise a random part of each class.
        seed: of the random choice.

    Raises:
        ImportError: TensorFlow Datasets is needed for "tfds:NAME" and not installed.
        ValueError: there is no data, or nothing to hold out.

    Example:
        >>> images = np.zeros((8, 32, 32, 3), np.uint8)
        >>> open_training_data((images, np.arange(8) % 2), holdout=0.25).held_out.total
        2
    """
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], str):
        return _of_arrays(*data, holdout, seed)
    names = [os.fspath(name) for name in ([data] if isinstance(data, str | os.PathLike) else data)]
    if len(names) == 1 and names[0].startswith("tfds:"):
        return _of_dataset(names[0], holdout)
    files = _record_files(names)
    return _of_records(files, holdout) if files else _of_photos(names[0], holdout, seed)


def _of_arrays(images: Any, labels: Any, holdout: float, seed: int) -> TrainingData:
    images, labels = np.asarray(images), np.asarray(labels)
    if (
        images.ndim != 4
        or images.shape[3] != 3
        or images.dtype != np.uint8
        or labels.shape != images.shape[:1]
        or not np.issubdtype(labels.dtype, np.integer)
    ):
        raise ValueError(
            f"The images are {images.dtype} {images.shape} and the labels {labels.dtype} {labels.shape}. Expected "
            "uint8 images (n, height, width, 3) and integer labels (n,). Convert them."
        )
    if not len(labels) or labels.min() < 0 or labels.max() < 1:
        raise ValueError(
            f"The labels range from {labels.min(initial=0)} to {labels.max(initial=0)}. Expected at least two classes, "
            "numbered from 0."
        )
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for target in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == target))
        held += of_class[: max(1, round(holdout * len(of_class)))][: len(of_class) - 1].tolist()
    _check_held_out(held, "The arrays")
    is_held = np.isin(np.arange(len(labels)), held)

    def part(chosen: np.ndarray) -> Source:
        return from_rows([f"#{i}" for i in np.flatnonzero(chosen)], images[chosen], labels[chosen])

    classes = tuple(map(str, range(int(labels.max()) + 1)))
    digest = _digest(classes, (("", label) for label in labels), images)
    return TrainingData(classes, part(~is_held), part(is_held), digest)


def _digest(classes: Sequence[str], rows: Iterable[tuple[str, int]], *pixels: np.ndarray) -> str:
    found = hashlib.sha256("\n".join(classes).encode("utf-8", "surrogateescape"))
    for path, label in rows:
        found.update(b"\n%d %b" % (label, os.fsencode(Path(path).name)))
    for array in pixels:
        found.update(np.ravel(array).data)
    return found.hexdigest()[:16]


def _check_held_out(held: Sequence[Any], where: str) -> None:
    if not held:
        raise ValueError(
            f"{where} cannot be split. Expected at least two images of a class, or two files, so that some can be held "
            "out. Add more."
        )


def _of_dataset(name: str, holdout: float) -> TrainingData:
    short, _, split = name.removeprefix("tfds:").partition(":")
    found = open_dataset(short, split or "train")
    # 25,022 images of ImageNet, as published.
    held = max(1, math.floor(holdout * found.total))
    _check_held_out([held] if held < found.total else [], repr(name))
    train = from_dataset(found.stream.skip(held), found.total - held, name)
    held_out = from_dataset(found.stream.take(held), held, f"{name} held out")
    return TrainingData(found.names, train, held_out, _digest(found.names, [(name, found.total)]))


def _record_files(names: Sequence[str]) -> list[str]:
    """The TFRecord files, or an empty list if the names refer to other data."""
    files: list[str] = []
    for name in names:
        files += find_remote_records(name) if "://" in name else _local_files(name)
    for file in files:
        if Path(file).suffix.lower() in NO_RECORDS:
            raise ValueError(
                f"{file!r} does not have the name of a TFRecord file. Expected TFRecord files, or a local folder with "
                "one folder per class, or a local CSV with path,label[,split]. Pass one of these."
            )
    if not files and len(names) > 1:
        raise ValueError(f"There are no files {', '.join(names)}. Expected TFRecord files. Check the paths.")
    return files


def _local_files(name: str) -> list[str]:
    pattern = str(Path(name) / SHARDS) if Path(name).is_dir() else name
    # pathlib does not support absolute patterns.
    found = [file for file in sorted(glob.glob(pattern)) if Path(file).is_file()]  # noqa: PTH207
    return [file for file in found if Path(file).suffix.lower() != ".csv"]


def _of_records(files: Sequence[str], holdout: float) -> TrainingData:
    held = min(max(1, round(holdout * len(files))), len(files) - 1)
    _check_held_out(files[:held], f"{len(files)} TFRecord file(s)")
    (held_total, held_cut), (total, cut) = count_records(files[:held]), count_records(files[held:])
    classes = tuple(label for _, label in class_index())
    notes = [f"{held} of {len(files)} files are held out; the classes are ImageNet's."]
    if cut := (*held_cut, *cut):
        notes.append(f"{len(cut)} files are truncated; their complete records are used: {', '.join(cut[:8])}.")
    digest = _digest(classes, ((file, 0) for file in files))
    train, held_out = from_records(files[held:], total), from_records(files[:held], held_total)
    return TrainingData(classes, train, held_out, digest, tuple(notes))


def _of_photos(name: str, holdout: float, seed: int) -> TrainingData:
    found = open_training_photos(name, val_share=holdout, seed=seed)

    def part(rows: Sequence[Example]) -> Source:
        paths = [os.fspath(row.photo) for row in rows]  # type: ignore[arg-type]  # folders and lists contain only paths
        return from_rows(paths, paths, [row.target for row in rows], is_path=True)

    # Sorted, so that the digest does not depend on which photos are held out.
    rows = sorted((Path(str(row.photo)).name, row.target) for row in (*found.train, *found.val))
    digest = _digest(found.classes, rows)
    return TrainingData(found.classes, part(found.train), part(found.val), digest, found.notes)
