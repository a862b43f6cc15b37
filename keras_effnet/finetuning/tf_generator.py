"""Photos for `fit` and `predict` from a Python generator, under TensorFlow without a slowdown of the whole process.

Keras wraps a generator in `tf.data.Dataset.from_generator`. That makes the C library return freed memory to the system
immediately, for the rest of the process (M_TRIM_THRESHOLD in generator_dataset_op.cc). Without it, an epoch of Lite0's
fine-tuning takes 0.85 of the CPU time, and 0.68 with oneDNN off.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from keras_effnet.data.photo_batches import Photos, ordered_batches

# Photos at a time in `predict`.
BATCH = 32
View = Callable[[np.ndarray], np.ndarray]


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


def predict(model: Any, photos: Photos, report: Callable[[int, int], object] | None = None) -> np.ndarray:
    """The outputs of a model for photos, in their order; the arguments are those of `predict_all`."""
    return predict_all(model, [(photos, None)], report)[0]


def predict_all(
    model: Any, jobs: Sequence[tuple[Photos, View | None]], report: Callable[[int, int], object] | None = None
) -> list[np.ndarray]:
    """The outputs of a model for several sets of photos, in their order.

    Args:
        model: a Keras model with images as input.
        jobs: the photos, and what maps the pixels of a photo to an input of the model; None for the pixels themselves.
        report: called with the number of finished photos and the total.
    """
    from keras_effnet._keras import keras

    total = sum(len(photos.rows) for photos, _ in jobs)
    outputs: list[np.ndarray] = []
    for photos, view in jobs:
        count, before = len(photos.rows), sum(map(len, outputs))

        def done(batch: int, logs: Any = None, count: int = count, before: int = before) -> None:
            if report:
                report(before + min(count, (batch + 1) * BATCH), total)

        callback = keras.callbacks.LambdaCallback()
        callback.on_predict_batch_end = done
        # All batches have the same shape, since Keras would compile the model again for another one.
        batches = as_dataset(ordered_batches(photos, view, batch_size=BATCH))
        steps = math.ceil(count / BATCH)
        outputs.append(model.predict(batches, steps=steps, callbacks=[callback], verbose=0)[:count])
    return outputs
