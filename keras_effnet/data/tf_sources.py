"""Labelled images for a tf.data pipeline, in an order given by a seed: rows, TFRecords or other datasets.

Source of the records: imagenet_input.py of github.com/tensorflow/tpu, models/official/efficientnet.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.data.sharding import Position

# Size of the shuffle buffer in records; an encoded photo of ImageNet has about 110 kB.
SHUFFLE = 4096
# Number of TFRecord files that are read alternately.
OPEN_FILES = 16


@dataclass(frozen=True)
class Source:
    """Labelled images, in an order given by a seed.

    Args:
        total: number of images.
        read: maps a seed, int64 (2,), or None for the original order, to a dataset of (name, data, label).
        is_path: whether `data` is a path.
    """

    total: int
    read: Callable[[Any], Any]
    is_path: bool = False


def from_rows(names: Sequence[str], data: Any, labels: Sequence[int] | np.ndarray, *, is_path: bool = False) -> Source:
    """Images in memory, or files on disk.

    Args:
        names: for reports and messages.
        data: pixels, uint8 (n, height, width, 3); the bytes of n files; or n paths, if `is_path`.
        labels: classes, counted from 0.
        is_path: whether `data` are paths; the names must be the same paths then.
    """
    import tensorflow as tf

    # File names need not be valid Unicode.
    titles = [os.fsencode(name) for name in names]
    columns = tf.constant(titles), tf.constant(titles if is_path else data), tf.constant(np.asarray(labels, np.int64))

    def read(seed: Any) -> Any:
        order = tf.range(len(names))
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed)
        return tf.data.Dataset.from_tensor_slices(order).map(lambda i: tuple(column[i] for column in columns))

    return Source(len(names), read, is_path)


def from_records(files: Sequence[str], total: int) -> Source:
    """TFRecord files in ImageNet's layout, with labels that count from 1; a damaged file is read up to the damage."""
    import tensorflow as tf

    features = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string, ""),
        "image/class/label": tf.io.FixedLenFeature((), tf.int64, 0),
    }

    def records(file: Any) -> Any:
        def parse(number: Any, record: Any) -> tuple[Any, Any, Any]:
            found = tf.io.parse_single_example(record, features)
            name = tf.strings.join([file, "#", tf.strings.as_string(number + 1)])
            return name, found["image/encoded"], found["image/class/label"] - 1

        return tf.data.TFRecordDataset(file, buffer_size=1 << 20).enumerate().map(parse).ignore_errors()

    def read(seed: Any) -> Any:
        order = tf.constant(files)
        if seed is None:
            return tf.data.Dataset.from_tensor_slices(order).flat_map(records)
        shards = tf.data.Dataset.from_tensor_slices(tf.random.experimental.stateless_shuffle(order, seed))
        mixed = shards.interleave(records, OPEN_FILES, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return _shuffled(mixed, seed)

    return Source(total, read)


def from_dataset(dataset: Any, total: int, name: str) -> Source:
    """A tf.data.Dataset of {"image": bytes of a file, "label": class from 0}, the format of TensorFlow Datasets."""
    import tensorflow as tf

    def row(number: Any, example: Any) -> tuple[Any, Any, Any]:
        title = tf.strings.join([name, "#", tf.strings.as_string(number + 1)])
        return title, example["image"], tf.cast(example["label"], tf.int64)

    rows = dataset.enumerate().map(row)
    return Source(total, lambda seed: rows if seed is None else _shuffled(rows, seed))


def _shuffled(rows: Any, seed: Any) -> Any:
    """Rows in an order that depends only on this seed."""
    import tensorflow as tf

    if not tf.executing_eagerly():
        # Inside a function this sets the seed of its graph, not the global one. If the global seed is 0, TensorFlow
        # compares the other seed with 0 as well, which fails here because it is a symbolic tensor.
        tf.random.set_seed(1)
    return rows.shuffle(SHUFFLE, seed=seed[0] * 1_000_003 + seed[1])


def ordered_rows(source: Source, seed: int, epoch: Any, start: Position) -> Any:
    """Rows (place, (name, data, label)) of an epoch, repeated endlessly; the epoch of `start` begins at its place.

    Call it only inside a function of a dataset. Outside, TensorFlow shuffles records with a different seed.
    """
    import tensorflow as tf

    rows = source.read(tf.stack([tf.constant(seed, tf.int64), epoch])).repeat().enumerate()
    return rows.skip(tf.where(epoch == start.epoch, tf.constant(start.place or 0, tf.int64), 0))
