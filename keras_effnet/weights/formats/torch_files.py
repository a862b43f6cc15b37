"""Reads PyTorch files without PyTorch: the zip of torch.save since 1.6 and the row of pickles before it."""

import math
import struct
import zipfile
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import stored_type, view
from keras_effnet.weights.formats.torch_pickle import Pickle, Tensor

ZIP_MAGIC = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001

# What training scripts wrap a state dict in, the averaged weights first, as timm reads them.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# What data-parallel and compiled models put before every name.
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def read_torch(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch file; nothing in it is executed.

    Args:
        path: a file written by torch.save, of either layout.

    Returns:
        Name -> array as PyTorch lays it out, possibly a read-only view; float16 and bfloat16 become float32.

    Raises:
        WeightsError: the file is damaged, holds more than tensors, or declares more than it holds.

    Example:
        >>> state = read_torch("efficientnet-lite0-57934424.pth")  # doctest: +SKIP
        >>> state["_conv_stem.weight"].shape  # doctest: +SKIP
        (32, 3, 3, 3)
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == ZIP_MAGIC
        if zipped:
            with zipfile.ZipFile(path) as archive:
                return read_zip(archive)
        return read_legacy(path.read_bytes())
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:
        # Whatever a damaged file trips over, the caller gets one kind of error.
        raise WeightsError(f"{path}: {broken(error)}") from error


def broken(error: Exception) -> str:
    """The message for a file that something stumbled over."""
    return (
        f"The file cannot be read ({type(error).__name__}: {str(error)[:200]}). Expected a whole weight file. It is "
        "missing, cut off, altered or of another kind: fetch it again."
    )


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One member of a zip file that Keras or PyTorch wrote, whole and with its checksum verified.

    Raises:
        WeightsError: it is compressed, which neither does and which could hide any size, or larger than the file.
    """
    info = archive.getinfo(name)
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    if not stored or info.file_size > Path(str(archive.filename)).stat().st_size:
        raise WeightsError(
            f"The member {name!r} of the zip is compressed, or larger than the file. Expected stored members, as Keras "
            "and PyTorch write them. Save the file anew with either."
        )
    return archive.read(info)


def read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The tensors of an opened zip; raises as `read_torch` does, and whatever damage causes."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(
            f"The zip has {len(pickles)} members named data.pkl. Expected one, as torch.save writes. Give a file of "
            "PyTorch or Keras."
        )
    folder = pickles[0].removesuffix("data.pkl")
    order = folder + "byteorder"
    if order in archive.namelist() and read_member(archive, order) != b"little":
        raise WeightsError(_endian())
    pickle = Pickle(BytesIO(read_member(archive, pickles[0])))
    tensors = _unwrap(pickle.root)
    storages = {}
    for key in {tensor.storage.key for tensor in tensors.values()}:
        storage = pickle.storages[key]
        storages[key] = view(read_member(archive, f"{folder}data/{key}"), storage.dtype, [storage.numel])
    return _arrays(tensors, storages)


def read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file of before PyTorch 1.6; raises as `read_torch` does, and whatever damage causes."""
    stream = BytesIO(data)
    if Pickle(stream).root != MAGIC or Pickle(stream).root != PROTOCOL:
        raise WeightsError(
            "The file starts as a pickle, but not with PyTorch's magic number and protocol 1001. Expected a file that "
            "torch.save wrote. Give another file."
        )
    system = Pickle(stream).root
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise WeightsError(_endian())
    pickle = Pickle(stream)
    keys = Pickle(stream).root
    tensors = _unwrap(pickle.root)
    storages = {}
    for key in keys:
        storage = pickle.storages[key]
        (numel,) = struct.unpack("<q", stream.read(8))
        if numel != storage.numel:
            raise WeightsError(
                f"The storage {key!r} has {numel} numbers. Expected the {storage.numel} that the pickle declares. The "
                "file is altered: fetch it again."
            )
        storages[key] = view(data, storage.dtype, [numel], stream.tell())
        stream.seek(numel * stored_type(storage.dtype).itemsize, 1)
    return _arrays(tensors, storages)


def _unwrap(root: Any) -> dict[str, Tensor]:
    """The state dict inside what a training script saved, without the prefixes of wrapped models."""
    if isinstance(root, dict):
        root = next((root[name] for name in WRAPPERS if isinstance(root.get(name), dict) and root[name]), root)
    if not (isinstance(root, dict) and root) or not all(isinstance(value, Tensor) for value in root.values()):
        values = root if isinstance(root, dict) and root else {"the whole": root}
        others = [
            f"{str(name)[:50]!r} ({type(value).__name__})"
            for name, value in values.items()
            if not isinstance(value, Tensor)
        ]
        raise WeightsError(
            f"The file holds {', '.join(others[:5])}. Expected a dict of tensors, plain or as one of "
            f"{', '.join(WRAPPERS)}. Save model.state_dict() anew."
        )
    state = {}
    for name, tensor in root.items():
        for prefix in PREFIXES:
            name = str(name).removeprefix(prefix)
        state[name] = tensor
    if len(state) != len(root):
        raise WeightsError(
            "The file holds the same tensor with and without the prefix 'module.'. Expected each once. Save "
            "model.state_dict() anew."
        )
    return state


def _arrays(tensors: dict[str, Tensor], storages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    numbers = sum(math.prod(tensor.shape) for tensor in tensors.values())
    stored = sum(storage.size for storage in storages.values())
    if numbers > 2 * stored:
        # Views cost nothing, whatever they share; what is made of them does.
        raise WeightsError(
            f"The tensors declare {numbers} numbers, the file has {stored}. Expected few that are shared. It is "
            "altered, or has tensors that repeat numbers: save it anew with contiguous tensors."
        )
    return {name: _strided(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _strided(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    storage = storage[tensor.storage.start :][: tensor.storage.numel]
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    inside = 0 not in tensor.shape and last < storage.size
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or not (inside or 0 in tensor.shape):
        raise WeightsError(
            f"The tensor {name[:100]!r} of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} "
            f"leaves its storage of {storage.size} numbers. Expected one within. The file is altered: fetch it again."
        )
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)


def _endian() -> str:
    return (
        "The file was written on a big-endian machine. Expected little-endian numbers. Save it anew on the usual kind "
        "of machine."
    )
