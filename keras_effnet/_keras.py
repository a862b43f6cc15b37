"""The only file that imports Keras: `keras`, or `tf_keras` if TF_USE_LEGACY_KERAS is set."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_effnet.native_logs import quiet_import

# The values that TensorFlow itself accepts as true.
_WANTED = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")

try:
    with quiet_import():
        if _WANTED:
            import tf_keras as keras
        else:
            import keras
except ImportError as error:
    backend = "tensorflow" if _WANTED else os.environ.get("KERAS_BACKEND", "tensorflow")
    raise ImportError(
        f"Keras could not be imported: {error}. Expected {'tf_keras' if _WANTED else 'keras'} and its backend, "
        f"{backend}. Run pip install {'tf_keras tensorflow' if _WANTED else backend}, or set KERAS_BACKEND to one that "
        "is installed (tensorflow, jax or torch)."
    ) from error

# Whether the API is Keras 2: that of tf_keras, and of `keras` up to TensorFlow 2.15.
LEGACY = int(keras.__version__.split(".")[0]) < 3

__all__ = ["LEGACY", "array_of", "channel_axis", "deep_graphs", "dtype_policy", "is_keras_tensor", "keras"]


def channel_axis() -> int:
    """The channel axis of a batch of images in Keras's current image data format."""
    return 1 if keras.backend.image_data_format() == "channels_first" else 3


def array_of(variable: Any) -> np.ndarray:
    """The value of a variable."""
    return np.asarray(keras.backend.get_value(variable) if LEGACY else keras.ops.convert_to_numpy(variable))


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is a symbolic tensor that layers can be called on."""
    try:
        return keras.backend.is_keras_tensor(x)
    except ValueError:  # tf_keras raises if `x` is not a tensor at all
        return False


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Build the layers in this context with a dtype policy such as "mixed_bfloat16"; None changes nothing."""
    before = keras.mixed_precision.global_policy()
    if policy is not None:
        keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextmanager
def deep_graphs() -> Iterator[None]:
    """Let Keras walk a deep graph: it recurses through the layers, more than Python allows for EfficientNetV2-XL."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 5000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
