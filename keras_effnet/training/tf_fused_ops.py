"""Batch normalisation and the update of RMSProp as one operation each, to the numbers of Keras's own.

Keras 3 takes the moments, the normalisation and the gradients of both apart into operations that each read and write
the whole tensor; TensorFlow has all of it as one, FusedBatchNormV3.
"""

import math
from functools import partial
from typing import Any

from keras_effnet._keras_private import rmsprop_slots

# The numbers in which Keras computes in float32, as the operation does.
_DTYPES = ("float32", "float16", "bfloat16")


def normalise_in_one_operation(layer: Any) -> None:
    """Give a `keras.layers.BatchNormalization` a faster way to be called while it is trained.

    It remains Keras's layer, with the same weights and configuration: a copy, or what is saved and loaded, is the plain
    one. What the operation cannot do (synchronised statistics, masks, renormalisation, channels first, float64) is left
    to the layer, and so is inference.
    """
    if "call" in vars(layer) or layer.synchronized or getattr(layer, "renorm", False):
        return
    if layer.compute_dtype in _DTYPES and layer.scale and layer.center:
        layer.call = partial(_call, layer, layer.call)


def _call(layer: Any, plain: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    last = inputs.shape.rank == 4 and layer.axis in (-1, 3)
    if not (training and layer.trainable and last and mask is None):
        return plain(inputs, training=training, mask=mask)
    import tensorflow as tf

    inputs = tf.cast(inputs, tf.float32)
    gamma, beta = (tf.cast(variable.value, tf.float32) for variable in (layer.gamma, layer.beta))
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=layer.epsilon, is_training=True
    )
    _move(layer, layer.moving_mean, mean)
    _move(layer, layer.moving_variance, variance * _biased(inputs))
    return tf.cast(outputs, layer.compute_dtype)


def _biased(inputs: Any) -> Any:
    """What undoes Bessel's correction, n / (n - 1), which the operation makes and Keras does not."""
    import tensorflow as tf

    *axes, _ = inputs.shape
    count = float(math.prod(axes)) if None not in axes else tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
    return (count - 1) / count


def _move(layer: Any, moving: Any, value: Any) -> None:
    moving.assign(moving.value * layer.momentum + value * (1.0 - layer.momentum))


def update_in_one_operation(optimizer: Any) -> None:
    """Give a `keras.optimizers.RMSprop` with momentum, or a `RMSpropTF1`, a faster update of dense variables.

    Under a strategy of tf.distribute with several replicas it is left as it is.
    """
    import tensorflow as tf

    plain = not optimizer.centered and optimizer.momentum > 0
    if plain and "update_step" not in vars(optimizer) and not tf.distribute.has_strategy():
        optimizer.update_step = partial(_update, optimizer, optimizer.update_step)


def _update(optimizer: Any, plain: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
    import tensorflow as tf

    if isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
        plain(gradient, variable, learning_rate)
        return
    velocity, momentum = rmsprop_slots(optimizer, variable)
    decayed = getattr(optimizer, "decayed", None)
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable.handle,
        ms=velocity.value.handle,
        mom=momentum.value.handle,
        lr=tf.cast(learning_rate, tf.float32),
        rho=optimizer.rho,
        momentum=optimizer.momentum,
        epsilon=optimizer.epsilon,
        grad=decayed(gradient, variable) if decayed else gradient,
    )
