"""What an exported model is: a record inside it, and as JSON beside it for whoever wants to read it.

Inside a `.tflite` file it is part of a zip archive behind the model, as TensorFlow Lite's metadata has it; inside an
`.onnx` file it is a metadata property (github.com/onnx/onnx, onnx.proto: field 14 of ModelProto).
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from keras_effnet.artifacts import LABELS, latest_folder

NAME = "model.json"
PROPERTY = "keras_effnet"
# How the file of a format ends; the others are folders.
_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": "", "saved_model": ""}


@dataclass(frozen=True)
class Sidecar:
    """An exported model's record.

    Args:
        format: "saved_model", "litert", "onnx" or "openvino".
        size: side of the images in pixels.
        classes: (wnid or None, label) of each output.
        model: what the model was loaded by, or its name.
        variant: the network, None for one of no published size.
        quantize: None, "float16", "dynamic" or "int8".
        fused: whether batch normalisation was folded into the convolutions.
        float_layers: those that "int8" left in float32, since in 8 bits they would have cost too many answers.
        weights: the weight set or file that the network was given.
        weights_sha256: of that file.
        variables_sha256: of the numbers themselves, in the order of `get_weights()`.
        input: what an image has to be.
        check: how far the export was from the model, on which images.
        versions: of what made it.
    """

    format: str
    size: int
    classes: tuple[tuple[str | None, str], ...]
    model: str = ""
    variant: str | None = None
    quantize: str | None = None
    fused: bool = False
    float_layers: tuple[str, ...] = ()
    weights: str | None = None
    weights_sha256: str | None = None
    variables_sha256: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The record as it is written.

        Example:
            >>> json.loads(Sidecar("litert", 224, ((None, "rose"),)).to_json())["classes"]
            [[None, 'rose']]
        """
        return json.dumps(asdict(self), indent=1) + "\n"


def suffix(format: str) -> str:  # noqa: A002
    """How the file of a format ends, "" for one that is a folder.

    Example:
        >>> suffix("litert"), suffix("openvino")
        ('.tflite', '')
    """
    return _SUFFIXES.get(format, "")


def sidecar_path(path: Path) -> Path:
    """Where the record of an exported model lies as JSON: in its folder, or beside its file.

    Example:
        >>> sidecar_path(Path("flowers.tflite")).name
        'flowers.tflite.json'
    """
    return path / NAME if path.is_dir() else path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Export:
    """An exported model: its file, or the folder of one version, and its record."""

    path: Path
    record: Sidecar


def open_export(path: Path) -> Export:
    """Find an exported model: a file, or a folder, of numbered ones the one with the highest number.

    Raises:
        ValueError: there is none, or its record is missing or damaged.
    """
    if path.suffix.lower() in (".xml", ".bin"):
        path = path.parent  # one file of OpenVINO's two
    if path.is_dir() and not (path / NAME).is_file():
        path = latest_folder(path) or path
    try:
        record = _from_json(_inside(path))
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = error if isinstance(error, OSError) else "its record is missing or damaged"
        raise ValueError(
            f"There is no exported model {str(path)!r} that says what it is: {reason}. Expected a .tflite or .onnx "
            f"file, or a folder with a {NAME} or with numbered ones that have it. Write it with keras-effnet export; "
            "the folder of a training has its model.keras at the end."
        ) from error
    return Export(path, record)


def _from_json(text: str) -> Sidecar:
    """A record as it was written; what a later version adds is passed over."""
    given = json.loads(text)
    record = Sidecar(**{name: given[name] for name in Sidecar.__dataclass_fields__ if name in given})
    classes = tuple((wnid, label) for wnid, label in record.classes)
    if (
        record.format not in _SUFFIXES
        or type(record.size) is not int
        or not all(type(name) is str for _, name in classes)
    ):
        raise ValueError("no record of an exported model")
    return replace(record, classes=classes, float_layers=tuple(record.float_layers))


def _inside(path: Path) -> str:
    if path.is_dir():
        return (path / NAME).read_text("utf-8")
    if path.suffix.lower() == ".onnx":
        with path.open("rb") as file:
            return dict(_properties(file))[PROPERTY]
    # What lies beside the file may be another's.
    with zipfile.ZipFile(path) as archive:
        return archive.read(NAME).decode()


def append_to_tflite(path: Path, record: Sidecar) -> None:
    """Put the labels and the record behind a `.tflite` model: readers of the format find `labels.txt` there."""
    labels = "".join(f"{label}\n" for _, label in record.classes)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in ((LABELS, labels), (NAME, record.to_json())):
            # A fixed date: the same model gives the same file.
            archive.writestr(zipfile.ZipInfo(name), text)


def append_to_onnx(path: Path, record: Sidecar) -> None:
    """Put the record behind an `.onnx` model, as one more metadata property."""
    with path.open("ab") as file:
        text = record.to_json().encode()
        entry = b"".join((*_field(1, PROPERTY.encode()), *_field(2, text)))
        file.write(b"".join(_field(14, entry)))


def _field(number: int, value: bytes) -> tuple[bytes, bytes, bytes]:
    """A field of bytes in protobuf's encoding: tag, length, value."""
    length, rest = [], len(value)
    while rest > 127:
        length.append(rest & 127 | 128)
        rest >>= 7
    return bytes([number << 3 | 2]), bytes([*length, rest]), value


def _properties(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The metadata properties of an ONNX file; the weights are skipped over."""
    while tag := _varint(file):
        length = _varint(file)
        if tag & 7 == 2 and tag >> 3 == 14:
            yield _pair(file.read(length))
        elif tag & 7 == 2:
            file.seek(length, 1)
        elif tag & 7 != 0:
            raise ValueError(f"a field of the unexpected wire type {tag & 7}")


def _pair(entry: bytes) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto: two strings, fields 1 and 2."""
    values, stream = {}, io.BytesIO(entry)
    while tag := _varint(stream):
        values[tag >> 3] = stream.read(_varint(stream)).decode()
    return values.get(1, ""), values.get(2, "")


def _varint(file: BinaryIO) -> int:
    """A number in protobuf's encoding; 0 at the end of the file."""
    number, shift = 0, 0
    while byte := file.read(1):
        number |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    return number
