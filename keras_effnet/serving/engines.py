"""The engines that run an exported model: LiteRT, ONNX Runtime, OpenVINO, TensorFlow. None of them needs Keras.

All have the same interface: float32 images (batch, size, size, 3), 0..255, in; float32 scores (batch, classes) out.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from threading import Lock, Semaphore, local
from typing import Any

import numpy as np

from keras_effnet.errors import first_line
from keras_effnet.forks import check_fork
from keras_effnet.native_logs import muted_stderr
from keras_effnet.serving.model_record import Export

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """A library that runs models of one format.

    Args:
        name: the engine's name in the arguments of this package.
        package: the package that must be installed, by its import name.
        format: the name of the format, as in `export`.
        batch: the number of images that a call gets in throughput mode.
        start: loads a model. Its arguments are the model, the threads of each run and the number of parallel runs; it
            returns one function for each run.
    """

    name: str
    package: str
    format: str
    batch: int
    start: Callable[[Path, int, int], Sequence[Run]]

    @property
    def installed(self) -> bool:
        """Whether its package is installed. Nothing is imported."""
        return find_spec(self.package.partition(".")[0]) is not None


def _litert(path: Path, threads: int, copies: int) -> Sequence[Run]:
    from ai_edge_litert.interpreter import Interpreter

    def runner() -> Run:
        with muted_stderr():  # reports its delegate
            interpreter = Interpreter(os.fspath(path), num_threads=threads)
            interpreter.allocate_tensors()
        (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images: np.ndarray) -> np.ndarray:
            rows = []
            for i in range(len(images)):
                interpreter.set_tensor(given["index"], images[i : i + 1])
                interpreter.invoke()
                rows.append(interpreter.get_tensor(result["index"]))
            return rows[0] if len(rows) == 1 else np.concatenate(rows)

        return run

    return [runner() for _ in range(copies)]


def _onnx(path: Path, threads: int, copies: int) -> Sequence[Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Weights that training has driven towards zero would otherwise slow the processor down many times.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if copies > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    # A session can be run from several threads at once.
    return [lambda images: session.run(None, {given.name: images})[0]] * copies


def _openvino(path: Path, threads: int, copies: int) -> Sequence[Run]:
    import openvino

    model = openvino.Core().compile_model(
        path / "model.xml" if path.is_dir() else path,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads * copies,
            "NUM_STREAMS": copies,
            "INFERENCE_PRECISION_HINT": "f32",  # by default, OpenVINO uses bfloat16 on processors that support it
        },
    )

    def runner() -> Run:
        request = model.create_infer_request()
        return lambda images: request.infer(images, share_inputs=True)[0].copy()

    return [runner() for _ in range(copies)]


def _tensorflow(path: Path, threads: int, copies: int) -> Sequence[Run]:
    from keras_effnet.serving.tf_saved_model import open_saved_model

    # TensorFlow has one thread pool for the whole process and distributes the work itself.
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
ENGINE_OF_FORMAT = {engine.format: engine for engine in ENGINES.values()}

# What each format needs, by import name: the engine, and the converter if it is a package of its own.
PACKAGES = {
    "litert": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "saved_model": ("tensorflow",),
}


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_engine(name: str, format: str) -> Engine:  # noqa: A002
    """The engine of this name, if it runs the format and is installed; "auto" is the engine of the format.

    Raises:
        ImportError: the engine is not installed.
        ValueError: the engine does not exist or does not run the format.

    Example:
        >>> find_engine("auto", "onnx").name
        'onnx'
    """
    expected = ENGINE_OF_FORMAT[format]
    engine = expected if name == "auto" else ENGINES.get(name)
    if engine is None or engine.format != format:
        raise ValueError(
            f"engine is {name!r}, which does not run the format {format!r}. Expected 'auto' or {expected.name!r}. "
            "Choose one of these, or export the model to another format."
        )
    if not engine.installed:
        package = engine.package.replace("_", "-")
        raise ImportError(
            f"The engine {engine.name!r} is not installed. Expected the package {package}. Run pip install "
            f"{' '.join(PACKAGES[format]).replace('_', '-')}, or export the model to another format."
        )
    return engine


def version(engine: Engine) -> str:
    """The version of an engine's package."""
    return str(importlib.import_module(engine.package).__version__)


def start(path: Path, engine: Engine, *, parallel: bool = False, threads: int | None = None) -> Run:
    """Load a model into an engine.

    Args:
        path: a file, or the folder of one version.
        engine: the engine.
        parallel: whether each core works on its own images, instead of all cores on the same ones.
        threads: the threads of each run; by default one with `parallel`, and otherwise the number of cores.

    Returns:
        A function that several threads can call at once.

    Raises:
        RuntimeError: TensorFlow had already run in the process that this one was forked from.
        ValueError: the engine cannot load the model.
    """
    if engine.name == "tensorflow":
        check_fork()
    copies = cores() if parallel else 1
    try:
        return share(engine.start(path, threads or (1 if parallel else cores()), copies))
    except (ValueError, RuntimeError, OSError, *_load_errors(engine)) as error:
        raise ValueError(
            f"The model {str(path)!r} cannot be loaded by {engine.name}: {first_line(error)} Expected a complete model "
            f"of the format {engine.format!r}. Export it again."
        ) from error


def share(runs: Sequence[Run]) -> Run:
    """Combine runs that are not thread-safe into one that is: a call waits until one of them is free.

    A thread gets the run that it had last if that is free: its memory is still in the cache of the thread's core.
    """
    locks, places, own = [Lock() for _ in runs], count(), local()
    free = Semaphore(len(runs))

    def call(images: np.ndarray) -> np.ndarray:
        with free:
            if not hasattr(own, "place"):
                own.place = next(places) % len(runs)
            while not locks[own.place].acquire(blocking=False):
                own.place = (own.place + 1) % len(runs)
            place = own.place
            try:
                return runs[place](images)
            finally:
                locks[place].release()

    return call


def check_record(run: Run, export: Export) -> None:
    """Run the model on one black image and compare the result with the record; this also warms the engine up.

    Raises:
        ValueError: the engine does not accept such an image, or returns another number of scores.
    """
    record = export.record
    wanted = (1, record.scores)
    try:
        given = run(np.zeros((1, record.size, record.size, 3), np.float32)).shape
        fault = f"its scores have the shape {given}" if given != wanted else ""
    except Exception as error:  # every engine has its own errors
        fault = first_line(error)
    if fault:
        raise ValueError(
            f"The exported model {str(export.path)!r} does not fit its record: {fault}. Expected images of "
            f"{record.size} x {record.size} pixels and scores of shape {wanted}. Export it again."
        )


def _load_errors(engine: Engine) -> tuple[Any, ...]:
    """The errors of ONNX Runtime and TensorFlow that are not a RuntimeError."""
    if engine.name == "tensorflow":
        return (importlib.import_module(engine.package).errors.OpError,)
    if engine.name != "onnx":
        return ()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile)
