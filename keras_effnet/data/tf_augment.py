"""AutoAugment and RandAugment for tf.data: each image draws its own operations, and only those are computed.

Source: the policies of github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py (see augment_policies).
"""

from typing import Any

from keras_effnet.data.augment_policies import OPERATIONS, SIGNED, Policy
from keras_effnet.data.tf_augment_ops import operations


def augment(image: Any, policy: Policy, *, seed: Any) -> Any:
    """Augment an image with the operations that a policy draws for this seed.

    Args:
        image: uint8 tensor (height, width, 3).
        policy: `AUTOAUGMENT`, or `randaugment(layers, magnitude)`.
        seed: int32 or int64 vector of two; the same seed gives the same result.

    Returns:
        uint8 of the same shape.

    Example:
        >>> import numpy as np
        >>> from keras_effnet.data.augment_policies import AUTOAUGMENT
        >>> augment(np.zeros((8, 8, 3), "uint8"), AUTOAUGMENT, seed=[1, 2]).shape
        TensorShape([8, 8, 3])
    """
    import tensorflow as tf

    image = tf.convert_to_tensor(image)
    shape = image.shape
    tables = _tables(policy)
    for _ in range(policy.layers):
        seed, draw = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        row = tf.random.stateless_uniform([], draw, 0, len(policy.rows), tf.int32)
        for step in range(len(policy.rows[0])):
            seed, draw, place = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
            number, probability, argument, signed = (table[row, step] for table in tables)
            chance, sign = tf.unstack(tf.random.stateless_uniform([2], draw))
            argument = tf.where(signed & (sign >= 0.5), -argument, argument)
            # The last branch does nothing.
            branch = tf.where(chance < probability, number, len(OPERATIONS))
            image = _apply(image, branch, argument, place)
            image.set_shape(shape)
    return image


def _tables(policy: Policy) -> tuple[Any, ...]:
    """Operation index, probability, argument, and whether the argument has a random sign, each (rows, steps)."""
    import tensorflow as tf

    def table(value: Any, dtype: Any) -> Any:
        return tf.constant([[value(step) for step in row] for row in policy.rows], dtype)

    return (
        table(lambda step: OPERATIONS.index(step.operation), tf.int32),
        table(lambda step: step.probability, tf.float32),
        table(policy.argument, tf.float32),
        table(lambda step: step.operation in SIGNED, tf.bool),
    )


def _apply(image: Any, branch: Any, argument: Any, seed: Any) -> Any:
    import tensorflow as tf

    branches = [lambda f=f: f(image, argument, seed) for f in operations().values()]
    return tf.switch_case(branch, [*branches, lambda: tf.identity(image)])
