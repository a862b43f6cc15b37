"""Find the last feature map and the classifier of a network in its graph.

Source of the exact case, a dense layer on the channel means: arXiv:1512.04150, section 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet._keras_private import producer

# Layers after the classifier that keep the order of the scores, and layers between pooling and classifier that keep
# the features at inference.
_AFTER = ("Activation", "Flatten", "Reshape", "Softmax")
_BETWEEN = ("Dropout", "Flatten", "Reshape")
_CLASSIFIERS = ("Conv2D", "Dense")
# Layers that turn neither logits into probabilities nor probabilities into logits.
_KEEPING = ("Average", "Cast", "Dropout", "Flatten", "GlobalAveragePooling2D", "Identity", "Reshape", "Squeeze")


@dataclass(frozen=True)
class Head:
    """The two layers that a map is computed from.

    Args:
        layer: the layer whose output is the feature map, (batch, height, width, channels).
        classifier: the dense layer, or 1x1 convolution of pooled features, that computes the logits.
        exact: whether only an average over the positions is between them.
    """

    layer: Any
    classifier: Any
    exact: bool


def find_head(model: Any, layer: str | None = None) -> Head:
    """Find the classifier of a model and the feature map for its explanation, also in nested models.

    Args:
        model: a functional or sequential Keras model that returns scores (batch, classes).
        layer: name of the layer with the feature map; by default the last one with height and width.

    Raises:
        ValueError: the model has no classifier or no feature map, or the layer does not exist.
    """
    chain = list(_back_from_the_output(model))
    end = next((i for i, found in enumerate(chain) if _type(found) not in _AFTER), len(chain))
    if end == len(chain) or _type(chain[end]) not in _CLASSIFIERS or _is_map(chain[end]):
        last = f"{chain[end].name!r} ({_type(chain[end])})" if end < len(chain) else "nothing with weights"
        raise ValueError(
            f"The model {model.name!r} ends in {last}. Expected a Dense layer with one output per class. Pass a model "
            "with a classifier (include_top=True)."
        )
    below = chain[end + 1 :]
    last_map = next((i for i, found in enumerate(below) if _is_map(found)), None)
    if layer is not None:
        return Head(_find_layer(model, layer), chain[end], exact=False)
    if last_map is None:
        raise ValueError(
            f"The model {model.name!r} has no layer with a feature map before its classifier {chain[end].name!r}. "
            "Expected an output of shape (batch, height, width, channels). Pass a convolutional network."
        )
    between = [_type(found) for found in below[:last_map] if _type(found) not in _BETWEEN]
    return Head(below[last_map], chain[end], exact=between == ["GlobalAveragePooling2D"])


def gives_logits(model: Any) -> bool:
    """Whether a model returns logits, without a final softmax. If its graph is inconclusive, it is tried on noise.

    Args:
        model: a Keras model that returns scores (batch, classes) for images.
    """
    steps = _back_from_the_output(model) if getattr(model, "outputs", None) else iter(())
    for step in steps:
        activation = getattr(getattr(step, "activation", None), "__name__", None)
        if _type(step) in _CLASSIFIERS:
            return activation == "linear"
        if _type(step) in ("Softmax", "Sigmoid") or activation in ("softmax", "sigmoid"):
            return False
        if _type(step) not in _KEEPING and (_type(step), activation) != ("Activation", "linear"):
            break
    sides = [side or 64 for side in model.input_shape[1:3]]
    noise = np.random.default_rng(0).uniform(0, 255, (2, *sides, 3)).astype(np.float32)
    scores = np.asarray(model.predict_on_batch(noise))
    return not ((scores >= 0) & (scores <= 1)).all()


def ends_in_classifier(model: Any) -> bool:
    """Whether the graph of a model ends in a classifier, rather than in features.

    Args:
        model: a Keras model that returns (batch, numbers) for images.
    """
    for step in _back_from_the_output(model) if getattr(model, "outputs", None) else ():
        activation = getattr(getattr(step, "activation", None), "__name__", None)
        if _type(step) in (*_CLASSIFIERS, "Softmax", "Sigmoid") or activation in ("softmax", "sigmoid"):
            return True
        if _type(step) not in _KEEPING and (_type(step), activation) != ("Activation", "linear"):
            return False
    return False


def _back_from_the_output(model: Any) -> Iterator[Any]:
    """Iterate over the layers from the output to the input, by the first input of each, also inside nested models."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} has no graph. Expected a functional or sequential model that "
            "has been built. Convert it with keras.Model(inputs, outputs)."
        )
    tensor, callers = outputs[0], list[Any]()
    while True:
        layer, inputs = producer(tensor)
        if _type(layer) == "InputLayer":
            if not callers:
                return
            tensor = callers.pop()
        elif getattr(layer, "layers", None) and getattr(layer, "outputs", None):
            callers.append(_first(inputs))
            tensor = layer.outputs[0]
        else:
            yield layer
            tensor = _first(inputs)


def _first(tensors: Any) -> Any:
    while isinstance(tensors, list | tuple):
        tensors = tensors[0]
    return tensors


def _type(layer: Any) -> str:
    return type(layer).__name__


def _is_map(layer: Any) -> bool:
    """Whether a layer's output has height and width; those of pooled features are 1 and 1."""
    shape = getattr(layer.output, "shape", ())
    return len(shape) == 4 and tuple(shape[1:3]) != (1, 1)


def _find_layer(model: Any, name: str) -> Any:
    layers = {layer.name: layer for layer in reversed(list(_leaves(model)))}
    if name in layers and _is_map(layers[name]):
        return layers[name]
    maps = [layer.name for layer in layers.values() if _is_map(layer)]
    fault = "has no feature map" if name in layers else "is not in it"
    choices = sorted(get_close_matches(name, maps, n=5, cutoff=0.3) or maps[:5])
    raise ValueError(
        f"layer is {name!r}, which {fault}; the model is {model.name!r}. Expected a layer with an output (batch, "
        f"height, width, channels), such as {', '.join(choices)}. Choose one from model.summary(expand_nested=True)."
    )


def _leaves(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer)
        elif _type(layer) != "InputLayer":
            yield layer


def run(model: Any, images: np.ndarray, head: Head, shift: Any = None) -> tuple[Any, Any]:
    """Call a model and return its feature map and its logits, as tensors of the backend.

    Args:
        model: the model that `head` was found in. No other thread may use it at the same time.
        images: the input of the model, (batch, height, width, 3).
        head: the layers whose outputs are returned.
        shift: a tensor that is added to the feature map. The gradient of the logits with respect to it, at zero, is
            the gradient with respect to the feature map.
    """
    call, activation, recorded = head.layer.call, head.classifier.activation, {}

    def shifted(*args: Any, **kwargs: Any) -> Any:
        recorded["features"] = call(*args, **kwargs)
        return recorded["features"] if shift is None else recorded["features"] + shift

    def activated(logits: Any) -> Any:
        recorded["logits"] = logits
        return activation(logits)

    # Record while running: layers inside a nested model have no tensors in the outer graph.
    with replaced(head.layer, "call", shifted), replaced(head.classifier, "activation", activated):
        model(images, training=False)
    return recorded["features"], recorded["logits"]


@contextmanager
def replaced(layer: Any, name: str, function: Any) -> Iterator[None]:
    """Replace an attribute of a layer inside a `with` block."""
    own = vars(layer).get(name)
    setattr(layer, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(layer, name)
        else:
            setattr(layer, name, own)


def kernel(classifier: Any) -> np.ndarray:
    """Return the weights of a classifier, float32 of shape (channels, classes)."""
    values = to_numpy(classifier.kernel)
    return values.reshape(values.shape[-2:])


def to_numpy(tensor: Any) -> np.ndarray:
    """Convert a tensor of the backend to a float32 array."""
    return np.asarray(tensor.numpy() if LEGACY else keras.ops.convert_to_numpy(tensor), np.float32)
