"""Finds, checks and reads published weights or a weight file. Keras is not imported."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.normalization import TENSORFLOW, Framework, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.fast_copy import save_fast_copy
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.frameworks import framework_of, normalization_of_layout
from keras_effnet.weights.formats.preprocessing_files import stored_normalization
from keras_effnet.weights.published import find_file

log = logging.getLogger("keras_effnet")

# What specifies the normalisation of a file whose layout does not determine it.
_WAYS_OUT = {
    "keras-checkpoint": "Save the whole model with Keras instead (.keras or .h5)",
    "keras-hub": "Pass the preset folder with its preprocessor.json or image_converter.json",
    "lukemelas": "Pass the published file under its own name, or one that save_weights wrote",
    "timm": "Put timm's config.json next to the file",
    "transformers": "Put preprocessor_config.json of transformers next to the file",
}


@dataclass(frozen=True)
class Pretrained:
    """Weights that have been read but not yet loaded into a model.

    Args:
        origin: the file they were read from.
        state: "layer/variable" -> array, with the names of `keras.applications` and the axes of Keras.
        normalization: how pixels have to be normalised.
        framework: whose padding and epsilon the weights were trained with.
    """

    origin: Path
    state: Mapping[str, np.ndarray]
    normalization: Normalization
    framework: Framework = TENSORFLOW

    @property
    def classes(self) -> int | None:
        """Number of outputs of the classifier, None without a classifier."""
        bias = self.state.get("predictions/bias")
        return None if bias is None else len(bias)


def open_weights(
    variant: Variant,
    weights: str | os.PathLike[str],
    *,
    include_top: bool = True,
    framework: str | None = None,
    ema: bool = True,
) -> Pretrained:
    """Find, check and read weights given by the name of a set or by the path of a file.

    Args:
        variant: the network.
        weights: the name of a published set, or a path.
        include_top: whether the classifier is needed; if not, a smaller file may be used.
        framework: "tensorflow" or "pytorch", if the file is ambiguous.
        ema: read the moving averages of a TensorFlow checkpoint, to which the published accuracies refer.

    Raises:
        WeightsError: there is no such set or file, the download failed, or the file cannot be read.
    """
    file = find_file(variant.name, weights, include_top=include_top, original=not ema)
    checkpoint = read_checkpoint(file.path, variant, ema=ema)
    if file.record and file.original and ema:
        save_fast_copy(file.record, file.path, checkpoint)
    # All published sets were trained with TensorFlow, whoever converted them.
    asked = framework if file.record is None else framework or TENSORFLOW.name
    path = checkpoint.path
    found = framework_of(path, checkpoint.layout, variant, asked, checkpoint.framework)
    normalization = checkpoint.normalization or (file.record and file.record.normalization)
    normalization = normalization or _read_normalization(path, checkpoint.layout, found, variant)
    return Pretrained(path, checkpoint.state, normalization, found)


def _read_normalization(path: Path, layout: str, framework: Framework, variant: Variant) -> Normalization:
    """The normalisation of a file that is not a published one; a guess is logged."""
    if found := stored_normalization(path, layout, variant):
        return found
    usual = normalization_of_layout(layout, framework, variant)
    if layout in _WAYS_OUT:
        log.warning(
            "%s does not specify how its pixels are normalised. Assumed mean %s and standard deviation %s, in pixel "
            "values 0..255. %s; or build with include_preprocessing=False and normalise the images yourself.",
            path,
            *(", ".join(f"{value:g}" for value in values) for values in (usual.mean, usual.std)),
            _WAYS_OUT[layout],
        )
    return usual
