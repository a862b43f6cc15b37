"""Reads PyTorch files without PyTorch: the zip format of torch.save since 1.6, and the older sequence of pickles."""

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import stored_type, view
from keras_effnet.weights.formats.torch_pickle import Pickle, Tensor, Unread

ZIP_MAGIC = b"PK\x03\x04"
MAGIC = 0x1950A86A20F9469CFC6C
MAX_NAME = 1000
PROTOCOL = 1001

# Keys under which training scripts save a state dict, averaged weights first, as in timm.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema", "model_state_dict"),
    *("state_dict", "model", "module", "net", "network", "params", "weights"),
)
# Prefixes of all names in data-parallel and compiled models.
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")
# Variables that are not weights: the counter of an average, and the counters of profilers.
COUNTERS = ("n_averaged", "total_ops", "total_params")


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a PyTorch file without executing anything in it.

    Args:
        path: a file written by torch.save, in either format.

    Returns:
        Name -> array with PyTorch's axes, possibly a read-only view; float16 and bfloat16 are widened to float32.

    Raises:
        WeightsError: the file contains no state dict, or declares more than it contains. Damage may also raise
            errors of the standard library.

    Example:
        >>> state = read_torch(Path("efficientnet-lite0-57934424.pth"))  # doctest: +SKIP
        >>> state["_conv_stem.weight"].shape  # doctest: +SKIP
        (32, 3, 3, 3)
    """
    with path.open("rb") as file:
        zipped = file.read(4) == ZIP_MAGIC
    if zipped:
        with open_zip(path) as archive:
            return _read_zip(archive)
    return _read_legacy(path.read_bytes())


def broken(error: Exception) -> str:
    """The error message for a file that raised an unexpected error."""
    return (
        f"The file cannot be read ({type(error).__name__}: {str(error)[:200]}). Expected a complete weight file. It is "
        "missing, cut off, damaged or of another kind: download it again."
    )


class _Bounded(BufferedReader):
    """A file that reads at most what is left of it: Python allocates all bytes that are asked for before it reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose directory may declare any size."""
    with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One member of a zip file of Keras or PyTorch; zipfile verifies its checksum.

    Raises:
        WeightsError: the member is larger than the file, or compressed. Neither library compresses, and a compressed
            member could have any size.
    """
    info = archive.getinfo(name)
    stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
    if not stored or info.file_size > Path(str(archive.filename)).stat().st_size:
        raise WeightsError(
            f"The member {name!r} of the zip is compressed, or larger than the file. Expected uncompressed members, as "
            "written by Keras and PyTorch."
        )
    return archive.read(info)


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The tensors of a file since PyTorch 1.6."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(
            f"The zip has {len(pickles)} members named data.pkl. Expected one, as written by torch.save."
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


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a file from before PyTorch 1.6."""
    stream = BytesIO(data)
    if Pickle(stream).root != MAGIC or Pickle(stream).root != PROTOCOL:
        raise WeightsError(
            "The file is a pickle without PyTorch's magic number and protocol 1001. Expected a file written by "
            "torch.save."
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
                "file is damaged: download it again."
            )
        storages[key] = view(data, storage.dtype, [numel], stream.tell())
        stream.seek(numel * stored_type(storage.dtype).itemsize, 1)
    return _arrays(tensors, storages)


def _unwrap(root: Any) -> dict[str, Tensor]:
    """The state dict in the saved object of a training script, without the prefixes of wrapped models."""
    found = _state_dict(root)
    if found is None:
        raise WeightsError(_other_object(root))
    state = {}
    for name, tensor in found.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name in state:
            raise WeightsError(
                "The file contains the same tensor with and without the prefix 'module.'. Expected each tensor once. "
                "Save model.state_dict()."
            )
        state[name] = tensor
    return {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in COUNTERS}


def _state_dict(root: Any, depth: int = 3) -> dict[str, Tensor] | None:
    """The first state dict in an object: a module or dict of tensors, or one under the keys of a training script."""
    if isinstance(root, Unread):
        if _own_state(root) is not None:
            return _module_tensors(root)
        root = root.state
    if not isinstance(root, dict):
        return None
    inside = (root.get(name) for name in WRAPPERS) if depth else ()
    found = next((state for each in inside if (state := _state_dict(each, depth - 1)) is not None), None)
    if found is None and root and all(isinstance(value, Tensor | Unread | None) for value in root.values()):
        # Modules may add a state of another type, `_extra_state`.
        found = {str(name): value for name, value in root.items() if isinstance(value, Tensor)}
    return found or None


def _own_state(module: Unread) -> tuple[dict[Any, Any], dict[Any, Any]] | None:
    """The tensors and the submodules of a saved module by name, None if an object is not a module."""
    if module.name.startswith("__torch__."):  # TorchScript has both among the attributes
        return module.state, module.state
    parts = [module.state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    parameters, buffers, modules = ({} if part is None else part for part in parts)
    whole = parts[2] is not None and all(isinstance(part, dict) for part in (parameters, buffers, modules))
    return ({**parameters, **buffers}, modules) if whole else None


def _module_tensors(root: Unread) -> dict[str, Tensor]:
    """The state dict of a saved module: the tensors of each module in it, under its first name."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", root)], set()
    while waiting:
        prefix, module = waiting.pop()
        own = _own_state(module)
        if own is None or id(module) in seen:
            continue
        if len(prefix) > MAX_NAME:
            raise WeightsError(
                f"The file contains modules that are nested too deeply: {prefix[:100]!r}. Expected names of at most "
                f"{MAX_NAME} characters. Save model.state_dict()."
            )
        seen.add(id(module))
        tensors, modules = own
        found |= {f"{prefix}{name}": value for name, value in tensors.items() if isinstance(value, Tensor)}
        inside = [(f"{prefix}{name}.", value) for name, value in modules.items() if isinstance(value, Unread)]
        waiting += reversed(inside)
    return found


def _other_object(root: Any) -> str:
    whole = next((value for value in _values(root).values() if isinstance(value, Unread)), None)
    others = [f"{str(name)[:50]!r} ({_kind(value)})" for name, value in _values(root).items()]
    if whole is not None and len(others) == 1:
        return (
            f"The file contains an object of the class {whole.name[:100]!r}, which is not read because its class could "
            "run any code. Expected a dict of tensors. Where the class is installed, load the model and save "
            "model.state_dict() with torch.save."
        )
    return (
        f"The file contains {', '.join(others[:5])}. Expected a dict of tensors, plain or under one of the keys "
        f"{', '.join(WRAPPERS)}. Save model.state_dict()."
    )


def _values(root: Any) -> dict[Any, Any]:
    if not (isinstance(root, dict) and root):
        return {"the root object": root}
    return {name: value for name, value in root.items() if not isinstance(value, Tensor)} or root


def _kind(value: Any) -> str:
    return value.name[:100] if isinstance(value, Unread) else type(value).__name__


def _arrays(tensors: dict[str, Tensor], storages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    numbers = sum(math.prod(tensor.shape) for tensor in tensors.values())
    stored = sum(storage.size for storage in storages.values())
    if numbers > 2 * stored:
        # Views are free, but converting many that share a storage would use memory.
        raise WeightsError(
            f"The tensors declare {numbers} numbers, but the file has {stored}. Expected at most twice as many. The "
            "file is damaged, or its tensors repeat numbers: save it with contiguous tensors."
        )
    return {name: _strided(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _strided(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    storage = storage[tensor.storage.start :][: tensor.storage.numel]
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    inside = 0 not in tensor.shape and last < storage.size
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or not (inside or 0 in tensor.shape):
        raise WeightsError(
            f"The tensor {name[:100]!r} of shape {tensor.shape}, strides {tensor.strides} and offset {tensor.offset} "
            f"extends beyond its storage of {storage.size} numbers. Expected a tensor within it. The file is damaged: "
            "download it again."
        )
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)


def _endian() -> str:
    return (
        "The file was written on a big-endian machine. Expected little-endian numbers. Save it on a little-endian "
        "machine."
    )
