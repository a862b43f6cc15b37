"""Reads and writes safetensors files: a JSON header with the position of each array, then the arrays.

The safetensors package copies every array, does not support bfloat16 in NumPy, and builds a file in memory to write it.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import BFLOAT16, stored_type, view

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "I64": "<i8", "I32": "<i4"}
NAMES = {kind: name for name, kind in TYPES.items()}


def read_safetensors(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file as views of its bytes (float16 and bfloat16 widened to float32), and its metadata.

    Raises:
        WeightsError: a type or size is invalid. Damage may also raise errors of the standard library.
    """
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    arrays, position = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        size = math.prod(entry["shape"]) * stored_type(TYPES.get(entry["dtype"], "<u1")).itemsize
        if entry["dtype"] not in TYPES or begin != position or end - begin != size:
            raise WeightsError(
                f"The tensor {name[:100]!r} is {str(entry)[:200]}. Expected one of the types {', '.join(TYPES)}, "
                f"with the bytes that its shape needs, from byte {position}. Download the file again, or save it again."
            )
        arrays[name] = view(data, TYPES[entry["dtype"]], entry["shape"], 8 + length + begin)
        position = end
    return arrays, metadata


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write arrays one by one, with at most one array copied at a time.

    Args:
        path: of the file; an existing file is overwritten.
        arrays: name -> array of one of the types in `TYPES`.
        metadata: stored in the file's header.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "one.safetensors")
        ...     write_safetensors(path, {"bias": np.ones(2, np.float32)}, {})
        ...     read_safetensors(path.read_bytes())[0]["bias"].tolist()
        [1.0, 1.0]
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, array in arrays.items():
        end = position + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.str], "shape": array.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the arrays
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none, or is not a safetensors file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            metadata = json.loads(file.read(length))["__metadata__"] if length < path.stat().st_size else {}
            return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError):
        return {}
