"""Which images a batch of training was made of, and whether they are to blame for a loss that is no number."""

from typing import Any

import numpy as np

from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import Gaps, Position
from keras_effnet.data.tf_batches import Batches, training_batches
from keras_effnet.data.tf_sources import Source, ordered_rows


def batch_names(source: Source, batches: Batches, position: Position, gaps: Gaps) -> list[str]:
    """The names of the images of the batch that begins at a position; nothing is decoded for it.

    Args:
        source: what the training reads.
        batches: what it makes of that.
        position: where the batch begins.
        gaps: the places of the images that were left out.
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
    """What is no number: pixels, labels or, before the step already, the weights.

    Args:
        network: after the step.
        source, batches, position: as in `batch_names`.
        names: of the batch.
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
        return f"Pixels or labels of {', '.join(map(repr, odd_ones[:8]))} are no finite numbers."
    # What the first normalisation has seen comes from the pixels and the weights before the step.
    first = next((layer for layer in network.layers if hasattr(layer, "moving_mean")), None)
    if first is not None and not np.isfinite(np.asarray(first.moving_mean)).all():
        return "Its pixels and labels are finite: the weights were not any more before the step."
    return "Its pixels and labels are finite, the first weights before the step too: the network overflowed in it."
