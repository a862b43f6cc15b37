"""Saves the weights of a model in the file formats of other libraries."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.artifacts import staged
from keras_effnet.errors import WeightsError
from keras_effnet.introspection import find_network, framework_of_model, normalization_of, variant_of
from keras_effnet.normalization import PYTORCH, ZERO_TO_ONE, Normalization
from keras_effnet.scaling import is_depthwise
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.frameworks import framework_of_layout
from keras_effnet.weights.formats.layer_names import (
    TORCH_LAYOUTS,
    TORCH_VARIABLES,
    kind_of,
    layer_names,
    torch_axes,
    variables,
)
from keras_effnet.weights.formats.safetensors import write_safetensors
from keras_effnet.weights.formats.torch_writer import write_torch
from keras_effnet.weights.loading import named_variables

LAYOUTS = ("keras.applications", *TORCH_LAYOUTS)


def save_weights(model: Any, path: str | os.PathLike[str], layout: str = "keras.applications") -> None:
    """Save the weights of a model so that another library can load them and computes the same outputs.

    Args:
        model: an EfficientNet of this package, possibly nested in another model.
        path: for "keras.applications", "*.weights.h5" (Keras 3, tf_keras) or "*.h5" (the older format), to be loaded
            into a model built with `weights=None`; for the other layouts, "*.pth" or "*.safetensors". Missing folders
            are created.
        layout: one of "keras.applications", "lukemelas", "timm", "torchvision", "transformers".

    Raises:
        WeightsError: the layout cannot reproduce the outputs, or the path has the wrong suffix.

    Example:
        >>> import tempfile, keras_effnet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(keras_effnet.EfficientNetB0(weights=None), f"{folder}/b0.safetensors", "timm")
    """
    path = Path(path)
    if layout not in LAYOUTS:
        raise WeightsError(f"layout is {layout!r}. Expected one of {', '.join(LAYOUTS)}.")
    suffixes = (".h5",) if layout == "keras.applications" else (".pth", ".safetensors")
    if path.suffix not in suffixes:
        raise WeightsError(
            f"path is {str(path)!r}. Expected a name that ends in {' or '.join(suffixes)} for the layout {layout!r}."
        )
    network = find_network(model)
    variant = variant_of(network)
    _check_framework(network, layout, variant)
    state = {name: np.asarray(variable.numpy(), np.float32) for name, variable in named_variables(network.layers)}
    ours = set(layer_names(variant).values())
    state = {name: value for name, value in state.items() if name.split("/")[0] in ours}
    if layout != "keras.applications":
        # timm's two kinds of models use the same names: the metadata record which kind this file is for.
        kind = "tf_" if framework_of_model(network).name == "tensorflow" else ""
        name = variant.builder.removeprefix("EfficientNet").lower()
        family = "efficientnetv2" if name.startswith("v2") else "efficientnet"
        metadata = {"architecture": f"{kind}{family}_{name.removeprefix('v2')}"} if layout == "timm" else {}
        if normalization := normalization_of(network):
            metadata["normalization"] = json.dumps([normalization.mean, normalization.std])
        tensors = _renamed(state, variant, layout)
        with staged(path) as part:
            if path.suffix == ".pth":
                write_torch(part, tensors)
            else:
                write_safetensors(part, tensors, {"format": "pt", **metadata})
    else:
        normalization = normalization_of(network) or ZERO_TO_ONE
        _check_normalization(network, variant, normalization)
        write = _write_weights_h5 if path.name.endswith(".weights.h5") else _write_legacy_h5
        # In memory first: HDF5 aborts the process if the disk is full.
        file = io.BytesIO()
        write(file, state, variant, normalization)
        with staged(path) as part:
            part.write_bytes(file.getbuffer())


def _check_framework(network: Any, layout: str, variant: Variant) -> None:
    found, expected = framework_of_model(network), framework_of_layout(layout, variant)
    fits = found in (expected, PYTORCH) if layout == "timm" else found == expected
    if not fits:
        raise WeightsError(
            f"The model {network.name!r} has {found}, but models of {layout!r} have {expected}: the outputs would "
            "differ. Expected a layout with the same conventions. Choose 'timm', which supports both."
        )


def _check_normalization(network: Any, variant: Variant, normalization: Normalization) -> None:
    if not variant.keeps_normalization and not normalization.close_to(variant.normalization):
        raise WeightsError(
            f"The model {network.name!r} takes pixels with {normalization}, {variant.builder} of keras.applications "
            f"with {variant.normalization}. Expected the same. Save it with layout='timm'."
        )


# --- PyTorch's names and axes ---


def _renamed(state: Mapping[str, np.ndarray], variant: Variant, layout: str) -> dict[str, np.ndarray]:
    """The state dict of a library's model; the arrays are views."""
    prefix = TORCH_LAYOUTS[layout][1]
    theirs = {ours: name for name, ours in layer_names(variant, layout).items()}
    tensors = {}
    for key, value in state.items():
        layer, variable = key.split("/")
        place = "" if layer == "predictions" else prefix
        tensors[f"{place}{theirs[layer]}.{TORCH_VARIABLES[variable]}"] = (
            value.transpose(torch_axes(layer)) if variable == "kernel" else value
        )
        if variable == "moving_mean":
            # PyTorch also stores a batch count, without which strict loading fails.
            tensors[f"{place}{theirs[layer]}.num_batches_tracked"] = np.array(0, np.int64)
    return tensors


# --- Keras's files, with the layers of `keras.applications` built with weights=None ---


def _statistics(normalization: Normalization) -> list[np.ndarray]:
    """The variables of its Normalization layer: mean and variance after division by 255, and a count."""
    mean = np.array(normalization.mean, np.float32) / 255
    variance = np.square(np.array(normalization.std, np.float64) / 255).astype(np.float32)
    return [mean, variance, np.array(0, np.int32)]


def _in_order(state: Mapping[str, np.ndarray], variant: Variant, normalization: Normalization) -> dict[str, Any]:
    """Layer -> (variable names, arrays), in the order of the network, starting with the normalisation."""
    layers: dict[str, Any] = {}
    if variant.keeps_normalization:
        layers["normalization"] = ("mean", "variance", "count"), _statistics(normalization)
    for layer in layer_names(variant).values():
        if f"{layer}/{variables(layer)[0]}" in state:
            layers[layer] = variables(layer), [state[f"{layer}/{name}"] for name in variables(layer)]
    return layers


def _write_weights_h5(
    path: io.BytesIO, state: Mapping[str, np.ndarray], variant: Variant, normalization: Normalization
) -> None:
    import h5py

    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        file.create_group("vars")  # variables of the model itself: none, but tf_keras requires the group
        for layer, (_, arrays) in _in_order(state, variant, normalization).items():
            kind = layer if layer == "normalization" else kind_of(layer)
            number = counts[kind] = counts.get(kind, -1) + 1
            group = file.create_group(f"layers/{kind}_{number}/vars" if number else f"layers/{kind}/vars")
            group.attrs["name"] = layer
            for i, array in enumerate(arrays):
                group[str(i)] = array


def _write_legacy_h5(
    path: io.BytesIO, state: Mapping[str, np.ndarray], variant: Variant, normalization: Normalization
) -> None:
    import h5py

    layers = _in_order(state, variant, normalization)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer, (names, arrays) in layers.items():
            prefix = "depthwise_" if is_depthwise(layer) else ""
            paths = [f"{layer}/{prefix}{name}:0" for name in names]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in paths]
            for name, array in zip(paths, arrays, strict=True):
                group[name] = array
