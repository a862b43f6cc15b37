"""What the configuration in a Keras file says of the pixels, padding and epsilon that its weights were trained with.

Nothing is built from it and nothing in it is run: it is read as a table of layers.
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

# What leaves the values of the pixels as they are once a model is trained, as does every layer named "Random...".
IDENTITY = (
    *("AugMix", "AutoContrast", "CenterCrop", "Cropping2D", "CutMix", "Dropout", "GaussianDropout", "GaussianNoise"),
    *("Identity", "InputLayer", "MixUp", "RandAugment", "Resizing", "SpatialDropout2D", "ZeroPadding2D"),
)
# An operator with a number on its right, as in `x / 255`: (factor, summand) by that number.
OPERATORS: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "Add": lambda number: (1.0, number),
    "Divide": lambda number: (1.0 / number, 0.0),
    "Multiply": lambda number: (number, 0.0),
    "Subtract": lambda number: (1.0, -number),
    "TrueDivide": lambda number: (1.0 / number, 0.0),
}

Layer = Mapping[str, Any]
Statistics = tuple[np.ndarray, np.ndarray]


def normalization_in(config: Layer, statistics: Statistics | None) -> Normalization | None:
    """What a model does to pixels 0..255 before its first convolution.

    Args:
        config: a model as Keras writes it: {"class_name": ..., "config": {"layers": [...]}}.
        statistics: mean and variance that its Normalization layer keeps among the weights.

    Returns:
        None where the configuration tells of no layers, or the model takes pixels as they are.

    Raises:
        WeightsError: a layer in between that does something else, or that has no one before it.

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
        raise WeightsError(_refuse(f"pixels * {scale[:9]} + {offset[:9]}"))
    mean, std = np.broadcast_arrays(-offset / scale, 1 / scale)
    if mean.size == 1:
        mean, std = mean.repeat(3), std.repeat(3)
    for known in (IMAGENET, LITE, MINUS_ONE_TO_ONE, ZERO_TO_ONE):
        if mean.size == 3 and np.allclose([mean, std], [known.mean, known.std], rtol=1e-5, atol=1e-3):
            return known
    return Normalization(tuple(mean.tolist()), tuple(std.tolist()))


def framework_in(config: Layer) -> Framework | None:
    """How the model pads and normalises batches, None where its layers have no names that tell."""
    layers = {_name(layer): layer["config"] for layer in _flat(config)}
    if "stem_bn" not in layers:
        return None
    epsilon = float(layers["stem_bn"]["epsilon"])
    pads = [side for name, layer in layers.items() if name.endswith("conv_pad") for side in layer["padding"]]
    # keras.applications pads by hand as well, alike on both sides where all maps of the model have odd sides.
    odd = any(side is not None and side % 2 for side in _image(layers)) and epsilon == TENSORFLOW.bn_epsilon
    symmetric = bool(pads) and all(before == after for before, after in pads) and not odd
    kind = PYTORCH if symmetric else TENSORFLOW
    return Framework(kind.name, kind.padding, epsilon)


def _image(layers: Mapping[str, Mapping[str, Any]]) -> list[int | None]:
    """Height and width that the model takes."""
    shapes = (layer.get("batch_shape") or layer.get("batch_input_shape") for layer in layers.values())
    return next((shape[1:3] for shape in shapes if shape), [None, None])


def _before_stem(model: Layer) -> list[Layer] | None:
    """The layers from the image to the first convolution of the network, None if the model has no such."""
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


def _is_stem(layer: Layer, beside: list[Layer]) -> bool:
    if any(_name(other) == "stem_conv" for other in beside):
        return _name(layer) == "stem_conv"
    return bool(layer["class_name"] == "Conv2D")  # of names that Keras gave by itself, the first


def _name(layer: Layer) -> str:
    return str(layer["config"].get("name", layer.get("name")))


def _chain(layer: Layer, layers: list[Layer]) -> list[Layer]:
    """The layers before one in a functional model, back to its input."""
    by_name = {_name(each): each for each in layers}
    chain: list[Layer] = []
    while names := set(_inbound(layer.get("inbound_nodes"))):
        layer = by_name.get(names.pop(), layer)
        if names or layer in chain:
            raise WeightsError(_refuse("more than one layer's output"))
        chain.insert(0, layer)
    return chain


def _inbound(node: Any) -> Iterator[str]:
    """The names of the layers that feed a layer, in the notation of Keras 3 or of Keras 2."""
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
    """A layer, or those of the model that it is."""
    inside = _layers(layer)
    for each in inside:
        yield from _flat(each)
    if not inside:
        yield layer


def _is_identity(layer: Layer) -> bool:
    kind = layer["class_name"]
    return kind in IDENTITY or kind.startswith("Random")


def _effect(layer: Layer, statistics: Statistics | None) -> Statistics:
    """What a layer multiplies by, then adds."""
    kind, config = layer["class_name"], layer["config"]
    if kind == "Rescaling":
        return _numbers(config["scale"]), _numbers(config.get("offset", 0.0))
    if kind == "Normalization" and not config.get("invert"):
        if config.get("mean") is None:
            mean, variance = statistics or (np.zeros(1), np.ones(1))
        else:
            mean, variance = _numbers(config["mean"]), _numbers(config["variance"])
        std = np.maximum(np.sqrt(variance), 1e-7)  # as Keras does
        return 1 / std, -mean / std
    numbers = [part for node in layer.get("inbound_nodes") or () for part in _arguments(node)]
    if kind in OPERATORS and len(numbers) == 1:
        factor, summand = OPERATORS[kind](float(numbers[0]))
        return np.full(1, factor), np.full(1, summand)
    raise WeightsError(_refuse(f"a layer {kind[:50]!r}"))


def _arguments(node: Any) -> list[Any]:
    """The numbers on the right of an operator in the notation of Keras 3."""
    arguments = node.get("args", ()) if isinstance(node, dict) else ()
    return [part for part in arguments[1:] if isinstance(part, int | float)]


def _numbers(value: Any) -> np.ndarray:
    if isinstance(value, dict):  # an array, as Keras 3 writes it
        value = value["config"]["value"]
    return np.asarray(value, np.float64).ravel()


def _refuse(what: str) -> str:
    return (
        f"In the model of the file, {what} comes between the image and the first convolution. Expected Rescaling, "
        "Normalization, or arithmetic with one number: what else is done to the pixels cannot be taken over. Save the "
        "weights of the network inside alone (save_weights)."
    )
