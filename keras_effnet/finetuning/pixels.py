"""Keeps what a model does to its pixels when its network gets a new head: layers in front of the network are replaced.

Fine-tuning takes the network out of the model, and with it the layers before it would be lost.
"""

from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.head_finder import replaced, to_numpy
from keras_effnet.inference.pixels import input_normalization
from keras_effnet.inference.rebuild import give_weights
from keras_effnet.introspection import find_network

# Colours whose values before the network determine a scale and an offset, and colours that check them.
_BLACK, _WHITE = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
_OTHERS = ((64.0, 64.0, 64.0), (200.0, 20.0, 110.0))


def with_same_pixels(network: Any, classifier: Classifier) -> Any:
    """A network that does to pixels 0..255 what the whole model does before it calls its network.

    Args:
        network: the network of the model, with any head.
        classifier: the model that the network was taken from.

    Returns:
        The network itself, or a copy with a Rescaling in front.

    Raises:
        ValueError: the model changes its pixels in another way than by a scale and an offset for each channel.
    """
    scale, offset = _changes_before_network(classifier)
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        normalization = input_normalization(classifier.model)
        if normalization is None:
            return network
        scale, offset = np.array(normalization.scale), np.array(normalization.offset)
    return _rescaled(network, scale, offset)


def _changes_before_network(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the offset of each channel from the model's pixels to its network's, measured on plain colours."""
    model, network = classifier.model, find_network(classifier.model)
    if network is model:
        return np.ones(3), np.zeros(3)
    black, white = (_received(classifier, network, colour) for colour in (_BLACK, _WHITE))
    scale, offset = (white - black) / 255, black
    for colour in _OTHERS:
        found = _received(classifier, network, colour)
        if found.shape != (3,) or not np.allclose(found, np.array(colour) * scale + offset, rtol=1e-3, atol=1e-2):
            raise ValueError(
                f"The model {model.name!r} changes its pixels before the network {network.name!r} by more than a scale "
                "and an offset for each channel. Expected layers such as Rescaling, Normalization, Resizing or random "
                "augmentation. Fine-tune a model without the others."
            )
    return scale, offset


def _received(classifier: Classifier, network: Any, colour: tuple[float, ...]) -> np.ndarray:
    """What the network receives in the centre of an image of one colour."""
    seen: list[Any] = []
    first = network.layers[1]
    call = first.call

    def recorded(images: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(images)
        return call(images, *args, **kwargs)

    size = classifier.size
    with replaced(first, "call", recorded):
        classifier.model(np.full((1, size, size, 3), colour, np.float32), training=False)
    pixels = to_numpy(seen[0])[0]
    return pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].astype(np.float64)


def _rescaled(network: Any, scale: np.ndarray, offset: np.ndarray) -> Any:
    """A copy of a network with a Rescaling before its first layer."""
    images = keras.Input(network.input_shape[1:])
    name = "input_normalization" if any(layer.name == "normalization" for layer in network.layers) else "normalization"
    pixels = keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name=name)(images)
    made = {id(network.input): pixels}
    for layer in network.layers[1:]:
        inputs = layer.input
        given = [made[id(each)] for each in inputs] if isinstance(inputs, list) else made[id(inputs)]
        made[id(layer.output)] = type(layer).from_config(layer.get_config())(given)
    copy = keras.Model(images, made[id(network.output)], name=network.name)
    give_weights(copy, network.get_weights())
    return copy
