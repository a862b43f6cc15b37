"""Labelled photos out of TensorFlow's files: TFRecords in ImageNet's layout, and the datasets of TensorFlow Datasets.

Source of the layout: the features that github.com/tensorflow/models and cloud TPU's imagenet_to_gcs.py write.
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

from keras_effnet.errors import first_line

# The files of ImageNet's training images in a folder.
SHARDS = "train-*-of-*"


@dataclass(frozen=True)
class Record:
    """One photo as it is stored.

    Args:
        name: where it stands.
        image: the bytes of an image file.
        label: as written there; ImageNet's TFRecords count from 1.
        wnid: of its class, "" where the record does not say.
        error: why there is no photo, None where there is.
    """

    name: str
    image: bytes = b""
    label: int = 0
    wnid: str = ""
    error: str | None = None


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Read a TFRecord file one record after the other; where it is damaged it ends, in a `Record` with an error.

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
            # Around the reason TensorFlow writes which of its operations noticed.
            reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", error.message, flags=re.DOTALL)
            fault = f"{name!r} cannot be read ({reason}), and nothing after it was."
            yield Record(name, error=f"{fault} Expected a whole TFRecord file. Get the file again.")
            return
        if data is None:
            return
        yield _parse(name, data)


def _tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            f"TFRecords are read by TensorFlow, which could not be imported: {error}. Expected tensorflow >= 2.19. Run "
            'pip install "keras_effnet[tf-cpu]", or give a folder of photos instead.'
        ) from error
    return tf


def _parse(name: str, data: bytes) -> Record:
    from google.protobuf.message import DecodeError

    fault = None
    try:
        features = _tensorflow().train.Example.FromString(data).features.feature
    except DecodeError:
        fault = "holds no tf.train.Example"
    else:
        image, label = features["image/encoded"].bytes_list.value, features["image/class/label"].int64_list.value
        wnid = features["image/class/synset"].bytes_list.value
        if len(image) != 1 or len(label) != 1:
            fault = f"holds {len(image)} images and {len(label)} labels"
    if fault:
        error = f"{name!r} {fault}. Expected the features image/encoded and image/class/label. Write the file anew."
        return Record(name, error=error)
    return Record(name, image[0], label[0], wnid[0].decode("utf-8", "replace") if wnid else "")


def count_records(paths: Sequence[str | os.PathLike[str]]) -> tuple[int, tuple[str, ...]]:
    """How many records TFRecord files hold, by their lengths alone, and which files end within one.

    A damaged file counts as far as it can be read.
    """
    names = [os.fspath(path) for path in paths]
    # Elsewhere than on a disk every look takes its time.
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_count, names))
    return sum(total for total, _ in found), tuple(name for name, (_, cut) in zip(names, found, strict=True) if cut)


def _count(name: str) -> tuple[int, bool]:
    """How many records a file holds, and whether it ends within one."""
    total, position = 0, 0
    remote = _tensorflow().io.gfile if "://" in name else None
    size = remote.stat(name).length if remote else Path(name).stat().st_size
    with remote.GFile(name, "rb") if remote else Path(name).open("rb") as file:
        while len(head := file.read(8)) == 8:
            # A record is its length, the length's checksum, the data, the data's checksum.
            position += 16 + struct.unpack("<Q", head)[0]
            if position > size:
                break
            total += 1
            file.seek(position)
    return total, position != size


def find_remote_records(name: str) -> list[str]:
    """The files of a pattern or a folder that TensorFlow reads from elsewhere than a disk: "gs://bucket/train-*".

    Raises:
        ValueError: there are none, or TensorFlow cannot read there.
    """
    tf = _tensorflow()
    try:
        pattern = f"{name.rstrip('/')}/{SHARDS}" if tf.io.gfile.isdir(name) else name
        found = sorted(tf.io.gfile.glob(pattern))
    except tf.errors.OpError as error:
        raise ValueError(
            f"{name!r} cannot be read: {error.message}. Expected a place that TensorFlow can read. Check the name and "
            "the permissions, or copy the files to a disk."
        ) from error
    if not found:
        raise ValueError(
            f"There are no files {name!r}. Expected TFRecord files, which alone are read from elsewhere than a disk. "
            "Check the pattern, or copy the photos to a disk."
        )
    return found


@dataclass(frozen=True)
class Dataset:
    """One split of a dataset of TensorFlow Datasets.

    Args:
        names: its classes, in the order of its labels.
        total: how many photos it has.
        records: the photos; labels count from 0.
        stream: the same as a tf.data.Dataset of {"image": bytes, "label": class, ...}.
    """

    names: tuple[str, ...]
    total: int
    records: Iterator[Record]
    stream: Any = None


def open_dataset(name: str, split: str) -> Dataset:
    """Open a split of a dataset by its name in TensorFlow Datasets, which downloads it if it has to.

    Raises:
        ImportError: tensorflow_datasets is not installed.
        ValueError: no such dataset or split, or one without images and labels.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"'tfds:{name}' is read by TensorFlow Datasets, which could not be imported: {error}. Expected the package "
            "tensorflow_datasets. Run pip install tensorflow-datasets, or give a folder or TFRecord files instead."
        ) from error
    try:
        builder = tfds.builder(name)
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise ValueError(f"it has the features {', '.join(sorted(features))}.")
        builder.download_and_prepare()
        # Bytes as they are stored: the decoder is the same for every source.
        photos = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        names, total = tuple(features["label"].names), builder.info.splits[split].num_examples
    except Exception as error:  # its builders raise anything, from AssertionError to OSError
        raise ValueError(
            f"'tfds:{name}' cannot be read, split {split!r}: {first_line(error)} Expected a dataset of TensorFlow "
            "Datasets with an image and a label, and one of its splits. Check the name, and pass the split as split=."
        ) from error
    return Dataset(names, total, _photos(name, photos), photos)


def _photos(name: str, photos: Any) -> Iterator[Record]:
    for number, photo in enumerate(photos.as_numpy_iterator(), 1):
        yield Record(f"tfds:{name}#{number}", photo["image"], int(photo["label"]))
