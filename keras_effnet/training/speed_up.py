"""Make `fit` faster, in place: the results are the same up to rounding, and so are the saved files."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.training.optimizers import RMSpropTF1
from keras_effnet.training.tf_fused_ops import fuse_batch_norm, fuse_rmsprop

log = logging.getLogger("keras_effnet")


def speed_up(model: Any) -> Any:
    """Make training faster; call it between `compile` and `fit`.

    On TensorFlow with Keras 3, batch normalisation trains with one operation instead of forty, RMSProp updates each
    variable with one, and the optimizer's variables are created before the first step, because Keras otherwise traces
    the training graph twice. For the same reason pass metrics to `compile` as objects
    (`keras.metrics.CategoricalAccuracy()`, not "accuracy"). Layers, weights and configuration do not change: saving
    or cloning the model gives the plain Keras model. On other backends and under tf_keras nothing happens. Logs a
    warning once if TF_ENABLE_ONEDNN_OPTS is not set.

    Args:
        model: any Keras model, compiled or not.

    Returns:
        The same model.

    Example:
        >>> import keras_effnet
        >>> model = keras_effnet.EfficientNetLite0(weights=None, classes=5, input_shape=(64, 64, 3))
        >>> model.compile("rmsprop", "categorical_crossentropy")
        >>> speed_up(model) is model
        True
    """
    if LEGACY or keras.backend.backend() != "tensorflow":
        return model
    _warn_about_onednn()
    for layer in _layers(model):
        if type(layer) is keras.layers.BatchNormalization:
            fuse_batch_norm(layer)
    if optimizer := getattr(model, "optimizer", None):
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if type(inner) in (keras.optimizers.RMSprop, RMSpropTF1):
            fuse_rmsprop(inner)
    return model


@cache
def _warn_about_onednn() -> None:
    """Warn once per process: TensorFlow reads the variable when it is imported, so it is too late to set it here."""
    if "TF_ENABLE_ONEDNN_OPTS" not in os.environ:
        log.warning(
            "TF_ENABLE_ONEDNN_OPTS is not set. Training on a CPU is often faster with 1, the default on some CPUs. Set "
            "it to 1 or 0 before TensorFlow is imported; keras-effnet train and finetune set it to 1."
        )


def _layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
