"""A model into a file that a fast engine runs: fused, with labels and preprocessing, compared with Keras as it is made.

Source of the layouts: TensorFlow Serving and OpenVINO Model Server, both <model>/<version>/.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.artifacts import latest, staged
from keras_effnet.errors import first_line
from keras_effnet.imagenet import normalizes_inside, preprocess_input
from keras_effnet.images import CROP_PADDING
from keras_effnet.inference.classifier import Classifier, as_classifier, load_classifier
from keras_effnet.inference.evaluate import provenance
from keras_effnet.introspection import variant_of
from keras_effnet.serving.agreement import ENOUGH, MOST, Check, Images, check_images, compare, split
from keras_effnet.serving.engines import FORMATS, cores, find_engine, start, version
from keras_effnet.serving.model_record import NAME, Sidecar, append_to_onnx, append_to_tflite, sidecar_path, suffix
from keras_effnet.serving.writers import WRITERS
from keras_effnet.variants import VARIANTS

INPUT = {
    "pixels": "RGB, float32, 0 to 255",
    "crop": "the central square, size / (size + crop_padding) of the shorter side",
    "resize": "bicubic as in TensorFlow 1: a = -0.75, no antialiasing, half_pixel_centers=False",
}
QUANTIZE = {
    "litert": (None, "float16", "dynamic", "int8"),
    "onnx": (None,),
    "openvino": (None, "float16", "int8"),
    "saved_model": (None,),
}


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from the model.

    Args:
        path: the file, or the folder of this version.
        record: what the sidecar says.
        check: the comparison with the Keras model.
    """

    path: Path
    record: Sidecar
    check: Check


def export(
    model: Any,
    path: str | os.PathLike[str],
    format: str = "saved_model",  # noqa: A002
    *,
    quantize: str | None = None,
    representative: Any = None,
    held_out: Any = None,
    min_agreement: float = 0.9,
) -> Exported:
    """Write a model for a fast engine; it takes pixels 0..255, gives probabilities, and says what they mean.

    It is fused where it can be, in float32 whatever precision it was trained in, loaded again by its own engine and
    compared with the model; if it differs too much nothing is written. What was at `path` stays whole until the new one
    is.

    Args:
        model: a Keras model with ImageNet's classes, a `Classifier`, or what `load_classifier` takes.
        path: a file `*.tflite` or `*.onnx`, replaced; for "saved_model" and "openvino" a folder, in which every export
            gets a folder with the next number, as TensorFlow Serving and OpenVINO Model Server want them.
        format: "saved_model", "litert", "onnx" or "openvino".
        quantize: None; "float16": weights of half the size; for LiteRT "dynamic": weights in 8 bits; "int8": all of
            it in 8 bits.
        representative: photos like those it will see, a folder or an iterable as in `classify`: what "int8" is
            calibrated on, a few hundred, and what is compared; of more than 1,000 as many, evenly spaced, and of these
            16 without `quantize`. By default photographs of scikit-image, or else noise.
        held_out: what "int8" is compared on instead; by default every fourth of `representative`, not calibrated on.
        min_agreement: of a quantized model: on what share of the photos it has to have the model's first label.

    Raises:
        ImportError: the format's engine or converter is not installed.
        OSError: there is no room, or no permission to write.
        ValueError: an unknown format, a model that is none of a classifier, or one that differs too much.

    Example:
        >>> import tempfile, keras_effnet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export("lite0", f"{folder}/lite0.tflite", "litert")
        ...     (done.path.name, done.check.agreement)
        ('lite0.tflite', 1.0)
    """
    from keras_effnet.inference.rebuild import in_float32

    target = Path(path)
    _check_arguments(target, format, quantize, representative, held_out)
    engine = find_engine("auto", format)
    classifier = load_classifier(model) if isinstance(model, str | os.PathLike) else as_classifier(model)
    classifier = replace(classifier, model=in_float32(classifier.model))
    calibration, others = _photos(representative, held_out, classifier.size, quantize)
    network, fused = _serving_model(classifier)
    with _faults_in_words(target, format), staged(target, numbered=not suffix(format)) as part:
        kept = WRITERS[format](network, part, classifier, quantize, calibration.pixels)
        (run,) = start(part, engine, threads=cores(), copies=1)
        check = compare(classifier, run, others, quantize=quantize, min_agreement=min_agreement)
        record = replace(_record(classifier, format, check), quantize=quantize, fused=fused, float_layers=kept)
        _put_inside(record, part)
    if suffix(format):
        with _faults_in_words(target, format), staged(sidecar_path(target)) as part:
            part.write_text(record.to_json(), "utf-8")
    return Exported(target if suffix(format) else target / str(latest(target)), record, check)


@contextmanager
def _faults_in_words(target: Path, format: str) -> Iterator[None]:  # noqa: A002
    """Say what could not be written, whatever the converters and runtimes raise."""
    try:
        yield
    except (ImportError, ValueError):
        raise
    except OSError as error:
        raise OSError(
            f"The export cannot be written to {str(target)!r}: {error.strerror or error}. Expected room there, and "
            "permission to write. Make room, or choose another place; what was there before still is."
        ) from error
    except Exception as error:
        raise ValueError(
            f"The model cannot be written as {format!r}: {type(error).__name__}: {first_line(error)} Expected "
            "operations that the format has, and room on the disk. Make room, or choose another format; nothing was "
            "written."
        ) from error


def _photos(representative: Any, held_out: Any, size: int, quantize: str | None) -> tuple[Images, Images]:
    """What is calibrated on, and what is compared."""
    images = check_images(representative, size, ENOUGH if quantize else MOST)
    if quantize != "int8":
        return images, images
    return split(images, check_images(held_out, size) if held_out is not None else None)


def _check_arguments(
    path: Path,
    format: str,  # noqa: A002
    quantize: str | None,
    representative: Any,
    held_out: Any,
) -> None:
    if format not in QUANTIZE:
        raise ValueError(f"format is {format!r}. Expected one of {', '.join(QUANTIZE)}. Choose one of these.")
    if quantize not in QUANTIZE[format]:
        other = "" if format == "litert" else ", or the format 'litert'"
        raise ValueError(
            f"quantize is {quantize!r} for the format {format!r}. Expected one of "
            f"{', '.join(str(way) for way in QUANTIZE[format])}. Choose one of these{other}."
        )
    if held_out is not None and quantize != "int8":
        raise ValueError(
            f"There are photos held out and quantize is {quantize!r}. Expected 'int8', which is compared on them. "
            "Leave held_out away, or pass quantize='int8'."
        )
    if quantize == "int8" and representative is None:
        raise ValueError(
            "quantize is 'int8' without representative photos. Expected a few hundred like those the model will see: "
            "the ranges of its numbers are taken from them. Pass representative=, a folder of photos for example."
        )
    ending = suffix(format)
    if path.suffix.lower() != ending and (ending or path.suffix.lower() in (".tflite", ".onnx", ".xml")):
        raise ValueError(
            f"The path {str(path)!r} is for the format {format!r}. Expected "
            f"{f'a file *{ending}' if ending else 'a folder'}. Choose another path."
        )
    if ending and path.is_dir():
        raise ValueError(f"The path {str(path)!r} is a folder. Expected a file *{ending}. Choose another path.")


def _serving_model(classifier: Classifier) -> tuple[Any, bool]:
    """The model as it is served, from pixels 0..255 to probabilities, and whether it could be fused."""
    from keras_effnet._keras import keras
    from keras_effnet.inference.fusion import fuse

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}. Expected tensorflow, whose converters are used. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported, and load the model there."
        )
    model = classifier.model
    try:
        network, fused = fuse(model), True
    except (TypeError, ValueError):
        network, fused = model, False
    if normalizes_inside(model) and not classifier.gives_logits:
        return network, fused
    images = keras.Input((classifier.size, classifier.size, 3), name="images")
    # A layer, since tf2onnx makes inputs of an operation's constants.
    black, white = (
        preprocess_input(np.full((1, 1, 3), value), "channels_last", model=model)[0, 0] for value in (0, 255)
    )
    pixels = keras.layers.Rescaling(((white - black) / 255).tolist(), black.tolist(), name="normalization")(images)
    scores = network(pixels if not normalizes_inside(model) else images)
    if classifier.gives_logits:
        scores = keras.layers.Softmax(dtype="float32", name="probabilities")(scores)
    return keras.Model(images, scores, name=model.name), fused


def _put_inside(record: Sidecar, part: Path) -> None:
    if part.is_dir():
        (part / NAME).write_text(record.to_json(), "utf-8")
    elif record.format == "litert":
        append_to_tflite(part, record)
    else:
        append_to_onnx(part, record)


def _record(
    classifier: Classifier,
    format: str,  # noqa: A002
    check: Check,
) -> Sidecar:
    source = provenance(classifier)
    engine = FORMATS[format]
    numbers = hashlib.sha256()
    for value in classifier.model.get_weights():
        numbers.update(np.ascontiguousarray(value).tobytes())
    return Sidecar(
        format=format,
        size=classifier.size,
        classes=classifier.classes,
        model=source["model"],
        variant=_variant_name(classifier.model),
        weights=source["weights"],
        weights_sha256=source["weights_sha256"],
        variables_sha256=numbers.hexdigest(),
        input=INPUT | {"crop_padding": CROP_PADDING},
        check=asdict(check),
        versions=source["versions"] | {engine.package: version(engine)},
    )


def _variant_name(model: Any) -> str | None:
    try:
        name = variant_of(model).name
    except (AttributeError, ValueError):
        return None
    return name if name in VARIANTS else None
