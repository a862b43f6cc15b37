"""RMSProp's update of a variable as one operation, where Keras makes a dozen."""

from functools import partial
from typing import Any


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
    at = optimizer._get_variable_index(variable)
    decayed = getattr(optimizer, "decayed", None)
    tf.raw_ops.ResourceApplyRMSProp(
        var=variable.handle,
        ms=optimizer._velocities[at].value.handle,
        mom=optimizer._momentums[at].value.handle,
        lr=tf.cast(learning_rate, tf.float32),
        rho=optimizer.rho,
        momentum=optimizer.momentum,
        epsilon=optimizer.epsilon,
        grad=decayed(gradient, variable) if decayed else gradient,
    )
