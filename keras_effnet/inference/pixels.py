"""What a model has to receive: the size of its images, and whether their pixels are normalised before.

Every use of a model asks here: `classify`, `evaluate`, `explain`, `export`, `Predictor` and `finetune`.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from keras_effnet.center_crop import CROP_PADDING, View
from keras_effnet.errors import COUNT
from keras_effnet.imagenet import normalizes_inside
from keras_effnet.introspection import variant_of
from keras_effnet.normalization import Normalization
from keras_effnet.variants import VARIANTS, Variant, find_variant
from keras_effnet.weights.formats.preprocessing_files import StoredView, stored_view

log = logging.getLogger("keras_effnet")


def image_size(model: Any, size: int | None = None) -> int:
    """The side of a model's images in pixels.

    Args:
        model: a Keras model with one input, square RGB images.
        size: for a model that takes images of any size. By default, the size that a layer inside it expects, or the
            resolution of the network that the model is named after.

    Raises:
        ValueError: the model takes other inputs, the size contradicts the model, or nothing determines it.
    """
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(
            f"The model {model.name!r} takes images of shape {shape}. Expected square RGB images of one size, such as "
            "(None, 224, 224, 3). Build it with such an input_shape."
        )
    if size is not None:
        COUNT.check("size", size)
    fixed = shape[1]
    if fixed is not None:
        if size not in (None, fixed):
            raise ValueError(
                f"size is {size}, but the model {model.name!r} takes images of {fixed} x {fixed} pixels. Expected "
                f"{fixed}. Leave size out."
            )
        return fixed
    found = size or _size_inside(model)
    if found is None:
        with suppress(ValueError):
            found = find_variant(model.name).resolution
    if found is None:
        named = _named_network(model)
        example = f", for example {named.resolution}, the resolution of {named.name}" if named else ", for example 224"
        raise ValueError(
            f"The model {model.name!r} takes images of shape {shape}, any size. Expected a size to resize photos to. "
            f"Pass size={example}."
        )
    return found


def _size_inside(model: Any) -> int | None:
    """The size that a Resizing layer or a nested model makes the images; None if there is neither."""
    for step in _steps(model):
        if type(step).__name__ == "Resizing":
            return step.height if step.height == step.width else None
        shape = getattr(step, "input_shape", None) if hasattr(step, "layers") else None
        if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] and shape[1] is not None:
            return shape[1]
    return None


def _steps(model: Any) -> Iterator[Any]:
    """The layers of a model in order, those of nested models after their model."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from _steps(layer)


def _named_network(model: Any) -> Variant | None:
    """The published network that a model, or a model nested in it, is named after or built like."""
    for each in (model, *_steps(model)):
        with suppress(ValueError):
            return find_variant(each.name)
    with suppress(ValueError, AttributeError):
        found = variant_of(model)
        return VARIANTS.get(found.name)
    return None


def network_size(name: str, weights: str | os.PathLike[str] | None, size: int | None = None) -> int:
    """The side of the images that a network by name is built for.

    Args:
        name: the network.
        weights: its weight set or file. timm's and transformers' configuration beside a file specifies a size.
        size: the size that was asked for; None for that of the configuration, or the resolution of the network.

    Raises:
        ValueError: the network does not exist, or the size is not a whole number of at least 1.
    """
    if size is not None:
        COUNT.check("size", size)
        return size
    stored = _stored(weights)
    return (stored and stored.size) or find_variant(name).resolution


def log_other_views(weights: str | os.PathLike[str] | None, view: View) -> None:
    """Log in which ways a library evaluates its weights otherwise than on this view of a photo."""
    stored = _stored(weights)
    if stored is None:
        return
    given = view.size / (view.size + CROP_PADDING) if view.crop else 1.0
    differences = []
    if stored.size not in (None, view.size):
        differences.append(f"images of {stored.size} pixels instead of {view.size}")
    if stored.crop is not None and abs(stored.crop - given) > 0.01:
        differences.append(f"the central {stored.crop:.1%} of a photo instead of {given:.1%}")
    if stored.interpolation not in (None, "bicubic" if view.crop else "bilinear"):
        differences.append(f"{stored.interpolation} interpolation instead of {'bicubic' if view.crop else 'bilinear'}")
    if differences:
        log.warning(
            "%s specifies %s. Scores can differ slightly from the library's.", stored.file, ", ".join(differences)
        )


def _stored(weights: str | os.PathLike[str] | None) -> StoredView | None:
    return stored_view(Path(weights)) if weights is not None and Path(weights).exists() else None


def input_normalization(model: Any) -> Normalization | None:
    """How pixels 0..255 are normalised before a model receives them; None if the model takes pixels 0..255.

    A model with a layer that can normalise, before its first layer with weights, takes pixels 0..255. A published
    network without one gets its own normalisation. All other models get pixels 0..255. What is not in the model itself
    is logged.
    """
    if normalizes_inside(model):
        return None
    network = _named_network(model)
    if network is None:
        log.warning(
            "The model %r has no layer that normalises its pixels: it receives pixels 0..255. If it was trained on "
            "others, put a Rescaling layer before it.",
            model.name,
        )
        return None
    log.warning(
        "The model %r does not normalise its pixels: they are normalised for %s, with mean %s and standard deviation "
        "%s. If it was trained otherwise, put a Rescaling layer before it.",
        model.name,
        network.name,
        *(", ".join(f"{x:g}" for x in values) for values in (network.normalization.mean, network.normalization.std)),
    )
    return network.normalization
