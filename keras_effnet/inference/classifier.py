"""A model and the meaning of its outputs: a network by name, or a saved model with its labels."""

import inspect
import logging
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.artifacts import LABELS, MODEL
from keras_effnet.data.class_names import Classes
from keras_effnet.errors import check_choice, counted, first_line
from keras_effnet.forks import check_fork
from keras_effnet.imagenet import CLASS_INDEXES, class_index, normalize
from keras_effnet.images import CROPS, View
from keras_effnet.introspection import crop_of
from keras_effnet.variants import VARIANTS, find_variant

log = logging.getLogger("keras_effnet")


@dataclass(frozen=True)
class Classifier:
    """A Keras model, the meaning of its outputs and the size of its images.

    Args:
        model: maps images (batch, size, size, 3) to scores (batch, classes).
        classes: (wnid or None, label) of each output, or only its label.
        size: side of the images in pixels.
        name: the name or the path by which the model was loaded.
        weights: the weight set or weight file of a network by name; None for a saved model.
        crop: "center" for the central square of each photo, None for the whole photo, resized to a square without
            keeping its aspect ratio; by default what the network was evaluated with.
    """

    model: Any
    classes: Classes
    size: int
    name: str = ""
    weights: str | None = None
    crop: str | None = "auto"

    def __post_init__(self) -> None:
        pairs = tuple((None, name) if isinstance(name, str) else tuple(name) for name in self.classes)
        object.__setattr__(self, "classes", pairs)
        check_choice("crop", self.crop, ("auto", *CROPS))
        if self.crop == "auto":
            object.__setattr__(self, "crop", crop_of(self.model))

    @property
    def view(self) -> View:
        """The pixels of each photo that the model gets."""
        return View(self.size, self.crop)

    def __repr__(self) -> str:
        names = [label for _, label in self.classes[:3]]
        return (
            f"Classifier({self.name or self.model.name!r}, {self.size} x {self.size} pixels, {len(self.classes)} "
            f"classes: {', '.join(names)}{', ...' if len(self.classes) > 3 else ''})"
        )

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 of shape (batch, classes), of images (batch, size, size, 3) with pixels 0..255."""
        check_fork()
        pixels = normalize(images, "channels_last", model=self.model)
        outputs = np.asarray(self.model.predict_on_batch(pixels), dtype=np.float32)
        return _softmax(outputs) if self.gives_logits else outputs

    @cached_property
    def gives_logits(self) -> bool:
        """Whether the outputs are logits rather than probabilities."""
        from keras_effnet.inference.head_finder import gives_logits

        found = gives_logits(self.model)
        if found:
            log.warning(
                "The outputs of the model %r are not probabilities: they are taken for logits, and a softmax is "
                "applied. For another kind of output, call the model itself.",
                self.name or self.model.name,
            )
        return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def load_classifier(model: str | os.PathLike[str], weights: str | None = None) -> Classifier:
    """Build a pretrained network by name, or load a saved model.

    Args:
        model: "lite0", "b0", "EfficientNetB0", ..., or the path of a `.keras` or `.h5` file or of a folder with a
            model.keras. The labels of a saved model are the lines of the file labels.txt in the same folder. Without
            that file they are ImageNet's, or the indices of other classes.
        weights: the name of a weight set or the path of a weight file, for a network by name; by default the best
            published set.

    Raises:
        ValueError: the network or the file does not exist, or the model does not classify images.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit.

    Example:
        >>> load_classifier("lite0").size
        224
    """
    check_fork()
    path = Path(model)
    if str(model) not in VARIANTS and (path / MODEL).is_file():  # the folder of a fine-tuning run
        path /= MODEL
    if path.suffix or len(path.parts) > 1:
        return _load_saved(path, weights)
    name = find_variant(str(model)).builder
    from keras_effnet import models

    builder = getattr(models, name)
    if weights is None:
        weights = inspect.signature(builder).parameters["weights"].default
    return replace(as_classifier(builder(weights=weights)), name=str(model), weights=weights)


def _load_saved(path: Path, weights: str | None) -> Classifier:
    if weights is not None:
        raise ValueError(
            f"weights is {weights!r}, but the saved model {str(path)!r} has its own weights. Expected None. Leave "
            f"weights out, or name a network: {', '.join(VARIANTS)}."
        )
    _check_saved(path)
    from keras_effnet._keras import keras

    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types; its messages contain whole configs
        raise ValueError(
            f"The model {str(path)!r} cannot be loaded: {first_line(error)} Expected a whole model "
            "without custom code. Save the model again with this version of Keras; or load only its weights into a "
            f"network by name: weights={str(path)!r}, or --weights on the command line."
        ) from error
    return replace(as_classifier(network, read_classes(path.parent)), name=str(path))


def _check_saved(path: Path) -> None:
    """Reject paths that are not whole Keras models; "there is no model" is only said where there is nothing."""
    if not path.exists():
        raise ValueError(
            f"There is no model {str(path)!r}. Expected one of {', '.join(VARIANTS)}, or the path of a .keras file. "
            "Choose one of these, or save a model with model.save('name.keras')."
        )
    if path.is_dir() or path.suffix not in (".keras", ".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise ValueError(
            f"The model {str(path)!r} is not a whole Keras model. Expected a .keras or .h5 file of model.save(). Load "
            "a weight file into a network by name: weights=, or --weights on the command line. Exported models "
            "(.tflite, .onnx, SavedModel) are run by Predictor and keras-effnet classify."
        )


def read_classes(folder: Path) -> Classes | None:
    """The classes of a saved model: the lines of labels.txt in its folder. None if there is no such file."""
    file = folder / LABELS
    if not file.is_file():
        return None
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The file {str(file)!r} is not UTF-8 at byte {error.start}. Expected one label per line. Save it as UTF-8."
        ) from error
    # Not splitlines(): it also splits at characters that can occur in a label.
    return tuple((None, line.strip()) for line in text.split("\n") if line.strip())


def as_classifier(model: Any, classes: Classes | None = None) -> Classifier:
    """Combine a Keras model with its classes, by default ImageNet's.

    A classifier with another number of classes has their indices as labels. A name or a path is loaded by
    `load_classifier`.

    Raises:
        ValueError: the model does not classify square RGB images, has another number of classes, or returns a single
            logit.
    """
    check_fork()
    if isinstance(model, Classifier):
        return model
    if isinstance(model, str | os.PathLike):
        return load_classifier(model)
    if not hasattr(model, "output_shape"):
        raise ValueError(
            f"The model is {model!r}. Expected a Keras model, a Classifier, the name of a network or the path of a "
            "model."
        )
    outputs = model.output_shape
    if not isinstance(outputs, tuple) or len(outputs) != 2 or not isinstance(outputs[1], int):
        raise ValueError(
            f"The model {model.name!r} has outputs of shape {outputs}. Expected one output (batch, classes). Pass a "
            "model with a classifier (include_top=True)."
        )
    if classes is None:
        classes = _default_classes(model, outputs[1])
    if len(classes) != outputs[1]:
        raise ValueError(
            f"The model {model.name!r} has {counted(outputs[1], 'class')}, but there are {len(classes)} labels. "
            "Expected one label per class. "
            "Write one label per line to labels.txt in the folder of the saved model; or pass "
            "keras_effnet.inference.classifier.Classifier(model, classes, size), where classes are the labels."
        )
    classifier = Classifier(model, classes, _image_size(model))
    if len(classes) == 1 and classifier.gives_logits:
        raise ValueError(
            f"The model {model.name!r} returns a single logit, and the softmax of a single class is always 1. Expected "
            "a probability, or one output for each of two classes. End the model with activation='sigmoid'."
        )
    return classifier


def _default_classes(model: Any, count: int) -> Classes:
    """ImageNet's classes; a classifier with another number of outputs has their indices as labels."""
    from keras_effnet.inference.head_finder import ends_in_classifier

    if count not in CLASS_INDEXES and ends_in_classifier(model):
        return tuple((None, str(i)) for i in range(count))
    return class_index(count if count in CLASS_INDEXES else 1000)


def _image_size(model: Any) -> int:
    shape = model.input_shape
    if isinstance(shape, tuple) and len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3:
        if shape[1] is not None:
            return shape[1]
        try:
            return find_variant(model.name).resolution
        except ValueError:
            pass
    raise ValueError(
        f"The model {model.name!r} takes images of shape {shape}. Expected square RGB images of one size, such as "
        "(None, 224, 224, 3). Build it with such an input_shape."
    )
