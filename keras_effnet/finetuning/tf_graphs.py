"""Free the graphs of a finished training.

TensorFlow registers a function for each custom gradient that it traces, such as that of every swish, and keeps it with
its whole graph until the process ends: 20 to 40 MB for each fine-tuning.
"""

import gc
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def graphs_freed() -> Iterator[None]:
    """Unregister the custom gradients that are traced inside the block; to be used as a decorator.

    They are needed while a gradient is traced, not for a function that has been traced.
    """
    registry = _registry()
    before = set(registry)
    try:
        yield
    finally:
        for name in [name for name in registry if name.startswith("CustomGradient-") and name not in before]:
            registry.pop(name, None)
        gc.collect()  # Keras models are full of reference cycles


def _registry() -> MutableMapping[str, Any]:
    """TensorFlow's gradients by name; empty with another backend, or if a new release keeps them elsewhere."""
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        return {}
    try:
        from tensorflow.python.framework import ops
    except ImportError:
        return {}
    found: MutableMapping[str, Any] = getattr(getattr(ops, "gradient_registry", None), "_registry", {})
    return found
