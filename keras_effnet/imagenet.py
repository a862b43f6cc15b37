"""ImageNet's side of a model: pixels in (`preprocess_input`), labels out (`decode_predictions`); nothing is downloaded.

Source: keras.applications.imagenet_utils for the arguments and the tuples. The class index that it downloads is shipped
beside this file, with seven labels made clear: there, the bird and the machine are both "crane".
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from keras_effnet.normalization import Normalization
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.registry import ALIASES, WEIGHTS


def preprocess_input(
    x: Any,
    data_format: str | None = None,
    *,
    model: Any = None,
    weights: str | None = None,
    variant: str | None = None,
) -> Any:
    """Normalise pixels for a model that does not do it itself (`include_preprocessing=False`).

    By default the models of this package do, and take pixels as they are: with `model=` this is looked up.

    Args:
        x: RGB images, values 0..255, (batch, height, width, 3) or one alone, or channels first; array or tensor.
        data_format: "channels_last" or "channels_first"; by default what Keras is set to.
        model: the model that the images are for; without `variant` its name tells the network.
        weights: the weight set of that model, as in "advprop"; by default what the network starts from.
        variant: the network, as in "lite0"; by default "b0".

    Returns:
        float32 of the shape and the kind of `x`, which stays as it is; `x` itself if `model` normalises inside.

    Raises:
        ValueError: an unknown `data_format`, network or set, or images without three channels.

    Example:
        >>> preprocess_input(np.full((1, 1, 3), 255, "uint8"), "channels_last", variant="lite0").tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    if model is not None and normalizes_inside(model):
        return x
    if model is None and weights is None and variant is None:
        _warn_once(
            "preprocess_input was called without model=, weights= or variant=: it normalises with ImageNet's mean and "
            "standard deviation, which only models built with include_preprocessing=False need. The default models "
            "normalise inside and take 0..255 as it is (the function of this name in keras.applications does "
            "nothing): do not call it for them. Pass model=, or weights= or variant=, to say which it is."
        )
    constants = _constants(find_variant(variant).name if variant else _variant_of(model), weights)
    return _normalize(x, constants, _channel_axis(x, data_format))


def normalizes_inside(model: Any) -> bool:
    """Whether a model normalises its pixels itself: whether anything is calculated before its first weights."""
    for step in _flat(model):
        if _calculates(step):
            return True
        if getattr(step, "weights", ()) and not hasattr(step, "layers"):
            return False
    return False


def _calculates(step: Any) -> bool:
    """Whether a layer or an operation changes pixels as normalising does: x / 255 in a graph is an operation."""
    from keras_effnet.weights.formats.keras_config import OPERATORS

    kind = type(step).__name__
    # tf_keras makes one kind of layer of all operations.
    is_operation = kind in OPERATORS or (kind == "TFOpLambda" and "cast" not in step.name)
    return kind in ("Rescaling", "Normalization", "Lambda") or is_operation


def _flat(model: Any) -> Iterator[Any]:
    """The layers and operations of a model in order; a nested model comes before its own."""
    for step in getattr(model, "operations", model.layers):
        yield step
        if hasattr(step, "layers"):
            yield from _flat(step)


def _variant_of(model: Any) -> str | None:
    """The network that a model, or a model nested in it, is named after."""
    for layer in () if model is None else (model, *_flat(model)):
        with suppress(ValueError):
            return find_variant(layer.name).name
    return None


def _constants(variant: str | None, weights: str | None) -> Normalization:
    """What a weight set was trained with, or without one what the network starts from."""
    if weights is None:
        return VARIANTS[variant or "b0"].normalization
    rows = [row for row in WEIGHTS.values() if variant in (None, row.variant)]
    for row in rows:
        if row.name == ALIASES.get(weights, weights):
            return row.normalization
    raise ValueError(
        f"There is no weight set {weights!r} for {variant or 'any network'}. Expected one of "
        f"{', '.join(sorted({row.name for row in rows}))}. Choose one of these, or leave weights= out for a file."
    )


def _channel_axis(x: Any, data_format: str | None) -> int:
    if data_format is None:
        from keras_effnet._keras import keras

        data_format = keras.backend.image_data_format()
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(
            f"data_format is {data_format!r}. Expected 'channels_first' or 'channels_last'. Pass one of these."
        )
    axis = -3 if data_format == "channels_first" else -1
    if len(x.shape) not in (3, 4) or x.shape[axis] not in (3, None):
        raise ValueError(
            f"The images have the shape {tuple(x.shape)}, {data_format}. Expected three or four dimensions with three "
            "channels (RGB). Convert the images, or pass the data_format that they have."
        )
    return axis


def _normalize(x: Any, constants: Normalization, axis: int) -> Any:
    shape = (3, 1, 1) if axis == -3 else (3,)
    scale = np.reshape(constants.scale, shape).astype(np.float32)
    offset = np.reshape(constants.offset, shape).astype(np.float32)
    if isinstance(x, np.ndarray):
        return x.astype(np.float32) * scale + offset
    from keras_effnet._keras import LEGACY, keras

    if LEGACY:
        return keras.backend.cast(x, "float32") * scale + offset
    x = keras.ops.cast(x, "float32")
    return x * keras.ops.convert_to_tensor(scale) + keras.ops.convert_to_tensor(offset)


def check_input_range(images: Any, model: Any) -> None:
    """Warn, once in a process, when images that were already scaled to 0..1 meet a model that normalises inside.

    Args:
        images: the pixels that `model` is about to get, an array or a tensor of any shape.
        model: a Keras model.

    Example:
        >>> import keras_effnet
        >>> check_input_range(np.full((1, 32, 32, 3), 255.0), keras_effnet.EfficientNetB0(weights=None))
    """
    pixels = _to_numpy(images)
    if not pixels.size or pixels.dtype.kind in "biu" or pixels.max() > 1.0 or not normalizes_inside(model):
        return
    _warn_once(
        "The images are at most 1.0, but the model normalises inside and expects 0..255: everything looks black to it. "
        "Pass the pixels as they are, without dividing them by 255 or normalising them."
    )


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)


@cache
def class_index() -> tuple[tuple[str, str], ...]:
    """The 1000 classes of ImageNet as (wnid, label), in the order of the models' outputs.

    Example:
        >>> class_index()[281]
        ('n02123045', 'tabby')
    """
    index = json.loads(files("keras_effnet").joinpath("imagenet_class_index.json").read_text("utf-8"))
    return tuple(tuple(index[str(i)]) for i in range(len(index)))


@cache
def labels() -> tuple[str, ...]:
    """The 1000 labels of ImageNet, in the order of the models' outputs.

    Example:
        >>> labels()[281]
        'tabby'
    """
    return tuple(label for _, label in class_index())


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the classes with the highest scores, as `keras.applications` does, but offline.

    Args:
        preds: scores of shape (batch, 1000), an array of NumPy or a tensor of any backend.
        top: how many classes to name.

    Returns:
        For every image a list of (wnid, label, score), the highest score first.

    Raises:
        ValueError: another shape, or `top` below 1.

    Example:
        >>> decode_predictions(np.eye(1000)[281:282], top=1)[0][0][:2]
        ('n02123045', 'tabby')
    """
    scores = _to_numpy(preds)
    if scores.ndim != 2 or scores.shape[1] != len(class_index()):
        raise ValueError(
            f"The predictions have the shape {scores.shape}. Expected a batch of them: (batch, 1000), the classes of "
            "ImageNet. For one image add an axis, as in preds[None]; a model with other classes has its own labels."
        )
    if top < 1:
        raise ValueError(f"top is {top!r}. Expected at least 1. Pass the number of labels for each image.")
    return [[(*class_index()[i], row[i]) for i in np.argsort(row)[-top:][::-1]] for row in scores]


def _to_numpy(x: Any) -> np.ndarray:
    # A torch tensor that is part of a gradient, or on a GPU, does not become an array by itself.
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
