"""Export a model for a fast engine: fused, with labels and preprocessing inside, and compared with Keras.

Source of the folder layouts: TensorFlow Serving and OpenVINO Model Server, both <model>/<version>/.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from keras_effnet.artifacts import latest, staged
from keras_effnet.errors import Range, counted, first_line
from keras_effnet.exporting.tflite_metadata import add_metadata, describe_classifier
from keras_effnet.images import CROP_PADDING, View
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.labels import ModelOptions
from keras_effnet.inference.provenance import provenance, variables_digest
from keras_effnet.introspection import variant_of
from keras_effnet.native_logs import muted_stderr
from keras_effnet.normalization import Normalization
from keras_effnet.serving.agreement import ENOUGH, MOST, Check, Images, check_images, compare, split
from keras_effnet.serving.engines import start, version
from keras_effnet.serving.export_card import card_path, export_card, write_beside
from keras_effnet.serving.model_record import (
    FORMAT_OF_SUFFIX,
    RECORD_FILE,
    ModelRecord,
    add_to_onnx,
    append_to_tflite,
)
from keras_effnet.serving.writers import WRITERS, Task, check_arguments
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.registry import WEIGHTS

PIXELS = "RGB, float32, 0 to 255"
# How the images of a network are made from photos, by `View.crop`.
INPUT: Mapping[str | None, Mapping[str, Any]] = {
    "center": {
        "pixels": PIXELS,
        "crop": "the central square, size / (size + crop_padding) of the shorter side",
        "crop_padding": CROP_PADDING,
        "resize": "bicubic as in TensorFlow 1: a = -0.75, no antialiasing, half_pixel_centers=False",
    },
    None: {
        "pixels": PIXELS,
        "crop": "none: the whole image, whose aspect ratio is not kept",
        "resize": "bilinear, no antialiasing, half_pixel_centers=True",
    },
}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        path: the file, or the folder of this version.
        record: the description that is stored in the export.
        check: the comparison with the Keras model.
    """

    path: Path
    record: ModelRecord
    check: Check

    def __repr__(self) -> str:
        return f"Exported({str(self.path)!r}, {self.record!r}, difference {self.check.difference:.1e})"


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    quantize: str | None = None,
    representative: Any = None,
    held_out: Any = None,
    min_agreement: float = 0.9,
    **options: Unpack[ModelOptions],
) -> Exported:
    """Write a model for a fast engine. The export takes pixels 0..255, returns probabilities and contains the labels.

    Batch normalisation is folded where possible, and all precisions are exported as float32. The export is loaded by
    its engine and compared with the model: if they differ too much, nothing is written. The previous export at `path`
    is replaced only when the new one is complete.

    Args:
        model: a Keras model, a `Classifier`, or an argument of `load_classifier`. A model without a classifier is
            exported without labels and returns its features.
        path: a file `*.tflite`, `*.onnx` or `*.xml`, which is replaced; or a folder for a SavedModel or OpenVINO, in
            which every export gets a folder with the next number, as TensorFlow Serving and OpenVINO Model Server
            expect.
        format: "saved_model", "litert" (or "tflite"), "onnx" or "openvino"; by default the format of the suffix of
            `path`, and "saved_model" for a path without one.
        quantize: None; "float16": weights of half the size; "dynamic", for LiteRT: weights in 8 bits; "int8": weights
            and activations in 8 bits.
        representative: photos like those that the model will see: a folder, or an iterable as in `classify`. "int8" is
            calibrated on them, and needs a few hundred; the export is compared on them. At most 1,000 are read, evenly
            spaced, or 16 without `quantize`. By default photographs of scikit-image, or else noise.
        held_out: photos that "int8" is compared on; by default every fourth of `representative`, which is then not used
            for calibration.
        min_agreement: the share of the photos on which a quantized model must have the same first label.
        **options: `labels`, `size`, `crop` and `decode` of the model, as in `ModelOptions`.

    Raises:
        ImportError: the engine or the converter of the format is not installed.
        OSError: the disk is full or `path` is not writable.
        ValueError: the format is unknown, the labels or the size do not fit the model, or the export differs too much.

    Example:
        >>> import tempfile, keras_effnet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export("lite0", f"{folder}/lite0.tflite")
        ...     (done.path.name, done.check.agreement)
        ('lite0.tflite', 1.0)
    """
    Range(least=0, most=1).check("min_agreement", min_agreement)
    task = check_arguments(path, format, quantize=quantize, representative=representative, held_out=held_out)
    return export_task(task, as_classifier(model, **options), min_agreement)


def export_task(task: Task, classifier: Classifier, min_agreement: float) -> Exported:
    """Write a model as `export` does, for arguments that have been checked."""
    from keras_effnet.inference.rebuild import in_float32

    target, kind, quantize = task.target, task.format, task.quantize
    if (network := in_float32(classifier.model)) is not classifier.model:
        classifier = replace(classifier, model=network)
    calibration, others = _photos(task.representative, task.held_out, classifier.view, quantize)
    network, fused = _serving_model(classifier, kind)
    is_file = target.suffix.lower() in FORMAT_OF_SUFFIX
    with clear_errors(target, kind), staged(target, numbered=not is_file) as part:
        with muted_stderr():  # converters report every step
            kept = WRITERS[kind](network, part, classifier, quantize, calibration.pixels)
        run, made_by = start(part, task.engine), {task.engine.package: version(task.engine)}
        check = compare(classifier, run, others, quantize=quantize, min_agreement=min_agreement)
        record = replace(_record(classifier, kind, check, made_by), quantize=quantize, fused=fused, float_layers=kept)
        _store_record(record, part, target.name)
        if part.suffix.lower() == ".xml":
            with staged(target.with_suffix(".bin")) as weights:
                part.with_suffix(".bin").replace(weights)
    if is_file:
        with clear_errors(target, kind):
            write_beside(target, record)
    return Exported(target if is_file else target / str(latest(target)), record, check)


@contextmanager
def clear_errors(target: Path, format: str) -> Iterator[None]:  # noqa: A002
    """Turn whatever converters and runtimes raise into one clear error."""
    try:
        yield
    except (ImportError, ValueError):
        raise
    except OSError as error:
        raise OSError(
            f"The export cannot be written to {str(target)!r}: {error.strerror or error}. Expected free space and "
            "permission to write. Free some space, or choose another path; the previous export is unchanged."
        ) from error
    except Exception as error:
        raise ValueError(
            f"The model cannot be written as {format!r}: {type(error).__name__}: {first_line(error)} Expected "
            "operations that the format supports, and free disk space. Free some space, or choose another format; "
            "nothing was written."
        ) from error


def _photos(representative: Any, held_out: Any, view: View, quantize: str | None) -> tuple[Images, Images]:
    """The photos for calibration, and the photos for the comparison."""
    images = check_images(representative, view, ENOUGH if quantize else MOST)
    if quantize != "int8":
        return images, images
    return split(images, check_images(held_out, view) if held_out is not None else None)


def _serving_model(classifier: Classifier, format: str) -> tuple[Any, bool]:  # noqa: A002
    """The model from pixels 0..255 to probabilities, and whether it was fused."""
    from keras_effnet._keras import keras
    from keras_effnet.inference.fusion import fuse

    if format != "onnx" and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}. Expected tensorflow, which has the converters. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported, and load the model there; or export to ONNX, which "
            "needs no converter."
        )
    model = classifier.model
    try:
        network, fused = fuse(model), True
    except (TypeError, ValueError):
        network, fused = model, False
    unchanged = classifier.outputs.scores == classifier.outputs.count and not classifier.outputs.applied
    if classifier.normalization is None and unchanged and model.input_shape[1] is not None:
        return network, fused
    images = keras.Input((classifier.size, classifier.size, 3), name="images")
    pixels = images if classifier.normalization is None else _normalized(images, classifier.normalization)
    return keras.Model(images, classifier.outputs.add_to(network(pixels)), name=model.name), fused


def _normalized(images: Any, constants: Normalization) -> Any:
    # A layer, because tf2onnx turns the constants of an operation into inputs.
    from keras_effnet._keras import keras

    return keras.layers.Rescaling(constants.scale, constants.offset, name="normalization")(images)


def _store_record(record: ModelRecord, part: Path, name: str) -> None:
    if part.is_dir():
        (part / RECORD_FILE).write_text(record.to_json(), "utf-8")
        card_path(part).write_text(export_card(record, name), "utf-8")
    elif record.format == "litert":
        part.write_bytes(add_metadata(part.read_bytes(), _metadata(record)))
        append_to_tflite(part, record)
    elif record.format == "onnx":
        add_to_onnx(part, record)


def _metadata(record: ModelRecord) -> bytes:
    """What MediaPipe Tasks and ML Kit read."""
    labels = [label for _, label in record.classes]
    purpose = f"Classifies images into {counted(len(labels), 'class')}." if labels else "Computes features of images."
    published = WEIGHTS.get((record.variant or "", record.weights or ""))
    authors, licence = (published.credit, published.licence) if published else ("", "")
    return describe_classifier(record.variant or record.model, purpose, labels, authors, licence)


def _record(
    classifier: Classifier,
    format: str,  # noqa: A002
    check: Check,
    made_by: Mapping[str, str],
) -> ModelRecord:
    source = provenance(classifier)
    return ModelRecord(
        format=format,
        size=classifier.size,
        classes=classifier.classes,
        outputs=classifier.outputs.scores,
        applied=classifier.outputs.applied,
        model=source["model"],
        variant=_variant_name(classifier.model),
        weights=source["weights"],
        weights_sha256=source["weights_sha256"],
        variables_sha256=variables_digest(classifier.model),
        crop=classifier.crop,
        decode=classifier.decode,
        input=INPUT[classifier.crop],
        check=asdict(check),
        versions=source["versions"] | made_by,
    )


def _variant_name(model: Any) -> str | None:
    try:
        name = variant_of(model).name
    except (AttributeError, ValueError):
        return None
    return name if name in VARIANTS else None
