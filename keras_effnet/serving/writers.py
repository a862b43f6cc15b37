"""Checks the arguments of an export and writes its file. With int8, some layers may have to stay in float32."""

import logging
import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import require_packages
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.agreement import agree, scores
from keras_effnet.serving.engines import ENGINES, PACKAGES, Engine, find_engine, start
from keras_effnet.serving.model_record import check_target, find_format

log = logging.getLogger(__name__)
Layers = tuple[str, ...]
# The share of calibration photos with the float model's label at which no more layers are left in float32.
GOAL = 0.97


def _output(classifier: Classifier) -> str:
    """The name of an export's output."""
    return "probabilities" if classifier.classes else "features"


def _write_saved_model(network: Any, part: Path, classifier: Classifier, *_: Any) -> Layers:
    from keras_effnet.serving.tf_saved_model import write_saved_model

    view = classifier.view
    write_saved_model(network, part, classes=classifier.classes, size=view.size, crop=view.crop, name=part.name)
    return ()


def _write_litert(network: Any, part: Path, classifier: Classifier, quantize: str | None, images: np.ndarray) -> Layers:
    from keras_effnet.exporting.tf_convert import litert_candidates, to_litert

    if quantize == "int8":
        candidates = litert_candidates(network, classifier.size, images)
        return _write_first_good(candidates, part.write_bytes, (part, ENGINES["litert"]), classifier, images)
    part.write_bytes(to_litert(network, classifier.size, quantize=quantize, output=_output(classifier)))
    return ()


def _write_onnx(network: Any, part: Path, classifier: Classifier, *_: Any) -> Layers:
    from keras_effnet.exporting.onnx_layers import UnknownLayerError, to_onnx

    try:
        model = to_onnx(network, _output(classifier))
    except UnknownLayerError as error:
        model = _convert_to_onnx(network, classifier, str(error))
    part.write_bytes(model.SerializeToString())
    return ()


def _convert_to_onnx(network: Any, classifier: Classifier, reason: str) -> Any:
    """Convert a model with layers that this package does not write itself."""
    from keras_effnet._keras import keras
    from keras_effnet.exporting import tf_convert

    if find_spec("tf2onnx") is None:
        raise ImportError(
            f"{reason} Expected the layers of an EfficientNet, or the package tf2onnx, which converts others. Run pip "
            'install "keras_effnet[onnx-other]".'
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{reason} Expected the layers of an EfficientNet, or Keras on TensorFlow, from which tf2onnx converts "
            f"others; it runs on {keras.backend.backend()}. Set KERAS_BACKEND=tensorflow."
        )
    return tf_convert.to_onnx(network, classifier.size, output=_output(classifier))


def _write_openvino(
    network: Any, part: Path, classifier: Classifier, quantize: str | None, images: np.ndarray
) -> Layers:
    import openvino

    from keras_effnet.exporting.tf_convert import openvino_candidates, to_openvino

    file = part
    if part.suffix.lower() != ".xml":
        part.mkdir()
        file = part / "model.xml"

    def write(model: Any) -> None:
        openvino.save_model(model, file, compress_to_fp16=quantize == "float16")

    if quantize == "int8":
        candidates = openvino_candidates(network, classifier.size, images)
        return _write_first_good(candidates, write, (file, ENGINES["openvino"]), classifier, images)
    write(to_openvino(network, classifier.size, output=_output(classifier)))
    return ()


def _write_first_good(
    candidates: Iterable[tuple[Any, Layers]],
    write: Callable[[Any], object],
    written: tuple[Path, Engine],
    classifier: Classifier,
    images: np.ndarray,
) -> Layers:
    """Write the first candidate that reaches the goal on the calibration photos, or else the best one.

    Args:
        candidates: models, and the layers that each leaves in float32.
        write: writes one of them.
        written: the file that `write` writes, and the engine that runs it.
        classifier: the float model.
        images: the calibration photos.
    """
    path, engine = written
    expected = scores(classifier, images)
    best: tuple[float, Any, Layers] = (-1.0, None, ())
    for model, kept in candidates:
        write(model)
        run = start(path, engine)
        log.info("comparing on %d photos with %d layers in float32", len(images), len(kept))
        agreement = agree(np.concatenate([run(image[None]) for image in images]), expected)
        best = max(best, (agreement, model, kept), key=lambda row: row[0])
        if agreement >= GOAL:
            break
    write(best[1])
    return best[2]


WRITERS = {
    "litert": _write_litert,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "saved_model": _write_saved_model,
}
QUANTIZE = {
    "litert": (None, "float16", "dynamic", "int8"),
    "onnx": (None,),
    "openvino": (None, "float16", "int8"),
    "saved_model": (None,),
}


class Task(NamedTuple):
    """An export whose arguments have been checked; they are those of `export`."""

    target: Path
    format: str
    engine: Engine
    quantize: str | None
    representative: Any
    held_out: Any


def check_arguments(
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002
    *,
    quantize: str | None = None,
    representative: Any = None,
    held_out: Any = None,
) -> Task:
    """Check the arguments of `export`; neither Keras nor TensorFlow is imported.

    Returns:
        What to export, with the format and the engine that runs it.

    Raises:
        ImportError: the engine of the format is not installed.
        ValueError: the format is unknown, or an argument does not fit it.
    """
    target = Path(path)
    kind = find_format(target, format)
    check_target(target, kind)
    _check_quantize(kind, quantize, representative, held_out)
    require_packages(f"The format {kind!r}", *PACKAGES[kind])
    return Task(target, kind, find_engine("auto", kind), quantize, representative, held_out)


def _check_quantize(format: str, quantize: str | None, representative: Any, held_out: Any) -> None:  # noqa: A002
    if quantize not in QUANTIZE[format]:
        ways = ", ".join(sorted(way for way in QUANTIZE[format] if way)) or "no quantization: it is written in float32"
        others = " or ".join(each for each, known in QUANTIZE.items() if quantize in known)
        raise ValueError(
            f"quantize is {quantize!r} for the format {format!r}. Expected {ways}."
            + (f" For {quantize}, choose the format {others}." if others else "")
        )
    if held_out is not None and quantize != "int8":
        raise ValueError(
            f"held_out was given, but quantize is {quantize!r}. Expected 'int8', which is compared on these photos. "
            "Leave held_out out, or pass quantize='int8'."
        )
    if quantize == "int8" and representative is None:
        raise ValueError(
            "quantize is 'int8' without representative photos. Expected a few hundred photos like those the model will "
            "see, to choose the ranges of its numbers. Pass representative=, for example a folder of photos."
        )
