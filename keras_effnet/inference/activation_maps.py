"""Class activation maps: which parts of a photo a prediction is based on (arXiv:1905.11946, Figure 7).

Sources: CAM (arXiv:1512.04150) where it is exact, Grad-CAM (arXiv:1610.02391) otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Unpack

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.class_names import find_class
from keras_effnet.data.photos import Content, NamedPhoto, Photo, named, several
from keras_effnet.errors import at_least_one
from keras_effnet.images import Box
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.head_finder import Head, find_head, kernel, run, to_numpy
from keras_effnet.inference.labels import ModelOptions


@dataclass(frozen=True)
class ActivationMap:
    """How much each position of a feature map contributes to the score of a class.

    Args:
        wnid: wnid of the class; None for classes outside ImageNet.
        label: label of the class.
        score: probability of the class.
        values: float32 of shape (rows, columns); positive values support the class, negative ones oppose it. With
            method "CAM", their mean plus the classifier's bias is the logit.
        box: the part of the photo that the map covers: left, top, right and bottom in pixels.
    """

    wnid: str | None
    label: str
    score: float
    values: np.ndarray
    box: Box

    @property
    def centre(self) -> tuple[float, float] | None:
        """Centre of mass (x, y) of the positive values, in pixels of the photo; None without positive values."""
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
        path: the path or name of the photo.
        maps: one map per class.
        photo: the part of the photo that the model received, uint8 (side, side, 3) at the photo's own resolution.
        method: "CAM" (exact) or "Grad-CAM".
        layer: name of the layer with the feature map.
        error: why there are no maps, otherwise None.
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
    **options: Unpack[ModelOptions],
) -> Iterator[Explanation]:
    """Compute class activation maps: how much each part of an image contributes to a class.

    A model that ends in average pooling and a dense layer is explained exactly (CAM), others by gradients (Grad-CAM).
    For an unreadable photo, the `Explanation` contains its error.

    Args:
        model: a network's name, the path of a saved model, a `Classifier`, or a functional or sequential Keras model
            that classifies square RGB images.
        images: paths, bytes of files, open files, uint8 arrays (height, width, 3), Pillow images, or pairs (name,
            image); a list of these or a single one.
        classes: the classes to explain, each as index, label or wnid.
        top: without `classes`, the number of top classes to explain.
        layer: name of a layer, possibly in a nested model, whose feature map is explained with Grad-CAM.
        **options: `labels`, `size`, `crop` and `decode` of the model, as in `ModelOptions`.

    Returns:
        An iterator with one `Explanation` per image, in order.

    Raises:
        ValueError: the class or layer does not exist, `top` is below 1, or the model has no classifier or feature map.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> [result] = explain(load_classifier("lite0"), [("coffee", sample("coffee"))])
        >>> result.method, result.maps[0].label, result.maps[0].values.shape
        ('CAM', 'espresso', (7, 7))
    """
    at_least_one(top=top)
    classifier = as_classifier(model, **options)
    head = find_head(classifier.model, layer)
    classifier.need_labels()
    names = [classes] if isinstance(classes, int | str) else classes or ()
    outputs = [find_class(name, classifier.classes) for name in names]
    photos = enumerate(several(images), 1)
    return (_explain(named(photo, number), classifier, head, outputs or top) for number, photo in photos)


def _explain(source: NamedPhoto, classifier: Classifier, head: Head, wanted: list[int] | int) -> Explanation:
    path = source.name
    try:
        photo = source.decode_for(classifier.view)
        pixels = classifier.view.pixels(photo)[None]
    except ValueError as error:
        return Explanation(path, error=source.describe(error))
    scores = classifier.scores(pixels)[0]
    if not np.isfinite(scores).all():
        return Explanation(
            path, error=f"The scores of {path!r} are NaN or infinite. Expected finite scores. Check the model."
        )
    outputs = np.argsort(scores)[-wanted:][::-1].tolist() if isinstance(wanted, int) else wanted
    inputs = classifier.inputs(pixels)
    left, top, right, bottom = box = classifier.view.box(*photo.shape[:2])
    maps = []
    for i, values in zip(outputs, _maps(classifier.model, inputs, head, outputs), strict=True):
        wnid, label = classifier.classes[i]
        maps.append(ActivationMap(wnid, label, float(scores[i]), values, box))
    seen = np.clip(photo[top:bottom, left:right], 0, 255).astype(np.uint8)
    return Explanation(path, tuple(maps), seen, "CAM" if head.exact else "Grad-CAM", head.layer.name)


def _maps(model: Any, image: np.ndarray, head: Head, outputs: list[int]) -> Iterable[np.ndarray]:
    if model.output_shape[-1] == 1:  # what supports the label opposes its opposite
        values = next(iter(_maps_of(model, image, head, [0])))
        return [values if i else -values for i in outputs]
    return _maps_of(model, image, head, outputs)


def _maps_of(model: Any, image: np.ndarray, head: Head, outputs: list[int]) -> Iterable[np.ndarray]:
    if not head.exact:
        return [_grad_cam(model, image, head, i) for i in outputs]
    features = to_numpy(run(model, image, head)[0])[0]
    return np.moveaxis(features @ kernel(head.classifier)[:, outputs], -1, 0)


def _grad_cam(model: Any, image: np.ndarray, head: Head, output: int) -> np.ndarray:
    """Sum of the channels, weighted by the mean gradient of the logit (equations 1 and 2, without the ReLU)."""
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
        function: maps a tensor like `zeros` to a scalar tensor.
        zeros: the point at which to differentiate, a tensor of the backend.
        backend: "jax", "tensorflow" or "torch".

    Returns:
        A tensor with the shape of `zeros`.

    Raises:
        ValueError: the backend has no gradients.
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
        f"Keras runs on the backend {backend!r}, which has no gradients, but Grad-CAM needs them. Expected jax, "
        "tensorflow or torch. Select one with the environment variable KERAS_BACKEND."
    )
