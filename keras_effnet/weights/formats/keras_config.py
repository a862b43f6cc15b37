"""Reads normalisation, padding and epsilon from the model configuration in a Keras file.

The configuration is only read as a table of layers: nothing is built from it, and no code in it is run.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import (
    IMAGENET,
    LITE,
    MINUS_ONE_TO_ONE,
    PYTORCH,
    TENSORFLOW,
    ZERO_TO_ONE,
    Framework,
    Normalization,
)

# Layers that do not change pixel values at inference; the same holds for all layers named "Random...".
IDENTITY = (
    *("AugMix", "AutoContrast", "CenterCrop", "Cropping2D", "CutMix", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("Identity", "InputLayer", "MixUp", "RandAugment", "Resizing", "SpatialDropout2D", "ZeroPadding2D"),
)
# Operators with a number on their right, as in `x / 255`, as (factor, summand).
OPERATORS: Mapping[str, Callable[[np.ndarray], tuple[Any, Any]]] = {
    "Add": lambda number: (1.0, number),
    "Divide": lambda number: (1.0 / number, 0.0),
    "Multiply": lambda number: (number, 0.0),
    "Subtract": lambda number: (1.0, -number),
    "TrueDivide": lambda number: (1.0 / number, 0.0),
}
# The same as functions of TensorFlow, in the models of Keras 2: "math.truediv", "__operators__.add".
FUNCTIONS = {
    "add": "Add",
    "divide": "Divide",
    "multiply": "Multiply",
    "mul": "Multiply",
    "realdiv": "Divide",
    "sub": "Subtract",
    "subtract": "Subtract",
    "truediv": "TrueDivide",
}

MAX_CHANNELS = 1024

Layer = Mapping[str, Any]
Statistics = tuple[np.ndarray, np.ndarray]


def normalization_in(config: Layer, statistics: Statistics | None) -> Normalization | None:
    """How a model normalises pixels 0..255 before its first convolution.

    Args:
        config: a model configuration as saved by Keras: {"class_name": ..., "config": {"layers": [...]}}.
        statistics: mean and variance of its Normalization layer, which are stored among the weights.

    Returns:
        None if the configuration has no layers, or the model does not change its pixels.

    Raises:
        WeightsError: a layer before the convolution does something else, or has several inputs.

    Example:
        >>> rescaling = {"class_name": "Rescaling", "config": {"scale": 1 / 128, "offset": -127 / 128}}
        >>> layers = [rescaling, {"class_name": "Conv2D", "config": {"name": "stem_conv"}}]
        >>> normalization_in({"class_name": "Sequential", "config": {"layers": layers}}, None).std
        (128.0, 128.0, 128.0)
    """
    scale, offset = np.ones(1), np.zeros(1)
    layers = [layer for layer in _before_stem(config) or () if not _is_identity(layer)]
    for layer in layers:
        factor, summand = _effect(layer, statistics)
        scale, offset = scale * factor, offset * factor + summand
    if not layers:
        return None
    if not (np.isfinite([*scale, *offset]).all() and (scale > 0).all()):
        raise WeightsError(_refuse(f"the operation pixels * {scale[:9]} + {offset[:9]}"))
    mean, std = np.broadcast_arrays(-offset / scale, 1 / scale)
    if mean.size == 1:
        mean, std = mean.repeat(3), std.repeat(3)
    for known in (IMAGENET, LITE, MINUS_ONE_TO_ONE, ZERO_TO_ONE):
        if mean.size == 3 and np.allclose([mean, std], [known.mean, known.std], rtol=1e-5, atol=1e-3):
            return known
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()))


def framework_in(config: Layer) -> Framework | None:
    """Padding and epsilon of the model, None if its layers do not have our names."""
    layers = {_name(layer): layer["config"] for layer in _flat(config)}
    if "stem_bn" not in layers:
        return None
    epsilon = float(layers["stem_bn"]["epsilon"])
    pads = [side for name, layer in layers.items() if name.endswith("conv_pad") for side in layer["padding"]]
    # keras.applications also uses padding layers; with odd feature maps, they pad both sides equally.
    odd = any(side is not None and side % 2 for side in _image(layers)) and epsilon == TENSORFLOW.bn_epsilon
    symmetric = bool(pads) and all(before == after for before, after in pads) and not odd
    kind = PYTORCH if symmetric else TENSORFLOW
    return Framework(kind.name, kind.padding, epsilon)


def _image(layers: Mapping[str, Mapping[str, Any]]) -> list[int | None]:
    """Height and width of the model's input."""
    shapes = (layer.get("batch_shape") or layer.get("batch_input_shape") for layer in layers.values())
    return next((shape[1:3] for shape in shapes if shape), [None, None])


def _before_stem(model: Layer) -> list[Layer] | None:
    """The layers from the image to the first convolution of the network, None if there is no such convolution."""
    layers = _layers(model)
    for i, layer in enumerate(layers):
        inside = [] if _is_stem(layer, layers) else _before_stem(layer)
        if inside is not None:
            before = layers[:i] if model["class_name"] == "Sequential" else _chain(layer, layers)
            return [*(each for outer in before for each in _flat(outer)), *inside]
    return None


def _layers(model: Layer) -> list[Layer]:
    config = model.get("config")
    layers = config.get("layers") if isinstance(config, dict) else None
    return [layer for layer in layers or () if isinstance(layer, dict)]


def _is_stem(layer: Layer, siblings: list[Layer]) -> bool:
    if any(_name(other) == "stem_conv" for other in siblings):
        return _name(layer) == "stem_conv"
    return bool(layer["class_name"] == "Conv2D")  # with automatic names: the first convolution


def _name(layer: Layer) -> str:
    return str(layer["config"].get("name", layer.get("name")))


def _chain(layer: Layer, layers: list[Layer]) -> list[Layer]:
    """The layers between the input of a functional model and a layer."""
    by_name = {_name(each): each for each in layers}
    chain: list[Layer] = []
    while names := set(_inbound(layer.get("inbound_nodes"))):
        layer = by_name.get(names.pop(), layer)
        if names or layer in chain:
            raise WeightsError(_refuse("the output of more than one layer"))
        chain.insert(0, layer)
    return chain


def _inbound(node: Any) -> Iterator[str]:
    """The names of a layer's input layers, in the notation of Keras 3 or Keras 2."""
    if isinstance(node, dict):
        if "keras_history" in node:
            yield str(node["keras_history"][0])
        node = list(node.values())
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            yield node[0]
        for part in node:
            if isinstance(part, list | dict):
                yield from _inbound(part)


def _flat(layer: Layer) -> Iterator[Layer]:
    """A layer, or the layers inside it if it is a model."""
    inside = _layers(layer)
    for each in inside:
        yield from _flat(each)
    if not inside:
        yield layer


def _is_identity(layer: Layer) -> bool:
    kind = layer["class_name"]
    return kind in IDENTITY or kind.startswith("Random")


def _effect(layer: Layer, statistics: Statistics | None) -> Statistics:
    """The factor and summand of a layer."""
    kind, config = layer["class_name"], layer["config"]
    if kind == "Rescaling":
        return _numbers(config["scale"]), _numbers(config.get("offset", 0.0))
    if kind == "Normalization" and not config.get("invert"):
        if config.get("mean") is None:
            mean, variance = statistics or (np.zeros(1), np.ones(1))
        else:
            mean, variance = _numbers(config["mean"]), _numbers(config["variance"])
        std = np.maximum(np.sqrt(variance), 1e-7)  # as in Keras
        return 1 / std, -mean / std
    if kind == "TFOpLambda":
        kind = FUNCTIONS.get(str(config.get("function")).rpartition(".")[2], kind)
    numbers = [part for node in layer.get("inbound_nodes") or () for part in _arguments(node)]
    if kind in OPERATORS and len(numbers) == 1:
        with np.errstate(divide="ignore"):
            factor, summand = OPERATORS[kind](np.asarray(numbers[0], np.float64).ravel())
        return np.atleast_1d(factor), np.atleast_1d(summand)
    raise WeightsError(_refuse(f"a layer {layer['class_name'][:50]!r}"))


def _arguments(node: Any) -> list[Any]:
    """The numbers or lists of numbers on the right of an operator, in the notation of Keras 3 or Keras 2."""
    if isinstance(node, dict):
        return [part for part in node.get("args", ())[1:] if _is_number(part)]
    calls = [node] if node and isinstance(node[0], str) else node
    return [part for call in calls for keyword in call[3:] for part in keyword.values() if _is_number(part)]


def _is_number(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_number, value)) and len(value) <= MAX_CHANNELS
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, dict):  # an array in Keras 3
        value = value["config"]["value"]
    return np.asarray(value, np.float64).ravel()


def _refuse(what: str) -> str:
    return (
        f"The model in the file has {what} between the image and the first convolution. Expected only Rescaling, "
        "Normalization, or arithmetic with a number. Save the weights of the inner network alone (save_weights)."
    )
