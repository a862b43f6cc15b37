"""The gradient that Grad-CAM needs (arXiv:1610.02391), from the backend that Keras runs on."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def gradient(function: Callable[[Any], Any], zeros: Any, backend: str) -> Any:
    """Differentiate a scalar function of a tensor.

    Args:
        function: from a tensor like `zeros` to a scalar tensor.
        zeros: where to differentiate, a tensor of the backend.
        backend: "jax", "tensorflow" or "torch".

    Returns:
        A tensor of the shape of `zeros`.

    Raises:
        ValueError: a backend without gradients.
    """
    match backend:
        case "tensorflow":
            with import_module("tensorflow").GradientTape() as tape:
                tape.watch(zeros)
                value = function(zeros)
            return tape.gradient(value, zeros)
        case "jax":
            return import_module("jax").grad(function)(zeros)
        case "torch":
            zeros = zeros.requires_grad_()
            return import_module("torch").autograd.grad(function(zeros), zeros)[0]
    raise ValueError(
        f"Keras runs on the backend {backend!r}, which has no gradients, and this map needs them. Expected jax, "
        "tensorflow or torch. Choose one of these with the environment variable KERAS_BACKEND."
    )
