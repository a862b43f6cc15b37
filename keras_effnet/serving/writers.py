"""A model as a file or folder of each format; in 8 bits with as many layers left in float32 as keep its answers."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.agreement import agree, scores
from keras_effnet.serving.engines import FORMATS, cores, start

log = logging.getLogger(__name__)
Layers = tuple[str, ...]
# Of the photos calibrated on: at which share of equal first labels no more layers are left in float32.
GOAL = 0.97


def _write_saved_model(network: Any, part: Path, classifier: Classifier, *_: Any) -> Layers:
    from keras_effnet.serving.tf_saved_model import write_saved_model

    write_saved_model(network, part, classes=classifier.classes, size=classifier.size, name=part.name)
    return ()


def _write_litert(network: Any, part: Path, classifier: Classifier, quantize: str | None, images: np.ndarray) -> Layers:
    from keras_effnet.serving.tf_convert import litert_candidates, to_litert

    if quantize == "int8":
        candidates = litert_candidates(network, classifier.size, images)
        return _write_first_good(candidates, part.write_bytes, part, classifier, images)
    part.write_bytes(to_litert(network, classifier.size, quantize=quantize))
    return ()


def _write_onnx(network: Any, part: Path, classifier: Classifier, *_: Any) -> Layers:
    from keras_effnet.serving.tf_convert import to_onnx

    part.write_bytes(to_onnx(network, classifier.size).SerializeToString())
    return ()


def _write_openvino(
    network: Any, part: Path, classifier: Classifier, quantize: str | None, images: np.ndarray
) -> Layers:
    import openvino

    from keras_effnet.serving.tf_convert import openvino_candidates, to_openvino

    def write(model: Any) -> None:
        openvino.save_model(model, part / "model.xml", compress_to_fp16=quantize == "float16")

    part.mkdir()
    if quantize == "int8":
        candidates = openvino_candidates(network, classifier.size, images)
        return _write_first_good(candidates, write, part, classifier, images)
    write(to_openvino(network, classifier.size))
    return ()


def _write_first_good(
    candidates: Iterable[tuple[Any, Layers]],
    write: Callable[[Any], object],
    part: Path,
    classifier: Classifier,
    images: np.ndarray,
) -> Layers:
    """Write the first model that gives the labels of the float one, or else the best, judged by what it has seen."""
    expected = scores(classifier, images)
    best: tuple[float, Any, Layers] = (-1.0, None, ())
    for model, kept in candidates:
        write(model)
        (run,) = start(part, FORMATS["openvino" if part.is_dir() else "litert"], threads=cores(), copies=1)
        log.info("asking %d photos with %d layers in float32", len(images), len(kept))
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
