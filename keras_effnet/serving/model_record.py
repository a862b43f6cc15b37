"""What an exported model is: a record stored inside the model, and a copy as JSON next to it for people to read.

A `.tflite` file holds the record in a zip archive appended to the model, as TensorFlow Lite's own metadata does. An
`.onnx` file holds it as a metadata property. A folder holds it as a file. OpenVINO's `.xml` has only the copy.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_effnet.artifacts import LABELS, latest_folder
from keras_effnet.center_crop import CROPS, DECODES, View
from keras_effnet.errors import counted, require_packages
from keras_effnet.weights.formats.torch_files import open_zip

RECORD_FILE = "model.json"
PROPERTY = "keras_effnet"
FORMATS = ("litert", "onnx", "openvino", "saved_model")
# LiteRT is the new name of TensorFlow Lite; both names are accepted for the format and for the engine.
ALIASES = {"tflite": "litert"}
# Exports that are files; the others are folders. An .xml file has its weights in a .bin file of the same name.
FORMAT_OF_SUFFIX = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}


@dataclass(frozen=True)
class ModelRecord:
    """The description of an exported model.

    Args:
        format: "saved_model", "litert", "onnx" or "openvino".
        size: side of the images in pixels.
        classes: (wnid or None, label) of each output; none if the outputs are features.
        outputs: the number of outputs; None in the records of older versions, which have one for each class.
        applied: "softmax" or "sigmoid" if the export applies one to the outputs of the model, otherwise None.
        model: the name or path by which the model was loaded.
        variant: the network; None if it is not one of the published sizes.
        quantize: None, "float16", "dynamic" or "int8".
        fused: whether batch normalisation was folded into the convolutions.
        float_layers: the layers that "int8" left in float32, because 8 bits would have changed too many labels.
        weights: the weight set or weight file of the network.
        weights_sha256: the digest of the weight file.
        variables_sha256: the digest of the variables, in the order of `get_weights()`.
        crop: "center" if an image is the central square of a photo; None if it is the whole photo, resized to a square.
        decode: "exact", or "fast" if large JPEG files are decoded at a smaller size.
        input: the format of an image, for people.
        check: the difference between the export and the model, and the images it was measured on.
        versions: the versions of the packages that made the export.
    """

    format: str
    size: int
    classes: tuple[tuple[str | None, str], ...]
    outputs: int | None = None
    applied: str | None = None
    model: str = ""
    variant: str | None = None
    quantize: str | None = None
    fused: bool = False
    float_layers: tuple[str, ...] = ()
    weights: str | None = None
    weights_sha256: str | None = None
    variables_sha256: str | None = None
    crop: str | None = "center"
    decode: str = "exact"
    input: Mapping[str, Any] = field(default_factory=dict)
    check: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        kind = f"{self.format}, {self.quantize}" if self.quantize else self.format
        outputs = counted(len(self.classes), "class") if self.classes else counted(self.scores, "feature")
        return f"ModelRecord({self.model!r}, {kind}, {self.size} x {self.size} pixels, {outputs})"

    @cached_property
    def view(self) -> View:
        """How a photo becomes an image of the model."""
        return View(self.size, self.crop, self.decode)

    @cached_property
    def scores(self) -> int:
        """The number of scores or features of an image."""
        return len(self.classes) or self.outputs or 0

    def to_json(self) -> str:
        """The record as JSON.

        Example:
            >>> json.loads(ModelRecord("litert", 224, ((None, "rose"),)).to_json())["classes"]
            [[None, 'rose']]
        """
        return json.dumps(asdict(self), indent=1) + "\n"


def suffix(format: str) -> str:  # noqa: A002
    """The suffix of a format's file, "" for a format that is a folder by default.

    Example:
        >>> suffix("litert"), suffix("openvino")
        ('.tflite', '')
    """
    return {"litert": ".tflite", "onnx": ".onnx"}.get(format, "")


def find_format(path: Path, format: str | None) -> str:  # noqa: A002
    """The format to export to, by its name or, with None, by the suffix of the path.

    Raises:
        ValueError: the format or the suffix is unknown.

    Example:
        >>> find_format(Path("flowers.onnx"), None), find_format(Path("flowers"), None)
        ('onnx', 'saved_model')
    """
    found = FORMAT_OF_SUFFIX.get(path.suffix.lower(), None if path.suffix else "saved_model")
    if format is None and found is None:
        raise ValueError(
            f"The path {str(path)!r} has the suffix {path.suffix!r}. Expected {', '.join(sorted(FORMAT_OF_SUFFIX))}, "
            "or none for the folder of a SavedModel. Change the path, or give the format."
        )
    chosen = ALIASES.get(format, format) if format else found
    if chosen not in FORMATS:
        raise ValueError(f"format is {format!r}. Expected one of {', '.join(FORMATS)}.")
    return chosen


def check_target(path: Path, format: str) -> None:  # noqa: A002
    """Refuse a path that does not fit the format.

    Raises:
        ValueError: the path has the suffix of another format, lacks that of its own, or is a folder and not a file.
    """
    ending, is_folder = suffix(format), not suffix(format)
    known = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if known != format and (known or not is_folder):
        raise ValueError(
            f"The path {str(path)!r} does not fit the format {format!r}. Expected "
            f"{'a folder' if is_folder else f'a file *{ending}'}. Choose another path."
        )
    if known and path.is_dir():
        raise ValueError(
            f"The path {str(path)!r} is a folder. Expected a file *{path.suffix.lower()}. Choose another path."
        )


def json_path(path: Path) -> Path:
    """Where the record of an exported model is stored as JSON: in its folder, or next to its file.

    Example:
        >>> json_path(Path("flowers.tflite")).name
        'flowers.tflite.json'
    """
    return path / RECORD_FILE if path.is_dir() else path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class Export:
    """An exported model: its file, or the folder of one version, and its record."""

    path: Path
    record: ModelRecord


def open_export(path: Path) -> Export:
    """Find an exported model.

    Args:
        path: a file, a folder, or a folder with numbered versions, of which the highest is taken.

    Raises:
        ImportError: the model is an `.onnx` file and ONNX Runtime is not installed.
        ValueError: there is no model, or its record is missing or damaged.
    """
    if path.suffix.lower() in (".xml", ".bin"):
        path = path.with_suffix(".xml")
        path = path if json_path(path).is_file() else path.parent
    if path.is_dir() and not (path / RECORD_FILE).is_file():
        path = latest_folder(path) or path
    try:
        record = _from_json(_read(path))
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "its record is missing or damaged"
        if (path / "saved_model.pb").is_file() and not (path / RECORD_FILE).is_file():
            reason = "it is a SavedModel that keras-effnet export did not write"
        raise ValueError(
            f"There is no exported model at {str(path)!r}: {reason}. Expected a .tflite, .onnx or .xml file, or a "
            f"folder with a {RECORD_FILE} or with numbered versions. Create one with keras-effnet export; the folder "
            "of a training run contains a model.keras once the run has ended."
        ) from error
    return Export(path, record)


def _from_json(text: str) -> ModelRecord:
    """Parse a record; fields that a later version has added are ignored."""
    given = json.loads(text)
    record = ModelRecord(**{name: given[name] for name in ModelRecord.__dataclass_fields__ if name in given})
    classes = tuple((wnid, label) for wnid, label in record.classes)
    names_are_text = all(type(name) is str for _, name in classes)
    known = (
        record.format in FORMATS
        and record.crop in CROPS
        and record.decode in DECODES
        and isinstance(record.outputs, int | None)
    )
    if not known or type(record.size) is not int or not names_are_text or not record.scores:
        raise ValueError("not the record of an exported model")
    return replace(record, classes=classes, float_layers=tuple(record.float_layers))


def _read(path: Path) -> str:
    kind = path.suffix.lower()
    if path.is_dir():
        return (path / RECORD_FILE).read_text("utf-8")
    if kind == ".xml":
        return json_path(path).read_text("utf-8")
    if kind == ".onnx":
        return _read_onnx(path)
    # Not the JSON next to the file, which may belong to another file of this name.
    with open_zip(path) as archive:
        info = archive.getinfo(RECORD_FILE)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
            raise ValueError("a compressed record, which could have any size")
        return archive.read(info).decode()


def _read_onnx(path: Path) -> str:
    require_packages(f"Reading {str(path)!r}", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    path.open("rb").close()  # raises OSError with the reason
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen errors without a common base class
        raise ValueError("not an ONNX model") from error
    return session.get_modelmeta().custom_metadata_map[PROPERTY]


def append_to_tflite(path: Path, record: ModelRecord) -> None:
    """Append the labels and the record to a `.tflite` file. Tools for the format look for `labels.txt` there."""
    labels = "".join(f"{label}\n" for _, label in record.classes)
    files = {LABELS: labels, RECORD_FILE: record.to_json()} if labels else {RECORD_FILE: record.to_json()}
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in files.items():
            # With a fixed date, the same model gives the same file.
            archive.writestr(zipfile.ZipInfo(name), text)


def add_to_onnx(path: Path, record: ModelRecord) -> None:
    """Add the record to an `.onnx` file as a metadata property."""
    import onnx

    model = onnx.load(path)
    model.metadata_props.add(key=PROPERTY, value=record.to_json())
    onnx.save(model, path)
