"""The one place that decides which Keras: `keras`, or `tf_keras` where TF_USE_LEGACY_KERAS asks for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The values that TensorFlow itself takes for yes.
_ASKED = os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true", "True")

try:
    if _ASKED:
        import tf_keras as keras
    else:
        import keras
except ImportError as error:
    backend = "tensorflow" if _ASKED else os.environ.get("KERAS_BACKEND", "tensorflow")
    raise ImportError(
        f"Keras could not be imported: {error}. Expected {'tf_keras' if _ASKED else 'keras'} and its backend, here "
        f'{backend}. Install one, for example with pip install "keras_effnet[tf-cpu]", or choose another that is '
        "installed with the environment variable KERAS_BACKEND (tensorflow, jax, torch)."
    ) from error

# Whether it speaks Keras 2: tf_keras does, and so did `keras` itself up to TensorFlow 2.15.
LEGACY = int(keras.__version__.split(".")[0]) < 3

__all__ = ["LEGACY", "channel_axis", "dtype_policy", "is_keras_tensor", "keras"]


def channel_axis() -> int:
    """The axis of the channels in a batch of images, by Keras's image data format."""
    return 1 if keras.backend.image_data_format() == "channels_first" else 3


def is_keras_tensor(x: Any) -> bool:
    """Whether `x` is a symbolic tensor, on which layers can be built."""
    try:
        return keras.backend.is_keras_tensor(x)
    except ValueError:  # tf_keras raises for what is no tensor at all
        return False


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Give the layers built inside this dtype policy ("mixed_bfloat16", ...); None changes nothing."""
    before = keras.mixed_precision.global_policy()
    if policy is not None:
        keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)
