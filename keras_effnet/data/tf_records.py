"""Labelled photos from TFRecords in ImageNet's layout and from TensorFlow Datasets.

Source of the layout: the features written by github.com/tensorflow/models and by Cloud TPU's imagenet_to_gcs.py.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from keras_effnet.errors import first_line, require_packages

# File names of ImageNet's training images.
SHARDS = "train-*-of-*"


@dataclass(frozen=True)
class Record:
    """One stored photo.

    Args:
        name: the file and the number of the record.
        image: the bytes of an image file.
        label: as stored; ImageNet's TFRecords count from 1.
        wnid: of the class, "" if the record does not contain it.
        error: why there is no photo, None if there is one.
    """

    name: str
    image: bytes = b""
    label: int = 0
    wnid: str = ""
    error: str | None = None


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Read the records of a TFRecord file in order; at the first damaged one, yield a `Record` with an error and stop.

    Raises:
        ImportError: TensorFlow is not installed.
    """
    tf = _tensorflow()
    stream = tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()
    for number in count(1):
        name = f"{os.fspath(path)}#{number}"
        try:
            data = next(stream, None)
        except tf.errors.OpError as error:
            # TensorFlow adds the name of the failed operation before and after the reason.
            reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", error.message, flags=re.DOTALL)
            fault = f"{name!r} cannot be read ({reason}), and the rest of the file was skipped."
            yield Record(name, error=f"{fault} Expected a complete TFRecord file. Download or copy it again.")
            return
        if data is None:
            return
        yield _parse(name, data)


def _tensorflow() -> Any:
    require_packages("Reading TFRecord files", "tensorflow", otherwise="or pass a folder of photos")
    import tensorflow as tf

    return tf


def _parse(name: str, data: bytes) -> Record:
    from google.protobuf.message import DecodeError

    fault = None
    try:
        features = _tensorflow().train.Example.FromString(data).features.feature
    except DecodeError:
        fault = "does not contain a tf.train.Example"
    else:
        image, label = features["image/encoded"].bytes_list.value, features["image/class/label"].int64_list.value
        wnid = features["image/class/synset"].bytes_list.value
        if len(image) != 1 or len(label) != 1:
            fault = f"contains {len(image)} images and {len(label)} labels"
    if fault:
        error = f"{name!r} {fault}. Expected the features image/encoded and image/class/label. Rewrite the file."
        return Record(name, error=error)
    return Record(name, image[0], label[0], wnid[0].decode("utf-8", "replace") if wnid else "")


def count_records(paths: Sequence[str | os.PathLike[str]]) -> tuple[int, tuple[str, ...]]:
    """Count the records of TFRecord files by their lengths; also returns the files that end within a record.

    Of a truncated file the complete records are counted.
    """
    names = [os.fspath(path) for path in paths]
    # Remote file systems have a high latency.
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_count, names))
    return sum(total for total, _ in found), tuple(name for name, (_, cut) in zip(names, found, strict=True) if cut)


def _count(name: str) -> tuple[int, bool]:
    """The number of records in a file, and whether it ends within one."""
    total, position = 0, 0
    remote = _tensorflow().io.gfile if "://" in name else None
    size = remote.stat(name).length if remote else Path(name).stat().st_size
    with remote.GFile(name, "rb") if remote else Path(name).open("rb") as file:
        while len(head := file.read(8)) == 8:
            # A record consists of its length, a checksum of the length, the data, and a checksum of the data.
            position += 16 + struct.unpack("<Q", head)[0]
            if position > size:
                break
            total += 1
            file.seek(position)
    return total, position != size


def find_remote_records(name: str) -> list[str]:
    """The files of a remote pattern or folder that TensorFlow can read, such as "gs://bucket/train-*".

    Raises:
        ValueError: no file matches, or TensorFlow cannot read the location.
    """
    tf = _tensorflow()
    try:
        pattern = f"{name.rstrip('/')}/{SHARDS}" if tf.io.gfile.isdir(name) else name
        found = sorted(tf.io.gfile.glob(pattern))
    except tf.errors.OpError as error:
        raise ValueError(
            f"{name!r} cannot be read: {error.message}. Expected a location that TensorFlow can read. Check the name "
            "and the permissions, or copy the files to a local disk."
        ) from error
    if not found:
        raise ValueError(
            f"There are no files {name!r}. Expected TFRecord files, the only remote format. Check the pattern, or copy "
            "the photos to a local disk."
        )
    return found


@dataclass(frozen=True)
class Dataset:
    """One split of a dataset from TensorFlow Datasets.

    Args:
        names: the classes, in the order of the labels.
        total: number of photos.
        records: the photos; labels count from 0.
        stream: the same photos as a tf.data.Dataset of {"image": bytes, "label": class, ...}.
    """

    names: tuple[str, ...]
    total: int
    records: Iterator[Record]
    stream: Any = None


def open_dataset(name: str, split: str) -> Dataset:
    """Open a split of a dataset by its name in TensorFlow Datasets, which downloads it if necessary.

    Raises:
        ImportError: tensorflow_datasets is not installed.
        ValueError: the dataset or split does not exist, or has no images and labels.
    """
    needed = "tensorflow_datasets", "tensorflow"
    require_packages(f"Reading 'tfds:{name}'", *needed, otherwise="or pass a folder or TFRecord files")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise ValueError(f"its features are {', '.join(sorted(features))}.")
        builder.download_and_prepare()
        # Skip decoding, so that all sources are decoded in the same way.
        photos = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        names, total = tuple(features["label"].names), builder.info.splits[split].num_examples
    except Exception as error:  # builders raise many types, from AssertionError to OSError
        raise ValueError(
            f"The split {split!r} of 'tfds:{name}' cannot be read: {first_line(error)} Expected an existing dataset "
            "with the features image and label, and one of its splits. Check both names."
        ) from error
    return Dataset(names, total, _photos(name, photos), photos)


def _photos(name: str, photos: Any) -> Iterator[Record]:
    for number, photo in enumerate(photos.as_numpy_iterator(), 1):
        yield Record(f"tfds:{name}#{number}", photo["image"], int(photo["label"]))
