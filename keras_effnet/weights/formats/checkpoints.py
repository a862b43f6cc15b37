"""Reads published weights of any library into one form: the layer names of keras.applications, the layout of Keras."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import Framework, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.google_checkpoints import is_tf_checkpoint, read_tf_checkpoint
from keras_effnet.weights.formats.keras_config import framework_in, normalization_in
from keras_effnet.weights.formats.keras_h5 import SIGNATURE, H5File
from keras_effnet.weights.formats.keras_names import as_published, read_statistics, rename_keras
from keras_effnet.weights.formats.layer_names import TORCH_LAYOUTS, from_torch, layer_names, not_understood, torch_axes
from keras_effnet.weights.formats.safetensors import read_safetensors
from keras_effnet.weights.formats.torch_files import ZIP_MAGIC, broken, read_legacy, read_member, read_zip

KERAS_MEMBER = "model.weights.h5"

OWN_MARK = "stem_conv/kernel"


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Args:
        state: "layer/variable" -> float32 array, in the names of keras.applications and the layout of Keras; possibly
            read-only views of the file.
        layout: whose names the file had: "keras-h5", "keras-weights" (.weights.h5), "keras" (.keras), "tensorflow",
            "timm", "torchvision", "lukemelas", "transformers" or "flat" (the form that the cache keeps).
        normalization: what the file itself says of its pixels; None if nothing.
        framework: what the file itself says of padding and epsilon; None if nothing.
    """

    state: Mapping[str, np.ndarray]
    layout: str
    normalization: Normalization | None = None
    framework: Framework | None = None


def read_checkpoint(path: str | PathLike[str], variant: Variant, *, ema: bool = True) -> Checkpoint:
    """Read the weights of a network from a file of any known format, recognised by its content.

    Args:
        path: an HDF5, .keras, PyTorch or safetensors file; or a TensorFlow checkpoint: its folder, its prefix without
            ".index", or a .tar.gz.
        variant: the network that the weights are of; it says which stage a block belongs to.
        ema: of a TensorFlow checkpoint take the averages, which the published accuracies are of.

    Raises:
        WeightsError: the file cannot be read, is of another network, or holds what is not understood; lists that.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> read_checkpoint("efficientnet-lite0-57934424.pth", VARIANTS["lite0"]).layout  # doctest: +SKIP
        'lukemelas'
    """
    path = Path(path)
    try:
        return _check(_read(path, variant, ema))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:
        # Whatever a damaged file trips over, the caller gets one kind of error.
        raise WeightsError(f"{path}: {broken(error)}") from error


def _read(path: Path, variant: Variant, ema: bool) -> Checkpoint:
    if is_tf_checkpoint(path):
        return Checkpoint(read_tf_checkpoint(path, variant, ema=ema), "tensorflow")
    with path.open("rb") as opened:
        start = opened.read(16)
    if start.startswith(ZIP_MAGIC):
        with zipfile.ZipFile(path) as archive:
            if KERAS_MEMBER in archive.namelist():
                file = H5File(read_member(archive, KERAS_MEMBER))
                return _keras(file, variant, "keras", json.loads(read_member(archive, "config.json")))
            return _peer(read_zip(archive), variant)
    if start.startswith(SIGNATURE):
        file = H5File(path.read_bytes())
        by_class = any(name.startswith(("layers/", "_layer_checkpoint_dependencies/")) for name in file.datasets)
        config = json.loads(file.attributes.get("", {}).get("model_config", "null"))
        return _keras(file, variant, "keras-weights" if by_class else "keras-h5", config)
    # The length before safetensors' brace may begin as a pickle does, so the brace is looked for first.
    if start[8:9] == b"{":
        tensors, notes = read_safetensors(path.read_bytes())
        return _flat(tensors, notes) if OWN_MARK in tensors else _peer(tensors, variant)
    if start.startswith(b"\x80"):
        return _peer(read_legacy(path.read_bytes()), variant)
    raise WeightsError(
        f"The file starts with {start!r}, which no known format does. Expected HDF5 (.h5, .weights.h5), .keras, "
        "PyTorch (.pth, .pt, .bin) or .safetensors. Give another file, or fetch it again: a page in its place is what "
        "some servers send instead of an error."
    )


def _keras(file: H5File, variant: Variant, layout: str, config: Any) -> Checkpoint:
    datasets = rename_keras(file, variant)
    statistics = read_statistics(file)
    # A model that says what it does to its pixels is believed; weights alone are taken as they are published.
    whole = isinstance(config, dict)
    normalization = normalization_in(config, statistics) if whole else None
    if normalization is None and statistics is not None:
        normalization = as_published(*statistics)
    state = {name: dataset.read() for name, dataset in datasets.items()}
    return Checkpoint(state, layout, normalization, framework_in(config) if whole else None)


def _flat(tensors: dict[str, np.ndarray], notes: Mapping[str, str]) -> Checkpoint:
    """A file that the cache keeps, or a copy of one: names and axes are ours, and it says its normalisation."""
    normalization = None
    if "normalization" in notes:
        mean, std = (tuple(map(float, row)) for row in json.loads(notes["normalization"]))
        normalization = Normalization(mean, std)
        if len(mean) != len(std) or not all(map(math.isfinite, mean)) or not all(0 < each < math.inf for each in std):
            raise WeightsError(
                f"The file says {normalization}. Expected a finite mean and a positive deviation a channel. It was "
                "altered: delete it, and the original is read."
            )
    return Checkpoint(tensors, "flat", normalization)


def _peer(tensors: dict[str, np.ndarray], variant: Variant) -> Checkpoint:
    """The tensors of another library, renamed and transposed."""
    layout = next(
        (name for name, (mark, prefix) in TORCH_LAYOUTS.items() if {mark, prefix + mark} & tensors.keys()), None
    )
    if layout is None:
        raise WeightsError(
            f"The names in the file, {', '.join(list(tensors)[:5])[:300]}, are of no library known here. Expected "
            f"those of {', '.join(TORCH_LAYOUTS)}. Rename them, or give another file."
        )
    prefix = TORCH_LAYOUTS[layout][1]
    names = layer_names(variant, layout)
    layers, state, unknown = set(), {}, []
    for name, tensor in tensors.items():
        layer, _, variable = name.removeprefix(prefix).rpartition(".")
        layers.add(layer)
        ours = names.get(layer, "")
        known = from_torch(ours, variable) if ours else None
        if known:
            state[f"{ours}/{known}"] = _to_keras(ours, tensor) if known == "kernel" else tensor
        elif variable != "num_batches_tracked":
            unknown.append(name)
    if unknown:
        raise WeightsError(not_understood(unknown, layers, variant, layout))
    return Checkpoint(state, layout)


def _to_keras(layer: str, kernel: np.ndarray) -> np.ndarray:
    """A PyTorch kernel with its axes in Keras's order."""
    axes = torch_axes(layer)
    if kernel.ndim != len(axes):
        raise WeightsError(
            f"The kernel of {layer} has the shape {kernel.shape}. Expected {len(axes)} dimensions. The file is not an "
            "EfficientNet."
        )
    return kernel.transpose(np.argsort(axes).tolist())


def _check(checkpoint: Checkpoint) -> Checkpoint:
    """The same with float32 arrays, once every number was found to be one."""
    state, bad = {}, []
    for name, array in checkpoint.state.items():
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
        if array.dtype.kind == "f" and np.isfinite(array).all():
            state[name] = array
        else:
            bad.append(f"{name} ({array.dtype})")
    if bad or not state:
        raise WeightsError(
            f"Of the {len(checkpoint.state)} arrays in the file, {len(bad)} are no finite floats: "
            f"{', '.join(bad[:5])}. Expected finite weights. Whoever trained or wrote the file has to save it anew."
        )
    return replace(checkpoint, state=state)
