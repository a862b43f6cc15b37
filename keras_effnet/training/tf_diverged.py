"""Find the cause when the loss is not finite: the images of the batch, the weights, or an overflow."""

from typing import Any

import numpy as np

from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import Gaps, Position
from keras_effnet.data.tf_batches import Batches, training_batches
from keras_effnet.data.tf_sources import Source, ordered_rows


def batch_names(source: Source, batches: Batches, position: Position, gaps: Gaps) -> list[str]:
    """The names of the images in the batch that begins at a position. No image is decoded.

    Args:
        source: the training images.
        batches: how batches are made from them.
        position: where the batch begins.
        gaps: the places of the images that were skipped.
    """
    import tensorflow as tf

    def names(epoch: Any) -> Any:
        return ordered_rows(source, batches.seed, epoch, position).map(lambda place, row: (place, row[0]))

    left_out, found = gaps.places.get(position.epoch, set()), []
    one = tf.data.Dataset.range(position.epoch, position.epoch + 1).flat_map(names)
    for place, name in one.as_numpy_iterator():
        if int(place) not in left_out:
            found.append(name.decode("utf-8", "replace"))
        if len(found) == batches.batch_size:
            break
    return found


def blame(network: Any, source: Source, batches: Batches, position: Position, names: list[str]) -> str:
    """A sentence about the cause: the pixels or labels, the weights before the step, or an overflow in it.

    Args:
        network: the model after the step.
        source, batches, position: as in `batch_names`.
        names: the names of the images in the batch.
    """
    odd = OddFiles(source.total)
    made = training_batches(source, batches, steps=position.step + 1, odd=odd, start=position)
    images, labels = next(made.take(1).as_numpy_iterator())
    odd_ones = [
        name
        for name, image, label in zip(names, images, labels, strict=True)
        if not (np.isfinite(image).all() and np.isfinite(label).all())
    ]
    if odd_ones:
        return f"The pixels or labels of {', '.join(map(repr, odd_ones[:8]))} are not finite."
    # The moving mean of the first normalisation depends only on the pixels and on the weights before the step.
    first = next((layer for layer in network.layers if hasattr(layer, "moving_mean")), None)
    if first is not None and not np.isfinite(np.asarray(first.moving_mean)).all():
        return "Its pixels and labels are finite, but the weights were not finite before this step."
    return "Its pixels, its labels and the first weights are finite, so the network overflowed in this step."
