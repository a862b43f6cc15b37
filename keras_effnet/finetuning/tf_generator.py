"""Batches from a Python generator for `fit` and `predict` under TensorFlow, without a slowdown of the whole process.

Keras wraps a generator in `tf.data.Dataset.from_generator`. That makes the C library return freed memory to the system
immediately, for the rest of the process (M_TRIM_THRESHOLD in generator_dataset_op.cc). Without it, an epoch of Lite0's
fine-tuning takes 0.85 of the CPU time, and 0.68 with oneDNN off.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np


def as_dataset(batches: Iterator[tuple[np.ndarray, ...]]) -> Any:
    """The same batches, in a form that `fit` and `predict` accept.

    Pass the number of steps to `fit` or `predict`, because reading past the last batch is an error.

    Args:
        batches: float32 arrays, with the same shapes in every batch.

    Returns:
        A tf.data.Dataset; with other backends than TensorFlow, the batches themselves.
    """
    # Imported here, because Keras imports TensorFlow.
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    first = next(batches)
    every = chain([first], batches)

    def draw(_: Any) -> tuple[Any, ...]:
        parts = tf.numpy_function(lambda: next(every), [], [tf.float32] * len(first))
        return tuple(tf.ensure_shape(part, value.shape) for part, value in zip(parts, first, strict=True))

    # No prefetch: Keras may restart the dataset, and prefetched batches would be lost.
    return tf.data.Dataset.counter().map(draw)
