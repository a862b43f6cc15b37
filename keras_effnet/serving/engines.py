"""The engines that run an exported model: LiteRT, ONNX Runtime, OpenVINO, TensorFlow. None needs Keras.

Every one is asked the same way: float32 images (batch, size, size, 3), 0..255, give float32 scores (batch, classes).
"""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import first_line
from keras_effnet.serving.model_record import Export

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """What runs a format.

    Args:
        name: what the user calls it.
        package: what has to be installed, as it is imported.
        format: what `export` calls its models.
        batch: how many images it works on at a time in throughput mode.
        start: from a model, the threads for each run and the number of runs side by side to the functions that run.
    """

    name: str
    package: str
    format: str
    batch: int
    start: Callable[[Path, int, int], Sequence[Run]]

    @property
    def installed(self) -> bool:
        """Whether its package is there; nothing is imported."""
        return find_spec(self.package.partition(".")[0]) is not None


def _litert(path: Path, threads: int, copies: int) -> Sequence[Run]:
    from ai_edge_litert.interpreter import Interpreter

    def runner() -> Run:
        interpreter = Interpreter(os.fspath(path), num_threads=threads)
        interpreter.allocate_tensors()
        (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images: np.ndarray) -> np.ndarray:
            rows = []
            for image in images:
                interpreter.set_tensor(given["index"], image[None])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(result["index"])[0])
            return np.stack(rows)

        return run

    return [runner() for _ in range(copies)]


def _onnx(path: Path, threads: int, copies: int) -> Sequence[Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    # A session may be run from several threads at once.
    return [lambda images: session.run(None, {given.name: images})[0]] * copies


def _openvino(path: Path, threads: int, copies: int) -> Sequence[Run]:
    import openvino

    model = openvino.Core().compile_model(
        path / "model.xml" if path.is_dir() else path,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads * copies,
            "NUM_STREAMS": copies,
            "INFERENCE_PRECISION_HINT": "f32",  # where the processor can, OpenVINO would calculate in bfloat16
        },
    )

    def runner() -> Run:
        request = model.create_infer_request()
        return lambda images: request.infer(images, share_inputs=True)[0].copy()

    return [runner() for _ in range(copies)]


def _tensorflow(path: Path, threads: int, copies: int) -> Sequence[Run]:
    from keras_effnet.serving.tf_saved_model import open_saved_model

    # TensorFlow's threads belong to the process: it parts the work itself.
    return [open_saved_model(path)]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("litert", "ai_edge_litert", "litert", 1, _litert),
        Engine("onnx", "onnxruntime", "onnx", 1, _onnx),
        Engine("openvino", "openvino", "openvino", 1, _openvino),
        Engine("tensorflow", "tensorflow", "saved_model", 32, _tensorflow),
    )
}
FORMATS = {engine.format: engine for engine in ENGINES.values()}
# LiteRT is the new name of TensorFlow Lite; both names are accepted for the engine and for the format.
ALIASES = {"tflite": "litert"}


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_engine(name: str, format: str) -> Engine:  # noqa: A002
    """The engine of that name, "auto" being the format's own, if it runs that format and is installed.

    Raises:
        ImportError: it is not installed.
        ValueError: no such engine, or one that does not run the format.

    Example:
        >>> find_engine("auto", "onnx").name
        'onnx'
    """
    engine = FORMATS[format] if name == "auto" else ENGINES.get(name)
    if engine is None or engine.format != format:
        raise ValueError(
            f"engine is {name!r} for a model of the format {format!r}. Expected 'auto' or {FORMATS[format].name!r}. "
            f"Choose one of these, or export the model for another of {', '.join(sorted(ENGINES))}."
        )
    if not engine.installed:
        raise ImportError(
            f"The engine {engine.name!r} is not installed. Expected the package {engine.package.replace('_', '-')}. "
            f"Run pip install {engine.package.replace('_', '-')}, or export the model for another engine."
        )
    return engine


def version(engine: Engine) -> str:
    """The version of an engine's package."""
    return str(importlib.import_module(engine.package).__version__)


def start(path: Path, engine: Engine, *, threads: int, copies: int) -> Sequence[Run]:
    """Load a model into an engine.

    Args:
        path: a file, or a folder with one version.
        engine: what runs it.
        threads: for each run.
        copies: how many runs there are to be side by side.

    Raises:
        ValueError: the engine cannot load it.
    """
    try:
        return engine.start(path, threads, copies)
    except (ValueError, RuntimeError, OSError, *_faults(engine)) as error:
        raise ValueError(
            f"The model {str(path)!r} cannot be loaded by {engine.name}: {first_line(error)} Expected a whole model of "
            f"the format {engine.format!r}. Export it again."
        ) from error


def check_record(run: Run, export: Export) -> None:
    """Refuse a record that is not this model's: one black image is asked about, which prepares the engine as well.

    Raises:
        ValueError: the engine takes no such images, or gives another number of scores.
    """
    record = export.record
    wanted = (1, len(record.classes))
    try:
        given = run(np.zeros((1, record.size, record.size, 3), np.float32)).shape
        fault = f"it gives scores of shape {given}" if given != wanted else ""
    except Exception as error:  # each engine has errors of its own
        fault = first_line(error)
    if fault:
        raise ValueError(
            f"The exported model {str(export.path)!r} is not the one of its record: {fault}. Expected images of "
            f"{record.size} x {record.size} pixels and scores of shape {wanted}. Export it again."
        )


def _faults(engine: Engine) -> tuple[Any, ...]:
    """What ONNX Runtime and TensorFlow raise is no RuntimeError."""
    if engine.name == "tensorflow":
        return (importlib.import_module(engine.package).errors.OpError,)
    if engine.name != "onnx":
        return ()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
