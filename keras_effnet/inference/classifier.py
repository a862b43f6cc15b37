"""A model and the meaning of its outputs: a network by name, or a saved model with its labels."""

import inspect
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_effnet.artifacts import MODEL
from keras_effnet.center_crop import CROPS, DECODES, View
from keras_effnet.data.class_names import Classes
from keras_effnet.errors import check_choice, counted
from keras_effnet.forks import check_fork
from keras_effnet.imagenet import CLASS_INDEXES
from keras_effnet.inference.labels import (
    Labels,
    ModelOptions,
    as_classes,
    default_classes,
    fit_labels,
    read_classes,
    unlabelled,
)
from keras_effnet.inference.model_files import read_model
from keras_effnet.introspection import crop_of
from keras_effnet.variants import VARIANTS, find_variant

if TYPE_CHECKING:
    from keras_effnet.inference.outputs import Outputs
    from keras_effnet.normalization import Normalization


@dataclass(frozen=True)
class Classifier:
    """A Keras model, the meaning of its outputs and the size of its images.

    Args:
        model: maps images (batch, size, size, 3) to scores (batch, classes).
        classes: (wnid or None, label) of each output, or only its label. A single probability has one label, or two:
            the label of its opposite first. None of a model that returns features.
        size: side of the images in pixels.
        name: the name or the path by which the model was loaded.
        weights: the weight set or weight file of a network by name; None for a saved model.
        crop: "center" for the central square of each photo, None for the whole photo, resized to a square without
            keeping its aspect ratio; by default what the network was evaluated with.
        decode: "exact", or "fast" for smaller decoding of large JPEG files, as in `ImageOptions`.

    Raises:
        ValueError: there are more or fewer labels than outputs.
    """

    model: Any
    classes: Classes
    size: int
    name: str = ""
    weights: str | None = None
    crop: str | None = "auto"
    decode: str = "exact"

    def __post_init__(self) -> None:
        check_choice("crop", self.crop, ("auto", *CROPS))
        check_choice("decode", self.decode, DECODES)
        if self.crop == "auto":
            object.__setattr__(self, "crop", crop_of(self.model))
        pairs = as_classes(self.classes)
        shape = getattr(self.model, "output_shape", None)
        if pairs and isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[1], int):
            pairs = fit_labels(pairs, shape[1], self.name or self.model.name)
        object.__setattr__(self, "classes", pairs)

    def __repr__(self) -> str:
        names = [label for _, label in self.classes[:3]]
        labels = f"{counted(len(self.classes), 'class')}: {', '.join(names)}{', ...' if len(self.classes) > 3 else ''}"
        return (
            f"Classifier({self.name or self.model.name!r}, {self.size} x {self.size} pixels, "
            f"{labels if names else 'features'})"
        )

    @property
    def view(self) -> View:
        """How a photo becomes an image of the model."""
        return View(self.size, self.crop, self.decode)

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """The model's inputs, of images (batch, size, size, 3) with pixels 0..255."""
        if self.normalization is None:
            return images
        scale, offset = (np.array(row, np.float32) for row in (self.normalization.scale, self.normalization.offset))
        return (images * scale + offset).astype(np.float32)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 of shape (batch, classes), of images (batch, size, size, 3) with pixels 0..255."""
        check_fork()
        return self.outputs.to_scores(self.model.predict_on_batch(self.inputs(images)))

    @cached_property
    def normalization(self) -> "Normalization | None":
        """How pixels 0..255 are normalised before the model; None if it takes pixels 0..255."""
        from keras_effnet.inference.pixels import input_normalization

        return input_normalization(self.model)

    @cached_property
    def outputs(self) -> "Outputs":
        """What the model returns: probabilities, logits, a single number of either, or features."""
        from keras_effnet.inference.outputs import outputs_of

        return outputs_of(self.model, labelled=bool(self.classes))

    def need_labels(self) -> None:
        """Refuse a model that returns features.

        Raises:
            ValueError: the model has no labels.
        """
        if not self.classes:
            raise unlabelled(self.name or self.model.name, self.model.output_shape[1])


def load_classifier(
    model: str | os.PathLike[str],
    weights: str | None = None,
    *,
    labels: Labels | None = None,
    size: int | None = None,
    crop: str | None = "auto",
    decode: str | None = None,
) -> Classifier:
    """Build a pretrained network by name, or load a saved model.

    Args:
        model: "lite0", "b0", "EfficientNetB0", ..., or the path of a `.keras` or `.h5` file or of a folder with a
            model.keras.
        weights: the name of a weight set or the path of a weight file, for a network by name; by default the best
            published set.
        labels, size, crop, decode: as in `ModelOptions`.

    Raises:
        ValueError: the network or the file does not exist, the model does not take square RGB images, or the labels or
            the size do not fit it.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit.

    Example:
        >>> load_classifier("lite0").size
        224
    """
    check_fork()
    options: ModelOptions = {"labels": labels, "size": size, "crop": crop, "decode": decode}
    path = Path(model)
    if str(model) not in VARIANTS and (path / MODEL).is_file():  # the folder of a fine-tuning run
        path /= MODEL
    if path.suffix or len(path.parts) > 1:
        return _load_saved(path, weights, options)
    return _build(str(model), weights, options)


def _build(name: str, weights: str | None, options: ModelOptions) -> Classifier:
    """A network by name, for images of its resolution or of another size."""
    from keras_effnet import models
    from keras_effnet.inference.pixels import log_other_views, network_size

    variant = find_variant(name)
    builder = getattr(models, variant.builder)
    if weights is None:
        weights = inspect.signature(builder).parameters["weights"].default
    size = network_size(name, weights, options.get("size"))
    shape = {} if size == variant.resolution else {"input_shape": (size, size, 3)}
    found = _changed(as_classifier(builder(weights=weights, **shape), **options), name=name, weights=weights)
    log_other_views(weights, found.view)
    return found


def _load_saved(path: Path, weights: str | None, options: ModelOptions) -> Classifier:
    if weights is not None:
        raise ValueError(
            f"weights is {weights!r}, but the saved model {str(path)!r} has its own weights. Expected None. Leave "
            f"weights out, or name a network: {', '.join(VARIANTS)}."
        )
    network = read_model(path)
    if options.get("labels") is None:
        options["labels"] = read_classes(path.parent)
    return _changed(as_classifier(network, **options), name=str(path))


def as_classifier(
    model: Any,
    labels: Labels | None = None,
    *,
    size: int | None = None,
    crop: str | None = "auto",
    decode: str | None = None,
) -> Classifier:
    """Combine a Keras model with its labels, by default ImageNet's.

    A classifier with another number of classes has their indices as labels; a model that does not end in a classifier
    returns features and has no labels. A name or a path is loaded by `load_classifier`.

    Args:
        model: a Keras model, a `Classifier`, or an argument of `load_classifier`.
        labels, size, crop, decode: as in `ModelOptions`.

    Raises:
        ValueError: the model does not take square RGB images, has another number of outputs than labels, or returns a
            single logit without labels.
    """
    check_fork()
    if isinstance(model, Classifier):
        return _with_options(model, labels, size=size, crop=crop, decode=decode)
    if isinstance(model, str | os.PathLike):
        return load_classifier(model, labels=labels, size=size, crop=crop, decode=decode)
    if not hasattr(model, "output_shape"):
        raise ValueError(
            f"The model is {model!r}. Expected a Keras model, a Classifier, the name of a network or the path of a "
            "model."
        )
    from keras_effnet.inference.outputs import outputs_of
    from keras_effnet.inference.pixels import image_size

    count = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
    outputs = outputs_of(model, labelled=labels is not None or count in CLASS_INDEXES)
    side = image_size(model, size)
    classes: Classes = ()
    if labels is not None:
        classes = as_classes(labels)
    elif not outputs.features:
        classes = default_classes(outputs.count)
    found = Classifier(model, classes, side, crop=crop, decode=decode or "exact")
    vars(found)["outputs"] = outputs
    return found


def _with_options(
    classifier: Classifier, labels: Labels | None, *, size: int | None, crop: str | None, decode: str | None
) -> Classifier:
    """A classifier with other options; the classifier itself if nothing changes."""
    changes: dict[str, Any] = {}
    if labels is not None:
        changes["classes"] = as_classes(labels)
    if size not in (None, classifier.size):
        from keras_effnet.inference.pixels import image_size

        changes["size"] = image_size(classifier.model, size)
    if crop not in ("auto", classifier.crop):
        changes["crop"] = crop
    if decode not in (None, classifier.decode):
        changes["decode"] = decode
    return _changed(classifier, **changes) if changes else classifier


def _changed(classifier: Classifier, **changes: Any) -> Classifier:
    """A changed copy that keeps what was found out about the model, so that nothing is logged twice."""
    found = replace(classifier, **changes)
    known = {"outputs", "normalization"} if bool(found.classes) == bool(classifier.classes) else {"normalization"}
    vars(found).update({key: value for key, value in vars(classifier).items() if key in known})
    return found
