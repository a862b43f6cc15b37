"""TFLite Metadata: tells MediaPipe Tasks and ML Kit how images are normalised and where the labels are.

Source: the schema `metadata_schema.fbs` of MediaPipe, and `schema.fbs` of TensorFlow Lite, whose files are flatbuffers.
The label file itself is in the zip archive that is appended to the model.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_effnet.artifacts import LABELS

MODEL_IDENTIFIER, METADATA_IDENTIFIER = b"TFL3", b"M001"
METADATA_NAME = b"TFLITE_METADATA"
# Fields of the table `Model`: version, operator_codes, subgraphs, description, buffers, metadata_buffer, metadata,
# signature_defs.
VERSION, BUFFERS, METADATA, FIELDS = 0, 4, 6, 8
# The old model keeps the alignment of its tensors.
ALIGNMENT = 64
# Values of enumerations and unions of the metadata's schema.
_RGB, _IMAGE_PROPERTIES, _NORMALIZATION_OPTIONS, _TENSOR_AXIS_LABELS = 1, 2, 1, 2


def add_metadata(model: bytes, metadata: bytes) -> bytes:
    """Add metadata to a TFLite model without changing a byte of its tensors.

    References in a flatbuffer only lead forwards. So a new root table goes before the old file, with longer lists of
    buffers and metadata.

    Args:
        model: a `.tflite` file, without an appended archive.
        metadata: a flatbuffer, as from `describe_classifier`.

    Returns:
        The new file; the model itself if it is not a TFLite model, or has fields that are not known here.
    """
    if model[4:8] != MODEL_IDENTIFIER:
        return model
    root = _uint(model, 0)
    table = root - struct.unpack_from("<i", model, root)[0]
    size = struct.unpack_from("<H", model, table)[0] // 2 - 2
    fields = struct.unpack_from(f"<{size}H", model, table + 4)
    if any(fields[FIELDS:]):
        return model
    places = [root + field if field else 0 for field in (*fields, *[0] * FIELDS)[:FIELDS]]
    targets = [place + _uint(model, place) if place else 0 for place in places]
    return _Prefix(model, _uint(model, places[VERSION]) if places[VERSION] else 0, targets).write(metadata) + model


class _Prefix:
    """The bytes before the old file: a root table, two lists, and what is new in them."""

    def __init__(self, model: bytes, version: int, targets: list[int]) -> None:
        self._version, self._targets = version, targets
        self._buffers, self._names = _elements(model, targets[BUFFERS]), _elements(model, targets[METADATA])
        self._data = bytearray()
        self._links: list[tuple[int, int]] = []  # a place in the prefix, and the place in the old file it refers to

    def write(self, metadata: bytes) -> bytes:
        root = self._write_root()
        self._list(root[BUFFERS], self._buffers)
        last_buffer = len(self._data) - 4
        self._list(root[METADATA], self._names)
        last_name = len(self._data) - 4
        self._write_buffer(last_buffer, metadata)
        self._write_name(last_name)
        self._pad(ALIGNMENT)
        for place, target in self._links:
            struct.pack_into("<I", self._data, place, len(self._data) + target - place)
        return bytes(self._data)

    def _write_root(self) -> list[int]:
        """The root table. Returns the places of its fields."""
        present = [i in (VERSION, BUFFERS, METADATA) or target > 0 for i, target in enumerate(self._targets)]
        offsets = [4 + 4 * i if here else 0 for i, here in enumerate(present)]
        self._data += struct.pack("<I4s", 28, MODEL_IDENTIFIER)
        self._data += struct.pack(f"<{2 + FIELDS}H", 4 + 2 * FIELDS, 4 + 4 * FIELDS, *offsets)
        self._data += struct.pack(f"<i{FIELDS}I", 20, self._version, *[0] * (FIELDS - 1))
        places = [32 + 4 * i for i in range(FIELDS)]
        for i in range(FIELDS):
            if present[i] and i not in (VERSION, BUFFERS, METADATA):
                self._links.append((places[i], self._targets[i]))
        return places

    def _list(self, field: int, old: list[int]) -> None:
        """A list of tables: the old ones, and a new one that is still to come."""
        self._refer(field)
        self._data += struct.pack("<I", len(old) + 1)
        for target in old:
            self._links.append((len(self._data), target))
            self._data += bytes(4)
        self._data += bytes(4)

    def _write_buffer(self, element: int, metadata: bytes) -> None:
        self._data += struct.pack("<4H", 6, 8, 4, 0)  # the table's one field, and two bytes to align it
        self._refer(element)
        self._data += struct.pack("<iI", 8, 0)
        field = len(self._data) - 4
        self._pad(16, 4)
        self._refer(field)
        self._data += struct.pack("<I", len(metadata)) + metadata
        self._pad(4)

    def _write_name(self, element: int) -> None:
        self._data += struct.pack("<4H", 8, 12, 4, 8)
        self._refer(element)
        self._data += struct.pack("<iII", 8, 0, len(self._buffers))
        self._refer(len(self._data) - 8)
        self._data += struct.pack("<I", len(METADATA_NAME)) + METADATA_NAME + b"\0"

    def _refer(self, place: int) -> None:
        """Let a place refer to the end of what is written so far."""
        struct.pack_into("<I", self._data, place, len(self._data) - place)

    def _pad(self, alignment: int, before: int = 0) -> None:
        self._data += bytes(-(len(self._data) + before) % alignment)


def _uint(data: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _elements(model: bytes, place: int) -> list[int]:
    """The places of the tables of a list; an empty list if there is none."""
    starts = range(place + 4, place + 4 + 4 * _uint(model, place), 4) if place else ()
    return [start + _uint(model, start) for start in starts]


def describe_classifier(name: str, description: str, labels: Sequence[str], author: str, licence: str) -> bytes:
    """The metadata of a model that maps pixels 0..255 to the probabilities of classes.

    Args:
        name: the name of the model.
        description: what the model does.
        labels: the labels; without them, the output is described as features.
        author, licence: of the model.

    Returns:
        A flatbuffer with the table `ModelMetadata`.
    """
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    image = _table(builder, 2, {0: ("byte", _RGB)})
    content = _table(builder, 3, {0: ("byte", _IMAGE_PROPERTIES), 1: ("offset", image)})
    # The model normalises its pixels itself.
    mean, deviation = (builder.CreateNumpyVector(np.array([value], np.float32)) for value in (0, 1))
    options = _table(builder, 2, {0: ("offset", mean), 1: ("offset", deviation)})
    unit = _table(builder, 2, {0: ("byte", _NORMALIZATION_OPTIONS), 1: ("offset", options)})
    given = _tensor(builder, "image", "RGB image with pixels 0..255.", {3: content, 4: _offsets(builder, [unit])})
    outputs = {}
    if labels:
        file_name = builder.CreateString(LABELS)
        file = _table(builder, 5, {0: ("offset", file_name), 2: ("byte", _TENSOR_AXIS_LABELS)})
        outputs = {6: _offsets(builder, [file])}
    words = ("probability", "Probability of each class.") if labels else ("features", "Features of the image.")
    result = _tensor(builder, *words, outputs)
    lists = {2: _offsets(builder, [given]), 3: _offsets(builder, [result])}
    graph = _table(builder, 10, {slot: ("offset", value) for slot, value in lists.items()})
    texts = {0: name, 1: description, 4: author, 5: licence, 7: "1.0.0"}
    values = {slot: builder.CreateString(text) for slot, text in texts.items()} | {3: _offsets(builder, [graph])}
    root = _table(builder, 8, {slot: ("offset", value) for slot, value in values.items()})
    builder.Finish(root, METADATA_IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, slots: int, fields: dict[int, tuple[str, int]]) -> int:
    builder.StartObject(slots)
    for slot, (kind, value) in fields.items():
        if kind == "byte":
            builder.PrependUint8Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())


def _tensor(builder: Any, name: str, description: str, fields: dict[int, int]) -> int:
    texts = {slot: builder.CreateString(text) for slot, text in ((0, name), (1, description))}
    return _table(builder, 7, {slot: ("offset", value) for slot, value in (texts | fields).items()})


def _offsets(builder: Any, values: Sequence[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependUOffsetTRelative(value)
    return int(builder.EndVector())
