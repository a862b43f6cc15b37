"""A SavedModel as a function, for TensorFlow alone: Keras is not asked."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np


def open_saved_model(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the signature `serving_default` of a SavedModel.

    Args:
        path: the folder with saved_model.pb.

    Returns:
        from images (batch, size, size, 3), float32, 0..255, to their scores (batch, classes), float32.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    outputs = list(signature.structured_outputs)
    result = "probabilities" if "probabilities" in outputs else outputs[0]

    def run(images: np.ndarray, keep: Any = loaded) -> np.ndarray:  # the variables live as long as `loaded` does
        return signature(**{name: tf.constant(images)})[result].numpy()

    return run
