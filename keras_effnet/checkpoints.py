"""Reads published weights of any library into one form: the layer names of keras.applications, the layout of Keras."""

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from keras_effnet.arrays import BFLOAT16, stored_type, view
from keras_effnet.errors import WeightsError
from keras_effnet.h5_files import SIGNATURE, H5File
from keras_effnet.keras_names import read_normalization, rename_keras
from keras_effnet.layer_names import layer_names, not_understood, variables
from keras_effnet.normalization import Normalization
from keras_effnet.tf_checkpoints import is_tf_checkpoint, read_tf_checkpoint
from keras_effnet.torch_files import ZIP_MAGIC, broken, read_legacy, read_member, read_zip
from keras_effnet.variants import Variant

KERAS_MEMBER = "model.weights.h5"
SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "I64": "<i8", "I32": "<i4"}

# A name that only files of one library have, and what that library may put before all of its names.
MARKS = {
    "lukemelas": ("_conv_stem.weight", ""),
    "timm": ("conv_stem.weight", ""),
    "torchvision": ("features.0.0.weight", ""),
    "transformers": ("embeddings.convolution.weight", "efficientnet."),
}
NORM_VARIABLES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
OTHER_VARIABLES = {"weight": "kernel", "bias": "bias"}


@dataclass(frozen=True)
class Checkpoint:
    """What a weight file holds.

    Args:
        state: "layer/variable" -> float32 array, in the names of keras.applications and the layout of Keras; possibly
            read-only views of the file.
        layout: whose names the file had: "keras-h5", "keras-weights" (.weights.h5), "keras" (.keras), "tensorflow",
            "timm", "torchvision", "lukemelas" or "transformers".
        normalization: what the file itself says of its pixels; None if nothing.
    """

    state: Mapping[str, np.ndarray]
    layout: str
    normalization: Normalization | None = None


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
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(ZIP_MAGIC):
        with zipfile.ZipFile(path) as archive:
            if KERAS_MEMBER in archive.namelist():
                return _keras(read_member(archive, KERAS_MEMBER), variant, "keras")
            return _peer(read_zip(archive), variant)
    if start.startswith(SIGNATURE):
        return _keras(path.read_bytes(), variant)
    # The length before safetensors' brace may begin as a pickle does, so the brace is looked for first.
    if start[8:9] == b"{":
        return _peer(read_safetensors(path.read_bytes()), variant)
    if start.startswith(b"\x80"):
        return _peer(read_legacy(path.read_bytes()), variant)
    raise WeightsError(
        f"The file starts with {start!r}, which no known format does. Expected HDF5 (.h5, .weights.h5), .keras, "
        "PyTorch (.pth, .pt, .bin) or .safetensors. Give another file, or fetch it again: a page in its place is what "
        "some servers send instead of an error."
    )


def _keras(data: bytes, variant: Variant, layout: str | None = None) -> Checkpoint:
    file = H5File(data)
    by_class = any(path.startswith(("layers/", "_layer_checkpoint_dependencies/")) for path in file.datasets)
    datasets = rename_keras(file, variant)
    normalization = read_normalization(file)
    state = {name: dataset.read() for name, dataset in datasets.items()}
    return Checkpoint(state, layout or ("keras-weights" if by_class else "keras-h5"), normalization)


def read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as views of its bytes; float16 and bfloat16 become float32.

    The safetensors package has no bfloat16 in NumPy and copies every tensor.

    Raises:
        WeightsError: a type or size that is not right. Damage may also raise errors of the standard library.
    """
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    arrays, position = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        size = math.prod(entry["shape"]) * stored_type(SAFETENSORS.get(entry["dtype"], "<u1")).itemsize
        if entry["dtype"] not in SAFETENSORS or begin != position or end - begin != size:
            raise WeightsError(
                f"The tensor {name[:100]!r} is {str(entry)[:200]}. Expected one of the types {', '.join(SAFETENSORS)}, "
                f"in as many bytes as its shape needs, from byte {position} on. Fetch the file again, or save it anew."
            )
        arrays[name] = view(data, SAFETENSORS[entry["dtype"]], entry["shape"], 8 + length + begin)
        position = end
    return arrays


def _peer(tensors: dict[str, np.ndarray], variant: Variant) -> Checkpoint:
    """The tensors of another library, renamed and transposed."""
    layout = next((name for name, (mark, prefix) in MARKS.items() if {mark, prefix + mark} & tensors.keys()), None)
    if layout is None:
        raise WeightsError(
            f"The names in the file, {', '.join(list(tensors)[:5])[:300]}, are of no library known here. Expected "
            f"those of {', '.join(MARKS)}. Rename them, or give another file."
        )
    prefix = MARKS[layout][1]
    names = layer_names(variant, layout)
    layers, state, unknown = set(), {}, []
    for name, tensor in tensors.items():
        layer, _, variable = name.removeprefix(prefix).rpartition(".")
        layers.add(layer)
        ours = names.get(layer, "")
        known = (NORM_VARIABLES if ours.endswith("bn") else OTHER_VARIABLES).get(variable)
        if ours and known in variables(ours):
            state[f"{ours}/{known}"] = _to_keras(ours, known, tensor)
        elif variable != "num_batches_tracked":
            unknown.append(name)
    if unknown:
        raise WeightsError(not_understood(unknown, layers, variant, layout))
    return Checkpoint(state, layout)


def _to_keras(layer: str, variable: str, tensor: np.ndarray) -> np.ndarray:
    """Another library's axes in the order of Keras: (out, in, height, width) -> (height, width, in, out)."""
    if variable != "kernel":
        return tensor
    if layer == "predictions":
        return tensor.T
    if tensor.ndim != 4:
        raise WeightsError(
            f"The kernel of {layer} has the shape {tensor.shape}. Expected four dimensions. The file is of "
            "another kind of network: give another."
        )
    return tensor.transpose((2, 3, 0, 1) if layer.endswith("dwconv") else (2, 3, 1, 0))


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
