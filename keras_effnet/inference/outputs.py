"""What the outputs of a model are, and how they become probabilities: the same in Keras and in an exported graph."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.inference.head_finder import ends_in_classifier, gives_logits

log = logging.getLogger("keras_effnet")


@dataclass(frozen=True)
class Outputs:
    """The meaning of a model's outputs.

    Args:
        count: the number of outputs of the model.
        logits: whether they are logits: a softmax, or a sigmoid for a single output, makes them probabilities.
        features: whether they are features: they are returned unchanged, and have no labels.
    """

    count: int
    logits: bool = False
    features: bool = False

    @cached_property
    def scores(self) -> int:
        """The number of scores: two for a single output, otherwise the number of outputs."""
        return 2 if self.count == 1 and not self.features else self.count

    @cached_property
    def applied(self) -> str | None:
        """What is applied to the outputs: "softmax", "sigmoid" or nothing."""
        return ("sigmoid" if self.count == 1 else "softmax") if self.logits else None

    def to_scores(self, outputs: np.ndarray) -> np.ndarray:
        """Scores, float32 of shape (batch, scores), of outputs (batch, count)."""
        outputs = np.asarray(outputs, np.float32)
        if self.features:
            return outputs
        if self.logits and self.count == 1:
            # The softmax of (0, logit) is the sigmoid, without overflow.
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        elif self.count == 1:
            return np.concatenate([1 - outputs, outputs], axis=1)
        return _softmax(outputs) if self.logits else outputs

    def add_to(self, outputs: Any) -> Any:
        """The same as layers on the output tensor of a model."""
        layers = keras.layers
        if self.logits:
            kind = layers.Activation("sigmoid", dtype="float32") if self.count == 1 else layers.Softmax(dtype="float32")
            outputs = kind(outputs)
        if self.count == 1 and not self.features:
            opposite = layers.Rescaling(-1.0, 1.0, dtype="float32")(outputs)
            outputs = layers.Concatenate(dtype="float32")([opposite, outputs])
        return outputs


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def outputs_of(model: Any, *, labelled: bool) -> Outputs:
    """Find out what a model returns. A softmax or sigmoid that will be applied is logged.

    Args:
        model: a Keras model.
        labelled: whether its outputs have labels. Without labels, outputs of a model that does not end in a classifier
            are features.

    Raises:
        ValueError: the model has not one output of shape (batch, numbers), or returns a single number without a label.
    """
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 2 or not isinstance(shape[1], int):
        raise ValueError(
            f"The model {model.name!r} has outputs of shape {shape}. Expected one output (batch, classes) or (batch, "
            "features). Pass a model with a classifier (include_top=True), or with pooling='avg'."
        )
    if not labelled and not ends_in_classifier(model):
        return Outputs(shape[1], features=True)
    found = Outputs(shape[1], logits=gives_logits(model))
    if found.applied == "sigmoid" and not labelled:
        raise ValueError(
            f"The model {model.name!r} returns a single number, which can be a logit or a quantity. Expected a "
            "probability, or labels for a logit: labels=['cat', 'dog'] applies a sigmoid. Pass labels, or end the "
            "model with activation='sigmoid'."
        )
    if found.applied:
        log.warning(
            "The outputs of the model %r are not probabilities: they are taken for logits, and a %s is applied. "
            "For another kind of output, call the model itself.",
            model.name,
            found.applied,
        )
    return found
