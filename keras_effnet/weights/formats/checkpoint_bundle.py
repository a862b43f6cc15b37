"""Reads TensorFlow checkpoints (prefix.index, prefix.data-00000-of-00001) without TensorFlow; executes nothing.

The index is an uncompressed sorted table in LevelDB's format (leveldb: doc/table_format.md). Its values are messages of
tensorflow/core/protobuf/tensor_bundle.proto. The data files contain the tensors back to back.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import BFLOAT16, stored_type, view

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
# tensorflow/core/framework/types.proto
TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 14: BFLOAT16, 19: "<f2"}
STRING = 7
DTYPE, SHAPE, SHARD, OFFSET, SIZE, SLICES = 1, 2, 3, 4, 5, 7


@dataclass(frozen=True)
class Entry:
    """The type and shape of a variable, its data file, and its bytes in that file."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


class Bundle:
    """A checkpoint with its index read; variables are read on demand.

    Args:
        prefix: the path without ".index".
        temporary: whether the files will be deleted, so that variables have to be copied.

    Raises:
        WeightsError: the index is not that of a checkpoint. Damage may also raise struct.error, IndexError and other
            errors of the standard library.
    """

    def __init__(self, prefix: Path, *, temporary: bool = False) -> None:
        self.prefix, self.temporary = prefix, temporary
        data = prefix.with_name(prefix.name + ".index").read_bytes()
        if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
            raise WeightsError(_refuse("an index without its magic number"))
        table = dict(_table(data))
        header = dict(fields(table.pop(b"", b"")))
        self.shards = _integer(header.get(1, 1))
        if header.get(2, 0) != 0:
            raise WeightsError(_refuse("big-endian numbers"))
        self.entries = {key.decode(): _entry(value) for key, value in table.items()}
        self._maps: dict[int, mmap.mmap] = {}

    def read(self, name: str) -> np.ndarray:
        """The value of a variable, as a view of the file if its type allows.

        Raises:
            WeightsError: there is no such variable, its type is not numeric, or it extends beyond the file.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise WeightsError(_refuse(f"no variable {name!r}"))
        dtype = TYPES.get(entry.dtype)
        if dtype is None or math.prod(entry.shape) * stored_type(dtype).itemsize != entry.size:
            raise WeightsError(_refuse(f"{name!r} of type {entry.dtype}, shape {entry.shape} in {entry.size} bytes"))
        array = view(self._data(entry.shard), dtype, entry.shape, entry.offset)
        return array.copy() if self.temporary else array

    def read_string(self, name: str) -> bytes:
        """The value of a scalar string: its length as a varint, a checksum of the length, and its bytes.

        Raises:
            WeightsError: there is no such string, or it extends beyond the file.
        """
        entry = self.entries.get(name)
        if entry is None or entry.dtype != STRING or entry.shape:
            raise WeightsError(_refuse(f"no string {name!r}"))
        data = self._data(entry.shard)
        length, at = _varint(data[entry.offset : entry.offset + 10], 0)
        start = entry.offset + at + 4
        if length > entry.size or start + length > len(data):
            raise WeightsError(_refuse(f"the string {name!r} of {length} bytes, which extends beyond its file"))
        return data[start : start + length]

    def _data(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            path = self.prefix.with_name(f"{self.prefix.name}.data-{shard:05}-of-{self.shards:05d}")
            with path.open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value: the footer points to an index block, which points to the blocks of entries."""
    _, _, at = _handle(data, len(data) - FOOTER)
    offset, size, _ = _handle(data, at)
    for _, handle in _block(data, offset, size):
        start, length, _ = _handle(handle, 0)
        yield from _block(data, start, length)


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + 5 > len(data) or data[offset + size] != 0:
        raise WeightsError(_refuse("a block that is compressed or extends beyond the index"))
    (restarts,) = struct.unpack_from("<I", data, offset + size - 4)
    at, end, key = offset, offset + size - 4 - 4 * restarts, b""
    while at < end:
        shared, at = _varint(data, at)
        rest, at = _varint(data, at)
        length, at = _varint(data, at)
        if shared > len(key) or at + rest + length > end:
            raise WeightsError(_refuse("an entry that extends beyond its block"))
        key = key[:shared] + data[at : at + rest]
        yield key, data[at + rest : at + rest + length]
        at += rest + length


def _entry(message: bytes) -> Entry:
    found: dict[int, int | bytes] = dict(fields(message))
    if SLICES in found:
        raise WeightsError(_refuse("a variable in slices"))
    shape = [dict(fields(dim)).get(1, 0) for number, dim in fields(found.get(SHAPE, b"")) if number == 2]
    dtype, shard, offset, size = (_integer(found.get(number, 0)) for number in (DTYPE, SHARD, OFFSET, SIZE))
    return Entry(dtype, tuple(map(_integer, shape)), shard, offset, size)


def fields(message: int | bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and value of each field of a protocol buffer message."""
    message, at = _bytes(message), 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind in (1, 2, 5):
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            if at + length > len(message):
                raise WeightsError(_refuse("a truncated message"))
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            raise WeightsError(_refuse(f"a field of the unknown wire type {kind}"))


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise WeightsError(_refuse("a number instead of a message"))
    return value


def _integer(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise WeightsError(_refuse("a message instead of a number"))
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise WeightsError(_refuse("an unterminated number"))


def _refuse(what: str) -> str:
    return (
        f"The checkpoint contains {what}. Expected an EfficientNet saved by TensorFlow or Keras. It is damaged or of "
        "another kind: download it again."
    )
