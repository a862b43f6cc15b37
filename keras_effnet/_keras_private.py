"""Every private member of Keras that this package uses, so that a Keras release can break only this file."""

from typing import Any


def producer(tensor: Any) -> tuple[Any, Any]:
    """The layer that computed a symbolic tensor, and the tensors that it was called on."""
    layer, call = tensor._keras_history[:2]
    return layer, layer._inbound_nodes[call].input_tensors


def variable_key(optimizer: Any, variable: Any) -> Any:
    """The key by which an optimizer identifies a variable, the same in all replicas."""
    return optimizer._var_key(variable)


def rmsprop_slots(optimizer: Any, variable: Any) -> tuple[Any, Any]:
    """The mean of squares and the momentum that Keras 3's RMSprop keeps for a variable."""
    index = optimizer._get_variable_index(variable)
    return optimizer._velocities[index], optimizer._momentums[index]


def loss_scale_variables(optimizer: Any) -> tuple[Any, ...]:
    """The loss scale and its counter, which tf_keras omits from an optimizer's variables; () if there are none."""
    state = getattr(optimizer, "_loss_scale", None)
    return (state.current_loss_scale, state.counter) if state else ()
