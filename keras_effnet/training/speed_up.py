"""A model made ready for a faster `fit`, in place: the same numbers to rounding, and the same files when saved."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.training.optimizers import RMSpropTF1
from keras_effnet.training.tf_fused_ops import normalise_in_one_operation, update_in_one_operation

log = logging.getLogger("keras_effnet")


def speed_up(model: Any) -> Any:
    """Make the training of a model faster, between `compile` and `fit`.

    On TensorFlow with Keras 3 batch normalisation is trained as one operation instead of forty, RMSProp updates a
    variable in one, and the optimizer's variables exist before the first step, which else builds its graph twice. Give
    `compile` metrics as objects, `keras.metrics.CategoricalAccuracy()` and not "accuracy", for the same reason. Layers,
    weights and configuration stay Keras's: what is saved is the plain model, and a copy is one too. On other backends
    and under tf_keras nothing is done. Says once, in the log, if oneDNN has been left to TensorFlow.

    Args:
        model: any Keras model, compiled or not.

    Returns:
        The model itself.

    Example:
        >>> import keras_effnet
        >>> model = keras_effnet.EfficientNetLite0(weights=None, classes=5, input_shape=(64, 64, 3))
        >>> model.compile("rmsprop", "categorical_crossentropy")
        >>> speed_up(model) is model
        True
    """
    if LEGACY or keras.backend.backend() != "tensorflow":
        return model
    _tell_of_onednn()
    for layer in _layers(model):
        if type(layer) is keras.layers.BatchNormalization:
            normalise_in_one_operation(layer)
    if optimizer := getattr(model, "optimizer", None):
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if type(inner) in (keras.optimizers.RMSprop, RMSpropTF1):
            update_in_one_operation(inner)
    return model


@cache
def _tell_of_onednn() -> None:
    """Once in a process: it is read when TensorFlow is imported, too late for a function of Python."""
    if "TF_ENABLE_ONEDNN_OPTS" not in os.environ:
        log.warning(
            "TF_ENABLE_ONEDNN_OPTS is not set. On a CPU training is often faster with 1, which some CPUs have by "
            "themselves. Set it to 1 or 0 before TensorFlow is imported; keras-effnet train and finetune set it to 1."
        )


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
