"""Loads published weights or a weight file into a model, strictly by name; nothing is skipped silently."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.introspection import find_network, framework_of_model, normalization_of, variant_of
from keras_effnet.layers import new_head_initializer
from keras_effnet.normalization import Framework, Normalization
from keras_effnet.weights.formats.layer_names import HEAD, layer_names
from keras_effnet.weights.opening import Pretrained, open_weights

__all__ = ["Pretrained", "adapt_channels", "load_weights", "named_variables", "open_weights", "put"]

log = logging.getLogger("keras_effnet")


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
        new_head: if the model has another number of classes than the weights and ImageNet, initialise its classifier so
            that all classes are equally likely, instead of loading it.

    Raises:
        WeightsError: names or shapes differ; the message lists missing, unexpected and reshaped variables.
    """
    variables = dict(named_variables(layers))
    state = {name: value for name, value in pretrained.state.items() if _wanted(name, variables)}
    if new_head and variables["predictions/bias"].shape[0] not in (1000, len(state.get("predictions/bias", ()))):
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
            "Choose the variant of the file. In Python, build the model with classes= for another number of classes, "
            "or with include_top=False for a file without a classifier."
        )


def _shorten(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
