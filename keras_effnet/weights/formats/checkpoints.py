"""Reads weight files of any library into one form: the layer names of keras.applications and the axes of Keras."""

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from keras_effnet.complexity import complexity
from keras_effnet.errors import WeightsError
from keras_effnet.normalization import Framework, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.checkpoint_files import GZIP_MAGIC, is_tf_checkpoint, open_bundle
from keras_effnet.weights.formats.google_checkpoints import STEM, read_google
from keras_effnet.weights.formats.keras_checkpoints import read_object_graph
from keras_effnet.weights.formats.keras_files import KerasFile, read_arrays, read_keras
from keras_effnet.weights.formats.keras_h5 import SIGNATURE
from keras_effnet.weights.formats.keras_hub import BACKBONE, TASK, find_preset, read_preset
from keras_effnet.weights.formats.layer_names import TORCH_LAYOUTS, from_torch, layer_names, torch_axes, unknown_names
from keras_effnet.weights.formats.other_formats import refuse_other_format, weight_file
from keras_effnet.weights.formats.safetensors import read_safetensors
from keras_effnet.weights.formats.torch_files import ZIP_MAGIC, broken, open_zip, read_member, read_torch

log = logging.getLogger("keras_effnet")

KERAS_MEMBER = "model.weights.h5"

OWN_MARK = "stem_conv/kernel"
# In the prefixes of names: a moving average of the weights.
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)")
# An archive may contain up to five copies of the network (weights, averages, optimizer slots), plus this many bytes.
COPIES, ROOM = 5, 64 << 20


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a weight file.

    Args:
        path: the file that was read; for a folder of `save_pretrained`, the weight file in it.
        state: "layer/variable" -> float32 array, with the names of keras.applications and the axes of Keras; possibly
            read-only views of the file.
        layout: the layout of the file: "keras-h5", "keras-weights" (.weights.h5), "keras" (.keras), "keras-checkpoint"
            (TensorFlow checkpoint or SavedModel of Keras), "keras-hub", "tensorflow" (official checkpoint), "timm",
            "torchvision", "lukemelas", "transformers" or "fast-copy" (safetensors file of the cache).
        normalization: how pixels have to be normalised, None if the file does not specify it.
        framework: padding and epsilon, None if the file does not specify them.
    """

    path: Path
    state: Mapping[str, np.ndarray]
    layout: str
    normalization: Normalization | None = None
    framework: Framework | None = None


def read_checkpoint(path: str | PathLike[str], variant: Variant, *, ema: bool = True) -> Checkpoint:
    """Read the weights of a network from a file of any known format, which is detected from the content.

    Args:
        path: an HDF5, .keras, PyTorch or safetensors file; a folder of `save_pretrained`; a SavedModel of Keras; a
            preset folder of KerasHub; or a TensorFlow checkpoint, of the official EfficientNet or of Keras: its folder,
            its prefix without ".index", or a .tar.gz.
        variant: the network; it determines the stage of each block.
        ema: read the moving averages of a TensorFlow checkpoint, to which the published accuracies refer.

    Raises:
        WeightsError: the file cannot be read, is of another network, or contains unknown variables.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> read_checkpoint("efficientnet-lite0-57934424.pth", VARIANTS["lite0"]).layout  # doctest: +SKIP
        'lukemelas'
    """
    path = weight_file(Path(path))
    try:
        return _check(_read(path, variant, ema))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:
        # Damaged files raise many kinds of errors; callers get one.
        raise WeightsError(f"{path}: {broken(error)}") from error


def _read(path: Path, variant: Variant, ema: bool) -> Checkpoint:
    if path.exists():
        refuse_other_format(path)
    may_be_preset = path.is_dir() or path.name in (BACKBONE, TASK)
    if may_be_preset and (folder := find_preset(path)):
        preset = read_preset(folder)
        return _keras(folder / BACKBONE, read_arrays(preset, variant, preset.config), "keras-hub")
    start = b""  # of a folder, and of the prefix of a TensorFlow checkpoint
    if path.is_file():
        with path.open("rb") as opened:
            start = opened.read(16)
    if start.startswith(SIGNATURE):
        file = read_keras(path.read_bytes(), variant)
        return _keras(path, file, file.layout)
    if is_tf_checkpoint(path) or start.startswith(GZIP_MAGIC):
        return _read_tensorflow(path, variant, ema)
    path.stat()  # raises an error if there is nothing
    if start.startswith(ZIP_MAGIC):
        with open_zip(path) as archive:
            if KERAS_MEMBER in archive.namelist():
                data = read_member(archive, KERAS_MEMBER)
                file = read_keras(data, variant, json.loads(read_member(archive, "config.json")))
                return _keras(path, file, "keras")
        return _convert_torch(path, read_torch(path), variant)
    # Check for safetensors' brace first: the length before it may look like the start of a pickle.
    if start[8:9] == b"{":
        tensors, metadata = read_safetensors(path.read_bytes())
        if OWN_MARK in tensors:
            return Checkpoint(path, tensors, "fast-copy", _stored_normalization(metadata))
        return _convert_torch(path, tensors, variant)
    if start.startswith(b"\x80"):
        return _convert_torch(path, read_torch(path), variant)
    raise WeightsError(
        f"The file starts with {start!r}, which is not a known format. Expected HDF5 (.h5, .weights.h5), .keras, "
        "PyTorch (.pth, .pt, .bin) or .safetensors. If it was downloaded, the server may have sent a web page instead."
    )


def _read_tensorflow(path: Path, variant: Variant, ema: bool) -> Checkpoint:
    with open_bundle(path, COPIES * 4 * complexity(variant).parameters + ROOM) as bundle:
        if any(name.endswith(STEM) for name in bundle.entries):
            return Checkpoint(path, read_google(bundle, variant, ema=ema), "tensorflow")
        return _keras(path, read_object_graph(bundle, variant), "keras-checkpoint")


def _keras(path: Path, file: KerasFile, layout: str) -> Checkpoint:
    layout = file.layout if file.layout == "keras-hub" else layout
    return Checkpoint(path, file.state, layout, file.normalization, file.framework)


def _stored_normalization(metadata: Mapping[str, str]) -> Normalization | None:
    """The normalisation in the metadata of a fast copy."""
    if "normalization" not in metadata:
        return None
    mean, std = (tuple(map(float, row)) for row in json.loads(metadata["normalization"]))
    normalization = Normalization(mean, std)
    if len(mean) != len(std) or not all(map(math.isfinite, mean)) or not all(0 < each < math.inf for each in std):
        raise WeightsError(
            f"The file has {normalization}. Expected a finite mean and a positive standard deviation per channel. "
            "The file was altered: delete it."
        )
    return normalization


def _convert_torch(path: Path, tensors: dict[str, np.ndarray], variant: Variant) -> Checkpoint:
    """Rename and transpose the tensors of a PyTorch library."""
    layout, base = _find_network(tensors)
    prefix = TORCH_LAYOUTS[layout][1]
    names = layer_names(variant, layout)
    layers, state, unknown, outside = set(), {}, [], []
    for name, tensor in tensors.items():
        if not name.startswith(base):
            outside.append(name)
            continue
        layer, _, variable = _without_padding(name, layout).removeprefix(base).removeprefix(prefix).rpartition(".")
        layers.add(layer)
        ours = names.get(layer, "")
        known = from_torch(ours, variable) if ours else None
        if known:
            state[f"{ours}/{known}"] = _to_keras(ours, tensor) if known == "kernel" else tensor
        elif variable != "num_batches_tracked":
            unknown.append(name)
    if unknown:
        raise WeightsError(unknown_names(unknown, layers, variant, layout))
    if outside:
        log.warning("Ignored %d arrays outside the network %r: %s.", len(outside), base, ", ".join(outside[:5])[:300])
    return Checkpoint(path, state, layout)


def _find_network(tensors: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """The layout of the network in a PyTorch file, and the prefix of its names where it is part of a larger model."""
    found = set()
    for name in tensors:
        for layout, (mark, prefix) in TORCH_LAYOUTS.items():
            plain = _without_padding(name, layout)
            if plain == mark or plain.endswith("." + mark):
                found.add((layout, plain.removesuffix(mark).removesuffix(prefix)))
    if not found:
        raise WeightsError(
            f"The names in the file are of an unknown library: {', '.join(list(tensors)[:5])[:300]}. Expected the "
            f"names of {', '.join(TORCH_LAYOUTS)}."
        )
    # Averaged weights come first, as in training checkpoints; a module that was registered twice is one network.
    averaged = [each for each in found if AVERAGED.search(each[1])]
    candidates = sorted(averaged if len(averaged) == 1 else found)
    first = candidates[0]
    if any(each[0] != first[0] or not _equal(tensors, first[1], each[1]) for each in candidates[1:]):
        bases = ", ".join(sorted(repr(base) for _, base in found))[:300]
        raise WeightsError(
            f"The file contains {len(found)} networks, with the prefixes {bases}. Expected one. Save the state_dict() "
            "of one of them."
        )
    return first


def _equal(tensors: Mapping[str, np.ndarray], base: str, other: str) -> bool:
    """Whether the tensors under two prefixes are the same."""
    one, two = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (base, other)
    )
    return one.keys() == two.keys() and all(np.array_equal(tensor, two[name]) for name, tensor in one.items())


def _without_padding(name: str, layout: str) -> str:
    """A name without the module that forks of lukemelas's library put around a convolution to pad it."""
    return re.sub(r"\.conv\.(weight|bias)$", r".\1", name) if layout == "lukemelas" else name


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
    """Convert all arrays to float32; reject NaN, infinities and other types."""
    state, bad = {}, []
    for name, array in checkpoint.state.items():
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
        if array.dtype.kind == "f" and np.isfinite(array).all():
            state[name] = array
        else:
            bad.append(f"{name} ({array.dtype})")
    if bad:
        raise WeightsError(
            f"{len(bad)} of the {len(checkpoint.state)} arrays in the file are not finite floats: "
            f"{', '.join(bad[:5])}. Expected finite weights."
        )
    if not state:
        raise WeightsError("The file contains no weights. Expected the layers of an EfficientNet.")
    return replace(checkpoint, state=state)
