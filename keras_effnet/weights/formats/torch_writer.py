"""Writes PyTorch files without PyTorch, for `torch.load(weights_only=True)`: the zip format of `torch.save` since 1.6.

The zip contains a pickle of protocol 2 (opcodes: Python's pickletools), which calls the function that builds a tensor
from a storage, and one member per storage, aligned to 64 bytes.
"""

import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

STORAGES = {"<f4": "FloatStorage", "<i8": "LongStorage"}
ALIGNMENT = 64
HEADER = 30  # bytes of a zip member's header before its name
PADDING = 0x4246  # "FB", PyTorch's marker of the padding field


def write_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as the state dict of a PyTorch model.

    Args:
        path: of the file; an existing file is overwritten.
        arrays: name -> float32 or int64 array.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> from keras_effnet.weights.formats.torch_files import read_torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_torch(Path(folder, "one.pth"), {"bias": np.ones(2, np.float32)})
        ...     read_torch(Path(folder, "one.pth"))["bias"].tolist()
        [1.0, 1.0]
    """
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        _member(archive, "data.pkl", _pickle(arrays))
        _member(archive, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _member(archive, f"data/{key}", np.ascontiguousarray(array).data.cast("B"))
        _member(archive, "version", b"3\n")
        archive.close()
        file.flush()
        os.fsync(file.fileno())


def _member(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")  # dated 1980, so that equal weights give equal files
    start = archive.start_dir + HEADER + len(info.filename) + 4
    fill = -start % ALIGNMENT
    info.extra = struct.pack("<HH", PADDING, fill) + b"Z" * fill
    archive.writestr(info, data)


def _pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An OrderedDict of tensors, each `_rebuild_tensor_v2(storage, offset, size, strides, requires_grad, hooks)`."""
    empty = _global("collections", "OrderedDict") + b")R"
    parts = [b"\x80\x02", empty, b"("]
    for key, (name, array) in enumerate(arrays.items()):
        kind = _global("torch", STORAGES[array.dtype.str])
        storage = b"(" + _text("storage") + kind + _text(str(key)) + _text("cpu") + _int(array.size) + b"tQ"
        strides = np.empty(array.shape, np.bool_).strides  # itemsize 1, so strides in elements
        shape = _tuple(array.shape) + _tuple(strides)
        function = _global("torch._utils", "_rebuild_tensor_v2")
        parts += [_text(name), function, b"(", storage, _int(0), shape, b"\x89", empty, b"tR"]
    return b"".join([*parts, b"u."])


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def _tuple(numbers: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_int, numbers)) + b"t"
