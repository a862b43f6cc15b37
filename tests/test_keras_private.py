"""The private members of Keras: one test each, which fails if a Keras release changes one."""

from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet._keras_private import loss_scale_variables, producer, rmsprop_slots, variable_key

pytestmark = pytest.mark.builders


def dense(optimizer: Any) -> Any:
    """A layer whose two weights the optimizer is built for."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    optimizer.build(layer.trainable_variables)
    return layer


def test_producer_of_a_shared_layer_returns_the_inputs_of_the_right_call() -> None:
    first, second = keras.Input((4,)), keras.Input((4,))
    layer = keras.layers.Dense(4)
    outputs = [layer(first), layer(second)]
    for output, expected in zip(outputs, (first, second), strict=True):
        found, inputs = producer(output)
        assert found is layer
        assert (inputs[0] if isinstance(inputs, list | tuple) else inputs) is expected


def test_variable_keys_identify_variables() -> None:
    optimizer = keras.optimizers.SGD(0.1)
    kernel, bias = dense(optimizer).trainable_variables
    assert variable_key(optimizer, kernel) == variable_key(optimizer, kernel) != variable_key(optimizer, bias)


@pytest.mark.skipif(LEGACY, reason="the fused RMSProp needs Keras 3")
def test_rmsprop_slots_are_the_variables_that_an_update_changes() -> None:
    optimizer = keras.optimizers.RMSprop(0.1, rho=0.9, momentum=0.5, epsilon=0.0)
    kernel, bias = dense(optimizer).trainable_variables
    gradients = [keras.ops.full(variable.shape, value) for variable, value in ((kernel, 2.0), (bias, 3.0))]
    optimizer.apply(gradients, [kernel, bias])
    for variable, gradient in ((kernel, 2.0), (bias, 3.0)):
        velocity, momentum = map(keras.ops.convert_to_numpy, rmsprop_slots(optimizer, variable))
        assert velocity == pytest.approx(np.full(variable.shape, 0.1 * gradient**2))
        assert momentum == pytest.approx(np.full(variable.shape, 0.1 / np.sqrt(0.1)), rel=1e-5)


def test_the_loss_scale_is_returned_only_where_the_optimizer_does_not_list_it() -> None:
    assert loss_scale_variables(keras.optimizers.SGD(0.1)) == ()
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    assert [float(variable) for variable in loss_scale_variables(scaled)] == ([2.0**15, 0.0] if LEGACY else [])
