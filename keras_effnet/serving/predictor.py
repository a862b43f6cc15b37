"""Images in, labels out, by the fastest engine there is: an exported model needs neither Keras nor TensorFlow."""

import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from keras_effnet.data.photos import Content, NamedPhoto, Photo, is_single, named, prepare
from keras_effnet.errors import at_least_one
from keras_effnet.inference.classifier import Classifier, as_classifier, load_classifier
from keras_effnet.inference.classify import Prediction, label, scored
from keras_effnet.serving.engines import ENGINES, Run, check_record, cores, find_engine, start
from keras_effnet.serving.export_cache import cached_export, can_convert, find_cached, is_name
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.variants import VARIANTS

MODES = ("latency", "throughput")
BATCH = 32
Input = Photo | Content


class Predictor:
    """A model in an engine; called with images it gives their labels, in order, as they come.

    It may be used from several threads at once.

    Args:
        model: an exported model's file or folder; or a network by name, exported once and kept in the cache folder; or
            a `.keras` file, a Keras model or a `Classifier`, exported for as long as the predictor lives.
        engine: "litert", "onnx", "openvino", "tensorflow" or "keras"; "auto" is the one of the exported model, and else
            LiteRT where it is installed and Keras where not.
        weights: for a network by name: the name of a weight set or the path of a weight file.
        mode: "throughput": every core works on images of its own; "latency": all of them work on one image, and its
            labels come before the next one is asked for.

    Raises:
        ImportError: the engine is not installed.
        ValueError: no such model, engine or mode, a model that the engine cannot run, or weights for one that has its
            own.
        WeightsError: weights that do not exist, cannot be fetched or read, or do not fit.

    Example:
        >>> from keras_effnet.images import sample
        >>> predictor = Predictor("lite0")
        >>> [prediction.labels[0][1] for prediction in predictor([sample("coffee")])]
        ['espresso']
    """

    def __init__(
        self, model: Any, engine: str = "auto", *, weights: str | None = None, mode: str = "throughput"
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}. Expected one of {', '.join(MODES)}. Choose one of these.")
        if engine not in ("auto", "keras", *ENGINES):
            names = ", ".join(sorted(("auto", "keras", *ENGINES)))
            raise ValueError(f"engine is {engine!r}. Expected one of {names}. Choose one of these.")
        cached = find_cached(model, weights, engine)
        if cached is not None:
            model, weights = cached, None
        if engine == "auto" and not is_export(model):
            engine = "litert" if makes_litert() else "keras"
        source = self._source(model, engine, weights)
        runs: Sequence[Run]
        if isinstance(source, Classifier):
            runs, batch = [source.scores], BATCH
            self.engine, self.size, self.classes = engine, source.size, source.classes
        else:
            chosen, record = find_engine(engine, source.record.format), source.record
            copies, threads = (cores(), 1) if mode == "throughput" else (1, cores())
            runs, batch = start(source.path, chosen, threads=threads, copies=copies), chosen.batch
            self.engine, self.size, self.classes = chosen.name, record.size, record.classes
            check_record(runs[0], source)
        self._batch = batch if mode == "throughput" else 1
        self._runs: SimpleQueue[Run] = SimpleQueue()
        for run in runs:
            self._runs.put(run)
        # At least two: while one image is in the engine the next one is decoded.
        workers = max(2, cores())
        self._pool = ThreadPoolExecutor(workers, "keras-effnet")
        # Batches that are drawn before the first one's labels are given.
        self._ahead = 2 * workers if mode == "throughput" else 0

    def _source(self, model: Any, engine: str, weights: str | None) -> Classifier | Export:
        """What the engine is to run: an export that is there or made, or for Keras the model."""
        if is_export(model):
            if weights is not None:
                raise ValueError(
                    f"weights is {weights!r}, but the exported model {os.fspath(model)!r} has its own. Expected no "
                    f"weights beside it. Leave them out, or name the network: {', '.join(VARIANTS)}."
                )
            return open_export(Path(model))
        if engine == "keras":
            return load_classifier(model, weights) if isinstance(model, str | os.PathLike) else as_classifier(model)
        kind = ENGINES[engine].format
        if is_name(model):
            try:
                return open_export(cached_export(model, weights, kind))
            except OSError:  # nothing can be written there: it is exported for this once
                model = load_classifier(model, weights)
        from keras_effnet.serving.exporting import export

        folder = tempfile.mkdtemp(prefix="keras-effnet-")
        # It has to live as long as what is loaded from it.
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return open_export(export(model, Path(folder, f"model{suffix(kind)}"), kind).path)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 of shape (batch, classes), of images (batch, size, size, 3) with pixels 0..255."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        run = self._runs.get()
        try:
            return run(np.asarray(images, np.float32))
        finally:
            self._runs.put(run)

    def __call__(self, images: Iterable[Input], top: int = 5) -> Iterator[Prediction]:
        """Label images; a bad one gives a `Prediction` with its error, and the others go on.

        Args:
            images: paths, bytes of files, uint8 arrays (height, width, 3), images of Pillow, or pairs (name, image);
                any number: only a few at a time are held.
            top: how many labels to give for each.

        Raises:
            RuntimeError: the predictor was closed; what was under way comes first, as it does before an error of
                `images` itself.
            TypeError: `images` is one image.
            ValueError: `top` below 1.
        """
        if is_single(images):
            raise TypeError(
                f"The images are one {type(images).__name__}. Expected several. Put it into a list: [image]."
            )
        at_least_one(top=top or 0)
        return self._stream(images, top)

    def _stream(self, images: Iterable[Input], top: int) -> Iterator[Prediction]:
        photos = (named(image, number) for number, image in enumerate(images))
        waiting: deque[Future[list[Prediction]]] = deque()
        fault: Exception | None = None
        try:
            while fault is None:
                chunk, fault = _draw(photos, self._batch)
                if not chunk:
                    break
                waiting.append(self._submit(chunk, top))
                while waiting and (len(waiting) > self._ahead or waiting[0].done()):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
        if fault:
            raise fault

    def _submit(self, chunk: list[NamedPhoto], top: int) -> Future[list[Prediction]]:
        try:
            return self._pool.submit(self._predict, chunk, top)
        except RuntimeError:
            # In its place among the others, so that what was under way comes first.
            failed: Future[list[Prediction]] = Future()
            failed.set_exception(
                RuntimeError(
                    "The predictor is closed. Expected one that is open until its last image is labelled. Close it "
                    "later, or make a new one."
                )
            )
            return failed

    def _predict(self, photos: list[NamedPhoto], top: int) -> list[Prediction]:
        rows = [prepare(photo, self.size) for photo in photos]
        good = [pixels for _, pixels, error in rows if not error]
        scores = iter(self.scores(np.stack(good)) if good else ())
        return [
            Prediction(name, error=error) if error else label(scored(name, next(scores)), self.classes, top)
            for name, _, error in rows
        ]

    def close(self) -> None:
        """Let go of the threads; what is under way is finished."""
        self._pool.shutdown()

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _draw(photos: Iterator[NamedPhoto], count: int) -> tuple[list[NamedPhoto], Exception | None]:
    """The next photos, and what whoever gives them raised instead of one more."""
    chunk: list[NamedPhoto] = []
    try:
        chunk.extend(islice(photos, count))
    except Exception as error:
        return chunk, error
    return chunk, None


def is_export(model: Any) -> bool:
    """Whether it is the path of an exported model, rather than a network, a `.keras` file or a model.

    Example:
        >>> is_export("flowers.tflite"), is_export("lite0")
        (True, False)
    """
    if not isinstance(model, str | os.PathLike) or model in VARIANTS:
        return False
    path = Path(model)
    # The folder of a fine-tuning holds a model of Keras.
    return path.suffix.lower() in (".tflite", ".onnx", ".xml", ".bin") or (
        path.is_dir() and not (path / "model.keras").is_file()
    )


def makes_litert() -> bool:
    """Whether LiteRT is installed, and Keras runs on TensorFlow, which converts models for it."""
    return ENGINES["litert"].installed and can_convert()
