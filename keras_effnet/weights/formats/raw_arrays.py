"""Bounds-checked array views of raw bytes; widens narrow floats (bfloat16 is the upper half of a float32)."""

import math
import mmap
from collections.abc import Sequence

import numpy as np

from keras_effnet.errors import WeightsError

BFLOAT16 = "bfloat16"
MAX_RANK = 8


def stored_type(dtype: str) -> np.dtype:
    """The NumPy type with which `dtype` is stored in a file."""
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype)


def view(data: bytes | mmap.mmap, dtype: str, shape: Sequence[int], offset: int = 0) -> np.ndarray:
    """View part of `data` as an array; copies only to widen the type to float32.

    Args:
        data: the bytes of a file, or of a part of it.
        dtype: a NumPy type string with its byte order, as in "<f4", or `BFLOAT16` (little endian).
        shape: the declared shape; not trusted.
        offset: where the array starts, in bytes; not trusted.

    Raises:
        WeightsError: the declared array extends beyond `data`.

    Example:
        >>> view(b"\\x80\\x3f\\x00\\x40", BFLOAT16, [2])
        array([1., 2.], dtype=float32)
    """
    kind = stored_type(dtype)
    if len(shape) > MAX_RANK or min(offset, *shape, 0) < 0:
        raise WeightsError(
            f"An array of shape {tuple(shape[:MAX_RANK])} is declared at byte {offset}. Expected at most {MAX_RANK} "
            "dimensions and no negative numbers. The file is damaged: download it again."
        )
    count = math.prod(shape)
    if count and offset + count * kind.itemsize > len(data):
        raise WeightsError(
            f"An array of shape {tuple(shape)} and type {dtype} is declared at byte {offset}, but there are only "
            f"{len(data)} bytes. Expected an array within the file. The file is cut off or damaged: download it again."
        )
    flat = np.frombuffer(data, kind, count, offset) if count else np.empty(0, kind)
    if dtype == BFLOAT16:
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif kind.kind == "f" and kind.itemsize == 2:
        flat = flat.astype(np.float32)
    return flat.reshape(shape)
