"""Reads Keras's HDF5 files without the HDF5 library (HDF5 File Format Specification, version 3.0).

The library aborts the process or hangs on some corrupt files. This reader supports what h5py writes for Keras: groups,
string attributes and contiguous datasets. It rejects everything else with the reason.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import BFLOAT16, stored_type, view

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = b"\xff" * 8
MAX_DEPTH, MAX_NAME = 32, 1024
# Reads of metadata, in units of up to 256 bytes; L2 with optimizer state takes about 300,000.
MAX_READS = 2_000_000

# Message types of object headers.
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE = 0x0B, 0x0C, 0x10, 0x11

COMPACT, CONTIGUOUS = 0, 1
FIXED, FLOATING, OPAQUE, VARIABLE = 0, 1, 5, 9
# The only attributes that matter: a layer's name, "bfloat16", and the model in a legacy file.
ATTRIBUTES = ("name", "dtype", "model_config")
# Floating-point types by size in bytes, and position and width of the exponent in bits.
FLOATS = {(2, 10, 5): "<f2", (4, 23, 8): "<f4", (8, 52, 11): "<f8", (2, 7, 8): BFLOAT16}


@dataclass
class Dataset:
    """A dataset that has been located, but not read or checked."""

    file: "H5File"
    messages: dict[int, bytes]
    attributes: dict[str, str]

    def read(self) -> np.ndarray:
        """The value, as a view of the file if its type allows.

        Raises:
            WeightsError: the dataset is not numeric, not contiguous, or extends beyond the file.
        """
        if missing := {DATASPACE, DATATYPE, LAYOUT} - self.messages.keys():
            raise WeightsError(_refuse(f"a dataset without the messages {sorted(missing)}"))
        if FILTERS in self.messages or EXTERNAL in self.messages:
            raise WeightsError(_refuse("a dataset that is compressed or stored in another file"))
        version, kind = self.messages[LAYOUT][:2]
        if version not in (3, 4) or kind not in (COMPACT, CONTIGUOUS):
            raise WeightsError(_refuse("a chunked or virtual dataset"))
        shape = _shape(self.messages[DATASPACE])
        dtype = self._dtype()
        self.file.taken += math.prod(shape) * stored_type(dtype).itemsize
        if self.file.taken > len(self.file.data):
            raise WeightsError(_refuse("datasets that declare more bytes than the file has"))
        if kind == COMPACT:
            return view(self.messages[LAYOUT][4:], dtype, shape)
        (address,) = struct.unpack_from("<Q", self.messages[LAYOUT], 2)
        return view(self.file.data, dtype, shape, address)

    def _dtype(self) -> str:
        message = self.messages[DATATYPE]
        kind, (size,) = message[0] & 15, struct.unpack_from("<I", message, 4)
        big_endian = message[1] & 1
        if kind == FLOATING and not big_endian and (size, message[12], message[13]) in FLOATS:
            return FLOATS[size, message[12], message[13]]
        if kind == FIXED and not big_endian and size in (1, 2, 4, 8):
            return f"<{'i' if message[1] & 8 else 'u'}{size}"
        if kind == OPAQUE and size == 2 and self.attributes.get("dtype") == BFLOAT16:
            return BFLOAT16
        raise WeightsError(_refuse(f"a dataset whose type (class {kind}, {size} bytes) is not a little-endian number"))


@dataclass
class H5File:
    """The datasets of an HDF5 file and the attributes of its groups, by path.

    Args:
        data: the whole file.

    Raises:
        WeightsError: the file contains something that Keras does not write, or an address beyond its end. Damage may
            also raise struct.error, IndexError and other errors of the standard library.
    """

    data: bytes
    datasets: dict[str, Dataset] = field(default_factory=dict, init=False)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict, init=False)
    taken: int = field(default=0, init=False)
    _reads: int = field(default=0, init=False)
    _seen: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        version = self.data[8]
        if self.data[:8] != SIGNATURE or version > 3:
            raise WeightsError(_refuse(f"a superblock of version {version}"))
        if self.data[13:15] != b"\x08\x08" if version < 2 else self.data[9:11] != b"\x08\x08":
            raise WeightsError(_refuse("addresses that do not have 64 bits"))
        base, end, root = {0: (24, 40, 64), 1: (28, 44, 68)}.get(version, (12, 28, 36))
        if self._number(base) or self._number(end) > len(self.data):
            raise WeightsError(
                f"The header declares {self._number(end)} bytes from offset {self._number(base)}, but the file has "
                f"{len(self.data)}. Expected a complete file. It was cut off: download it again."
            )
        self._read_object(self._number(root), "", 0)

    def _read_object(self, address: int, path: str, depth: int) -> None:
        if address in self._seen or depth > MAX_DEPTH:
            raise WeightsError(_refuse(f"the object {path[:100]!r} twice or nested too deeply"))
        self._seen.add(address)
        messages: dict[int, bytes] = {}
        attributes: dict[str, str] = {}
        children: list[tuple[str, int]] = []
        for kind, body in self._messages(address):
            if kind == ATTRIBUTE:
                attributes |= self._attribute(body)
            elif kind == LINK:
                children.append(self._link(body))
            else:
                messages[kind] = body
        if SYMBOL_TABLE in messages:
            tree, heap = struct.unpack("<QQ", messages[SYMBOL_TABLE][:16])
            children += self._symbols(tree, self._number(heap + 24))
        if LINK_INFO in messages:
            at = 2 + 8 * (messages[LINK_INFO][1] & 1)
            if messages[LINK_INFO][at : at + 8] != UNDEFINED:
                raise WeightsError(_refuse(f"a group in the dense format of newer libraries, {path[:100]!r}"))
        if LAYOUT in messages:
            self.datasets[path] = Dataset(self, messages, attributes)
        else:
            self.attributes[path] = attributes
        for name, child in children:
            name = name.replace("\\", "/")  # Keras on Windows
            self._read_object(child, f"{path}/{name}" if path else name, depth + 1)

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """The messages of an object header of version 1 or 2, including its continuations."""
        newer = self._slice(address, 4) == b"OHDR"
        if newer:
            flags = self.data[address + 5]
            start = address + 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16)
            width = 1 << (flags & 3)
            blocks = [(start + width, int.from_bytes(self._slice(start, width), "little"))]
        else:
            flags = 0
            (size,) = struct.unpack("<I", self._slice(address + 8, 4))
            blocks = [(address + 16, size)]
        header = 4 + 2 * bool(flags & 4) if newer else 8
        while blocks:
            start, size = blocks.pop(0)
            at, end = start, start + size
            while at + header <= end:
                kind, length = struct.unpack("<BH" if newer else "<HH", self._slice(at, 3 if newer else 4))
                shared = self.data[at + (3 if newer else 4)] & 2
                body = self._slice(at + header, length)
                at += header + length
                if kind == CONTINUATION:
                    start, size = struct.unpack("<QQ", body)
                    # Version 2 blocks start with a signature and end with a checksum.
                    blocks.append((start + 4, size - 8) if newer else (start, size))
                elif not shared:
                    yield kind, body
                elif kind != ATTRIBUTE:
                    raise WeightsError(_refuse("a shared type or shape"))

    def _symbols(self, address: int, names: int, level: int | None = None) -> Iterator[tuple[str, int]]:
        """Name and address of each member of a group, from its B-tree of symbol nodes."""
        signature, _, found, used = struct.unpack("<4sBBH", self._slice(address, 8))
        if signature != b"TREE" or level not in (None, found):
            raise WeightsError(_refuse("a group without a B-tree of names"))
        for i in range(used):
            child = self._number(address + 32 + 16 * i)
            if found:
                yield from self._symbols(child, names, found - 1)
                continue
            signature, _, _, entries = struct.unpack("<4sBBH", self._slice(child, 8))
            if signature != b"SNOD":
                raise WeightsError(_refuse("a group without a symbol table"))
            for j in range(entries):
                name, target, cache = struct.unpack("<QQI", self._slice(child + 8 + 40 * j, 20))
                if cache == 2:
                    raise WeightsError(_refuse("a symbolic link"))
                text = self.data[names + name : names + name + MAX_NAME].split(b"\0")[0]
                yield text.decode(), target

    def _link(self, body: bytes) -> tuple[str, int]:
        flags = body[1]
        at = 2
        if flags & 8:
            if body[at] != 0:
                raise WeightsError(_refuse("a symbolic or external link"))
            at += 1
        at += 8 * bool(flags & 4) + bool(flags & 16)
        width = 1 << (flags & 3)
        length = int.from_bytes(body[at : at + width], "little")
        at += width
        (target,) = struct.unpack_from("<Q", body, at + length)
        return body[at : at + length].decode(), target

    def _attribute(self, body: bytes) -> dict[str, str]:
        """An attribute as {name: value} if it is one of `ATTRIBUTES`."""
        version, sizes = body[0], struct.unpack_from("<HHH", body, 2)
        if version == 1:
            sizes = tuple(-(-size // 8) * 8 for size in sizes)
        start = 9 if version == 3 else 8
        datatype, _, value = (start + sum(sizes[: i + 1]) for i in range(3))
        name = body[start:datatype].split(b"\0")[0].decode()
        if name not in ATTRIBUTES:
            return {}
        text = body[value:]
        if body[datatype] & 15 == VARIABLE:
            length, collection, index = struct.unpack("<IQI", text)
            text = self._heap_object(collection, index)[:length]
        return {name: text.split(b"\0")[0].decode()}

    def _heap_object(self, address: int, index: int) -> bytes:
        signature, _, size = struct.unpack("<4sIQ", self._slice(address, 16))
        at, end = address + 16, address + size
        while signature == b"GCOL" and at < end:
            found, _, _, length = struct.unpack("<HHIQ", self._slice(at, 16))
            if found == index:
                return self._slice(at + 16, length)
            at += 16 + -(-length // 8) * 8
        raise WeightsError(_refuse("a reference to a missing string"))

    def _number(self, at: int) -> int:
        return struct.unpack("<Q", self._slice(at, 8))[0]

    def _slice(self, at: int, length: int) -> bytes:
        self._reads += 1 + length // 256
        if at + length > len(self.data) or self._reads > MAX_READS:
            reason = "an address beyond its end" if self._reads <= MAX_READS else "loops or endless lists"
            raise WeightsError(_refuse(reason))
        return self.data[at : at + length]


def _shape(message: bytes) -> tuple[int, ...]:
    version, rank = message[:2]
    if version not in (1, 2) or (version == 2 and message[3] == 2):
        raise WeightsError(_refuse("a dataset without a shape"))
    return struct.unpack_from(f"<{rank}Q", message, 8 if version == 1 else 4)


def _refuse(what: str) -> str:
    return (
        f"The HDF5 file contains {what}. Expected only what Keras writes: groups, string attributes and uncompressed "
        "numeric datasets. It is damaged or from another program: download it again, or save the model with Keras."
    )
