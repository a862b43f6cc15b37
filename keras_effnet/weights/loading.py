"""Loads published weights or a weight file into a model, strictly by name; nothing is skipped silently."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.introspection import find_network, framework_of_model, normalization_of, variant_of
from keras_effnet.layers import new_head_initializer
from keras_effnet.normalization import TENSORFLOW, Framework, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.fast_copy import save_fast_copy
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.frameworks import framework_of, normalization_of_layout
from keras_effnet.weights.formats.layer_names import HEAD, layer_names
from keras_effnet.weights.formats.other_formats import weight_file
from keras_effnet.weights.formats.preprocessing_files import stored_normalization
from keras_effnet.weights.published import find_weights, identify, is_set, locate

log = logging.getLogger("keras_effnet")


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
    if not is_set(variant.name, weights) and _exists(Path(weights)):
        path = weight_file(Path(weights))
        record = identify(path)
        checkpoint = read_checkpoint(path, variant, ema=ema)
    else:
        record = find_weights(variant.name, str(weights))
        path = locate(record, include_top=include_top, original=not ema)
        checkpoint = read_checkpoint(path, variant, ema=ema)
        if ema:
            save_fast_copy(record, path, checkpoint)
    # All published sets were trained with TensorFlow, whoever converted them.
    asked = framework if record is None else framework or TENSORFLOW.name
    found = framework_of(path, checkpoint.layout, variant, asked, checkpoint.framework)
    normalization = checkpoint.normalization or (record and record.normalization)
    normalization = normalization or _read_normalization(path, checkpoint.layout, found, variant)
    return Pretrained(path, checkpoint.state, normalization, found)


def _read_normalization(path: Path, layout: str, framework: Framework, variant: Variant) -> Normalization:
    """The normalisation of a file that is not a published one; a guess is logged."""
    if found := stored_normalization(path, layout, variant):
        return found
    usual = normalization_of_layout(layout, framework, variant)
    if layout in ("lukemelas", "timm", "transformers"):
        log.warning(
            "%s does not specify how its pixels are normalised. Assumed mean %s and standard deviation %s, in pixel "
            "values 0..255. Put the library's configuration next to the file (timm: config.json, transformers: "
            "preprocessor_config.json); or build with include_preprocessing=False and normalise the images yourself.",
            path,
            *(", ".join(f"{value:g}" for value in values) for values in (usual.mean, usual.std)),
        )
    return usual


def _exists(path: Path) -> bool:
    # The prefix of a TensorFlow checkpoint is not itself a file.
    return path.exists() or path.with_name(path.name + ".index").is_file()


def load_weights(
    model: Any, weights: str | os.PathLike[str], *, framework: str | None = None, ema: bool = True
) -> None:
    """Load weights into a model that is already built, by name and strictly.

    Args:
        model: an EfficientNet of this package, possibly nested in another model.
        weights: the path of a file in any known format, or the name of a published set.
        framework: "tensorflow" or "pytorch", if the file is ambiguous.
        ema: read the moving averages of a TensorFlow checkpoint; False reads the raw weights.

    Raises:
        WeightsError: the file cannot be read, does not fit the model, or was trained with a different padding, epsilon
            or normalisation.

    Example:
        >>> import keras_effnet
        >>> load_weights(keras_effnet.EfficientNetLite0(weights=None), "imagenet")
    """
    network = find_network(model)
    variant = variant_of(network)
    names = set(layer_names(variant).values())
    layers = [layer for layer in network.layers if layer.name in names]
    include_top = any(layer.name == "predictions" for layer in layers)
    pretrained = open_weights(variant, weights, include_top=include_top, framework=framework, ema=ema)
    _compare_graphs(pretrained, framework_of_model(network), normalization_of(network))
    put(pretrained, layers)


def _compare_graphs(pretrained: Pretrained, framework: Framework, normalization: Normalization | None) -> None:
    """Reject weights that were trained with another padding, epsilon or normalisation than the model has."""
    faults = []
    if framework != pretrained.framework:
        faults.append(f"expect {pretrained.framework}, the model has {framework}")
    if normalization is not None and not normalization.close_to(pretrained.normalization):
        faults.append(f"expect {pretrained.normalization}, the model has {normalization}")
    if faults:
        raise WeightsError(
            f"The weights in {pretrained.origin} {' and '.join(faults)}. Expected a model with the same conventions. "
            f"Build it with weights={str(pretrained.origin)!r}, which sets both."
        )


def put(pretrained: Pretrained, layers: Iterable[Any], *, new_head: bool = False) -> None:
    """Assign weights to the variables of layers, by name.

    Args:
        pretrained: the result of `open_weights`.
        layers: all Keras layers of the network.
        new_head: initialise the classifier so that all classes are equally likely, instead of loading it.

    Raises:
        WeightsError: names or shapes differ; the message lists missing, unexpected and reshaped variables.
    """
    variables = dict(named_variables(layers))
    state = {name: value for name, value in pretrained.state.items() if _wanted(name, variables)}
    if new_head:
        state |= _draw_head(variables)
    if "stem_conv/kernel" in state and "stem_conv/kernel" in variables:
        channels = variables["stem_conv/kernel"].shape[2]
        state["stem_conv/kernel"] = adapt_channels(state["stem_conv/kernel"], channels)
    _compare(pretrained.origin, state, variables)
    for name, variable in variables.items():
        variable.assign(state[name])


def named_variables(layers: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Every variable of some layers with its name, "layer/variable"."""
    for layer in layers:
        for variable in layer.weights:
            # "kernel" in Keras 3; "stem_conv/kernel:0" in tf_keras, and "depthwise_kernel" for depthwise layers.
            name = variable.name.rsplit("/", 1)[-1].removesuffix(":0").removeprefix("depthwise_")
            yield f"{layer.name}/{name}", variable


def _wanted(name: str, variables: Mapping[str, Any]) -> bool:
    """Whether a variable has to be in the model: only those of the head may be left over."""
    return name in variables or name.split("/")[0] not in HEAD


def _draw_head(variables: Mapping[str, Any]) -> dict[str, Any]:
    kernel, bias = variables["predictions/kernel"], variables["predictions/bias"]
    log.warning("The classifier is new and untrained: %d classes, all equally likely.", bias.shape[0])
    return {
        "predictions/kernel": new_head_initializer()(kernel.shape),
        "predictions/bias": np.zeros(bias.shape, np.float32),
    }


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapt a stem kernel to another number of input channels, as timm does: sum for one, otherwise repeat and scale.

    Args:
        kernel: float array (height, width, 3, filters).
        channels: number of input channels of the model.

    Example:
        >>> adapt_channels(np.ones((3, 3, 3, 32)), 1)[0, 0, 0, 0].item()
        3.0
    """
    given = kernel.shape[2]
    if channels == given:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeated = np.tile(kernel, (1, 1, -(-channels // given), 1))[:, :, :channels]
    return repeated * (given / channels)


def _compare(origin: Path, state: Mapping[str, Any], variables: Mapping[str, Any]) -> None:
    missing = sorted(variables.keys() - state.keys())
    unexpected = sorted(state.keys() - variables.keys())
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in state and tuple(state[name].shape) != tuple(variable.shape)
    ]
    bias = "predictions/bias"
    if not missing and not unexpected and reshaped and all(name.startswith("predictions/") for name in reshaped):
        classes, outputs = len(state[bias]), variables[bias].shape[0]
        if classes != outputs:
            raise WeightsError(
                f"The weights in {origin} are of {classes} classes, the model has {outputs}. Expected the same number. "
                f"In Python, build the model with classes={classes}. On the command line, save the whole model "
                "(model.save) and pass it, or the folder of its training run, as --model."
            )
    faults = {"missing": missing, "unexpected": unexpected, "with another shape": reshaped}
    if any(faults.values()):
        lists = "; ".join(f"{len(names)} {what}: {_shorten(names)}" for what, names in faults.items() if names)
        raise WeightsError(
            f"The weights in {origin} do not fit the model: {lists}. Expected the same layers with the same shapes. "
            "Choose the variant of the file; pass classes= for another number of classes, or include_top=False for a "
            "file without a classifier."
        )


def _shorten(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
