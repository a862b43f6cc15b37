"""Batch normalisation and RMSProp's update as one TensorFlow operation each, with the same results as in Keras.

Keras 3 computes moments, normalisation and their gradients with many operations, each of which reads and writes the
whole tensor. TensorFlow's FusedBatchNormV3 does all of it.
"""

import math
from functools import partial
from typing import Any

from keras_effnet._keras_private import rmsprop_slots

# With these dtypes Keras computes in float32, as the fused operation does.
_DTYPES = ("float32", "float16", "bfloat16")


def fuse_batch_norm(layer: Any) -> None:
    """Let a `keras.layers.BatchNormalization` use the fused operation in training.

    Only this object's `call` changes, not its weights or configuration, so a copied or saved layer is the plain one.
    Keras's own code still runs at inference, and for whatever the operation does not support: synchronised statistics,
    masks, renormalisation, channels first, float64.
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
    """The factor that undoes Bessel's correction, n / (n - 1), which the operation applies and Keras does not."""
    import tensorflow as tf

    *axes, _ = inputs.shape
    count = float(math.prod(axes)) if None not in axes else tf.cast(tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
    return (count - 1) / count


def _move(layer: Any, moving: Any, value: Any) -> None:
    moving.assign(moving.value * layer.momentum + value * (1.0 - layer.momentum))


def fuse_rmsprop(optimizer: Any) -> None:
    """Let a `keras.optimizers.RMSprop` with momentum, or a `RMSpropTF1`, use the fused update for dense gradients.

    Inside the scope of a `tf.distribute` strategy the optimizer is not changed.
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
