"""Batches made in Python, for `fit` and `predict` under TensorFlow, without slowing the process down for good.

TensorFlow's dataset from a generator, into which Keras makes any generator, has the C library give memory back at once
for as long as the process lives (generator_dataset_op.cc, M_TRIM_THRESHOLD). Without it an epoch of Lite0's fine-tuning
takes the cores 0.85 of the time, and 0.68 where oneDNN is off.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np


def steadily(batches: Iterator[tuple[np.ndarray, ...]]) -> Any:
    """The same batches for `fit` or `predict`, which have to say how many they want: the end of them is an error.

    Args:
        batches: arrays in float32, of the same shapes in every batch.

    Returns:
        A tf.data.Dataset; under the other backends the batches themselves.
    """
    # Imported here, since Keras imports TensorFlow.
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    first = next(batches)
    every = chain([first], batches)

    def draw(_: Any) -> tuple[Any, ...]:
        parts = tf.numpy_function(lambda: next(every), [], [tf.float32] * len(first))
        return tuple(tf.ensure_shape(part, value.shape) for part, value in zip(parts, first, strict=True))

    # Nothing is made ahead of time: Keras may begin anew, and what was made would be lost.
    return tf.data.Dataset.counter().map(draw)
