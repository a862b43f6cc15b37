"""ImageNet's pixels in (`preprocess_input`, `normalize`) and labels out (`decode_predictions`), without downloads.

Arguments and results are those of keras.applications.imagenet_utils. The class index that Keras downloads is part of
this package. Seven labels in it are disambiguated: in the original, both the bird and the machine are "crane".
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import Normalization
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.published import find_weights
from keras_effnet.weights.registry import WEIGHTS

CLASS_INDEXES = {1000: "imagenet_class_index.json", 21843: "imagenet21k_class_index.json"}


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Return the images unchanged, as `preprocess_input` of EfficientNet does in `keras.applications`.

    The models normalise inside and expect pixels 0..255. Only for models built with `include_preprocessing=False`, use
    `normalize`.

    Args:
        x: images, an array or a tensor.
        data_format: ignored.

    Example:
        >>> preprocess_input(np.full((1, 1, 3), 255, "uint8")).tolist()
        [[[255, 255, 255]]]
    """
    del data_format
    return x


def normalize(
    x: Any,
    data_format: str | None = None,
    *,
    model: Any = None,
    weights: str | None = None,
    variant: str | None = None,
) -> Any:
    """Normalise pixels for a model that does not normalise them itself (`include_preprocessing=False`).

    By default, the models of this package normalise inside and expect unchanged pixels. Pass `model=` to do the right
    thing in both cases.

    Args:
        x: RGB images, values 0..255: an array or tensor of shape (batch, height, width, 3) or (height, width, 3), or
            with the channels first.
        data_format: "channels_last" or "channels_first"; by default Keras's setting.
        model: the model that will receive the images. Without `variant`, its name identifies the network.
        weights: the weight set of the model, such as "advprop"; by default the network's usual normalisation.
        variant: the network, such as "lite0"; by default the one that `model` is named after, or "b0".

    Returns:
        float32, an array or tensor like `x`, of the same shape; `x` itself if `model` normalises inside. `x` is not
        changed.

    Raises:
        ValueError: `data_format`, the network or the weight set does not exist, or the images do not have 3 channels.

    Example:
        >>> normalize(np.full((1, 1, 3), 255, "uint8"), "channels_last", variant="lite0").tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    if model is not None and normalizes_inside(model):
        return x
    constants = _constants(find_variant(variant).name if variant else _variant_of(model), weights)
    return _normalize(x, constants, _channel_axis(x, data_format))


def normalizes_inside(model: Any) -> bool:
    """Whether a model normalises its pixels: whether it computes anything before the first layer with weights."""
    for step in _flat(model):
        if _calculates(step):
            return True
        if getattr(step, "weights", ()) and not hasattr(step, "layers"):
            return False
    return False


def _calculates(step: Any) -> bool:
    """Whether a layer or operation can be a normalisation; x / 255 in a functional model is an operation."""
    from keras_effnet.weights.formats.keras_config import OPERATORS

    kind = type(step).__name__
    # tf_keras has a single layer class for all operations.
    is_operation = kind in OPERATORS or (kind == "TFOpLambda" and "cast" not in step.name)
    return kind in ("Rescaling", "Normalization", "Lambda") or is_operation


def _flat(model: Any) -> Iterator[Any]:
    """The layers and operations of a model in order, each nested model followed by its own."""
    for step in getattr(model, "operations", model.layers):
        yield step
        if hasattr(step, "layers"):
            yield from _flat(step)


def _variant_of(model: Any) -> str | None:
    """The network that a model, or a model nested in it, is named after, if any."""
    for layer in () if model is None else (model, *_flat(model)):
        with suppress(ValueError):
            return find_variant(layer.name).name
    return None


def _constants(variant: str | None, weights: str | None) -> Normalization:
    """The normalisation of a weight set, or of the network if no set is given."""
    if weights is None:
        return VARIANTS[variant or "b0"].normalization
    rows = [row for row in WEIGHTS.values() if variant in (None, row.variant)]
    for row in rows:
        with suppress(WeightsError):
            return find_weights(row.variant, weights).normalization
    raise ValueError(
        f"There is no weight set {weights!r} for {variant or 'any network'}. Expected one of "
        f"{', '.join(sorted({row.name for row in rows}))}. For weights from a file, leave out weights=."
    )


def _channel_axis(x: Any, data_format: str | None) -> int:
    if data_format is None:
        from keras_effnet._keras import keras

        data_format = keras.backend.image_data_format()
    if data_format not in ("channels_first", "channels_last"):
        raise ValueError(f"data_format is {data_format!r}. Expected 'channels_first' or 'channels_last'.")
    axis = -3 if data_format == "channels_first" else -1
    if len(x.shape) not in (3, 4) or x.shape[axis] not in (3, None):
        raise ValueError(
            f"The images have the shape {tuple(x.shape)}, {data_format}. Expected three or four dimensions with three "
            "channels (RGB). Convert the images, or pass their data_format."
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
    """Warn, once per process, if images are already scaled to 0..1 although the model normalises inside.

    Args:
        images: the pixels that `model` will receive, an array or tensor of any shape.
        model: a Keras model.

    Example:
        >>> import keras_effnet
        >>> check_input_range(np.full((1, 32, 32, 3), 255.0), keras_effnet.EfficientNetB0(weights=None))
    """
    pixels = _to_numpy(images)
    if not pixels.size or pixels.dtype.kind in "biu" or pixels.max() > 1.0 or not normalizes_inside(model):
        return
    _warn_once(
        "The largest pixel is at most 1.0, but the model normalises inside and expects 0..255, so that the images are "
        "almost black to it. Pass the original pixels, without dividing them by 255 or normalising them."
    )


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)


@cache
def class_index(classes: int = 1000) -> tuple[tuple[str, str], ...]:
    """Return the classes of ImageNet as (wnid, label), in the order of the models' outputs.

    Args:
        classes: 1000, or 21843 for the models that were trained on all of ImageNet.

    Raises:
        ValueError: ImageNet has no such number of classes.

    Example:
        >>> class_index()[281]
        ('n02123045', 'tabby')
    """
    if classes not in CLASS_INDEXES:
        known = " or ".join(map(str, CLASS_INDEXES))
        raise ValueError(f"classes is {classes!r}. Expected {known}, the numbers of ImageNet's classes.")
    index = json.loads(files("keras_effnet").joinpath(CLASS_INDEXES[classes]).read_text("utf-8"))
    rows = index if isinstance(index, list) else (index[str(i)] for i in range(len(index)))
    return tuple((wnid, label) for wnid, label in rows)


@cache
def labels() -> tuple[str, ...]:
    """Return the 1000 labels of ImageNet, in the order of the models' outputs.

    Example:
        >>> labels()[281]
        'tabby'
    """
    return tuple(label for _, label in class_index())


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Name the classes with the highest scores, as in `keras.applications`, but offline.

    Args:
        preds: scores of shape (batch, 1000) or (batch, 21843), a NumPy array or a tensor of any backend.
        top: number of classes per image.

    Returns:
        For each image, a list of (wnid, label, score) with the highest score first.

    Raises:
        ValueError: `preds` has another shape, or `top` is below 1.

    Example:
        >>> decode_predictions(np.eye(1000)[281:282], top=1)[0][0][:2]
        ('n02123045', 'tabby')
    """
    scores = _to_numpy(preds)
    if scores.ndim != 2 or scores.shape[1] not in CLASS_INDEXES:
        raise ValueError(
            f"The predictions have the shape {scores.shape}. Expected (batch, 1000) or (batch, 21843), scores of "
            "ImageNet's classes. For a single image, add an axis: preds[None]."
        )
    if top < 1:
        raise ValueError(f"top is {top!r}. Expected at least 1.")
    names = class_index(scores.shape[1])
    return [[(*names[i], row[i]) for i in np.argsort(row)[-top:][::-1]] for row in scores]


def _to_numpy(x: Any) -> np.ndarray:
    # NumPy cannot convert a torch tensor that is on a GPU or requires a gradient.
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
