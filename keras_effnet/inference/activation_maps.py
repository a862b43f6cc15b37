"""Where in a photo a model sees a class: class activation maps (arXiv:1905.11946, Figure 7).

Sources: CAM (arXiv:1512.04150) where it is exact, Grad-CAM (arXiv:1610.02391) elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.class_names import find_class
from keras_effnet.data.photos import Content, NamedPhoto, Photo, is_single, named
from keras_effnet.errors import at_least_one
from keras_effnet.imagenet import preprocess_input
from keras_effnet.images import Box, center_crop_and_resize, central_square
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.head_finder import Head, find_head, kernel, run, to_numpy


@dataclass(frozen=True)
class ActivationMap:
    """How much each position of a feature map speaks for a class.

    Args:
        wnid: of the class, None for classes other than ImageNet's.
        label: of the class.
        score: probability that the model gives it.
        values: float32 of shape (rows, columns), positive for, negative against the class. Of "CAM", their mean plus
            the classifier's bias is the logit.
        box: what the map covers: left, top, right and bottom in pixels of the photo.
    """

    wnid: str | None
    label: str
    score: float
    values: np.ndarray
    box: Box

    @property
    def centre(self) -> tuple[float, float] | None:
        """Centre of mass (x, y) of the positive values in pixels of the photo, None where nothing is positive."""
        mass = np.maximum(self.values, 0).astype(np.float64)
        if not mass.any():
            return None
        left, top, right, bottom = self.box
        rows, columns = mass.shape
        x = np.average((np.arange(columns) + 0.5) / columns, weights=mass.sum(axis=0))
        y = np.average((np.arange(rows) + 0.5) / rows, weights=mass.sum(axis=1))
        return float(left + x * (right - left)), float(top + y * (bottom - top))


@dataclass(frozen=True)
class Explanation:
    """The maps of one photo.

    Args:
        path: the photo's path, or its name.
        maps: one for each class.
        photo: the part of the photo that the model was shown, uint8 (side, side, 3) at the photo's own resolution.
        method: "CAM" (exact) or "Grad-CAM".
        layer: name of the layer with the feature map.
        error: why there are no maps, None where there are.
    """

    path: str
    maps: tuple[ActivationMap, ...] = ()
    photo: np.ndarray | None = None
    method: str = ""
    layer: str = ""
    error: str | None = None


def explain(
    model: Classifier | Any,
    images: Photo | Content | Iterable[Photo | Content],
    *,
    classes: int | str | Sequence[int | str] | None = None,
    top: int = 1,
    layer: str | None = None,
) -> Iterator[Explanation]:
    """Map where in images a model sees its classes; a bad photo gives an `Explanation` with its error.

    A model that ends in average pooling and a dense layer is explained exactly (CAM), others by gradients (Grad-CAM).

    Args:
        model: a classifier from `load_classifier`, or a functional or sequential Keras model that classifies square
            RGB images; classes other than ImageNet's have their numbers as labels.
        images: paths, bytes of files, open files, uint8 arrays (height, width, 3), Pillow images, or pairs (name,
            image). A single one needs no list.
        classes: outputs to explain, each by index, label or wnid.
        top: without `classes`: how many of the best to explain.
        layer: name of a layer, also of a nested model, whose feature map is explained by Grad-CAM instead.

    Raises:
        ValueError: no such class or layer, `top` below 1, or a model without a classifier or a feature map.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> [result] = explain(load_classifier("lite0"), [("coffee", sample("coffee"))])
        >>> result.method, result.maps[0].label, result.maps[0].values.shape
        ('CAM', 'espresso', (7, 7))
    """
    at_least_one(top=top)
    classifier = _classifier(model)
    head = find_head(classifier.model, layer)
    names = [classes] if isinstance(classes, int | str) else classes or ()
    outputs = [find_class(name, classifier.classes) for name in names]
    photos = enumerate([images] if is_single(images) else images, 1)  # type: ignore[arg-type]  # no single photo here
    return (_explain(named(photo, number), classifier, head, outputs or top) for number, photo in photos)


def _classifier(model: Any) -> Classifier:
    """As `as_classifier`, but any number of classes will do."""
    outputs = getattr(model, "output_shape", None)
    if isinstance(outputs, tuple) and len(outputs) == 2 and outputs[1] != 1000:
        return as_classifier(model, tuple((None, str(i)) for i in range(outputs[1] or 0)))
    return as_classifier(model)


def _explain(source: NamedPhoto, classifier: Classifier, head: Head, wanted: list[int] | int) -> Explanation:
    path = source.name
    try:
        photo = source.pixels()
        pixels = center_crop_and_resize(photo, classifier.size)[None]
    except ValueError as error:
        return Explanation(path, error=source.describe(error))
    scores = classifier.scores(pixels)[0]
    if not np.isfinite(scores).all():
        return Explanation(path, error=f"{path!r} gets scores that are no numbers. Expected a sound model. Check it.")
    outputs = np.argsort(scores)[-wanted:][::-1].tolist() if isinstance(wanted, int) else wanted
    inputs = preprocess_input(pixels, "channels_last", model=classifier.model)
    left, top, right, bottom = box = central_square(photo.shape[0], photo.shape[1], classifier.size)
    maps = []
    for i, values in zip(outputs, _maps(classifier.model, inputs, head, outputs), strict=True):
        wnid, label = classifier.classes[i]
        maps.append(ActivationMap(wnid, label, float(scores[i]), values, box))
    seen = np.clip(photo[top:bottom, left:right], 0, 255).astype(np.uint8)
    return Explanation(path, tuple(maps), seen, "CAM" if head.exact else "Grad-CAM", head.layer.name)


def _maps(model: Any, image: np.ndarray, head: Head, outputs: list[int]) -> Iterable[np.ndarray]:
    if not head.exact:
        return [_grad_cam(model, image, head, i) for i in outputs]
    features = to_numpy(run(model, image, head)[0])[0]
    return np.moveaxis(features @ kernel(head.classifier)[:, outputs], -1, 0)


def _grad_cam(model: Any, image: np.ndarray, head: Head, output: int) -> np.ndarray:
    """Each channel of the feature map times the mean gradient of the logit by it (equations 1 and 2, no ReLU yet)."""
    features, _ = run(model, image, head)

    def logit(shift: Any) -> Any:
        logits = run(model, image, head, shift)[1]
        return logits[(0,) * (logits.ndim - 1) + (output,)]

    zeros = (keras.backend if LEGACY else keras.ops).zeros_like(features)
    slopes = gradient(logit, zeros, "tensorflow" if LEGACY else keras.backend.backend())
    return to_numpy(features)[0] @ to_numpy(slopes)[0].mean(axis=(0, 1))


def gradient(function: Callable[[Any], Any], zeros: Any, backend: str) -> Any:
    """Differentiate a scalar function of a tensor.

    Args:
        function: from a tensor like `zeros` to a scalar tensor.
        zeros: where to differentiate, a tensor of the backend.
        backend: "jax", "tensorflow" or "torch".

    Returns:
        A tensor of the shape of `zeros`.

    Raises:
        ValueError: a backend without gradients.
    """
    match backend:
        case "tensorflow":
            with import_module("tensorflow").GradientTape() as tape:
                tape.watch(zeros)
                value = function(zeros)
            return tape.gradient(value, zeros)
        case "jax":
            return import_module("jax").grad(function)(zeros)
        case "torch":
            zeros = zeros.requires_grad_()
            return import_module("torch").autograd.grad(function(zeros), zeros)[0]
    raise ValueError(
        f"Keras runs on the backend {backend!r}, which has no gradients, and this map needs them. Expected jax, "
        "tensorflow or torch. Choose one of these with the environment variable KERAS_BACKEND."
    )
