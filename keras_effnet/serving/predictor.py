"""Images in, labels out, with the fastest engine available. An exported model needs neither Keras nor TensorFlow."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from keras_effnet.data.photos import Content, Photo, several
from keras_effnet.errors import at_least_one
from keras_effnet.forks import PerProcess
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.classify import Prediction, Scored, label_all, stream
from keras_effnet.inference.labels import ModelOptions, as_classes, unlabelled
from keras_effnet.inference.provenance import provenance, variables_digest
from keras_effnet.serving.engines import ENGINES, check_record, cores, find_engine, share, start, version
from keras_effnet.serving.model_record import ALIASES
from keras_effnet.serving.model_source import find_model, is_keras_file, is_name

MODES = ("latency", "throughput")
BATCH = 32
Input = Photo | Content


class Predictor:
    """A model in an engine. Call it with images to stream their labels in order; `predict` returns a list.

    It can be used from several threads at once. A forked process starts an engine for itself when it first uses the
    predictor; TensorFlow and Keras cannot be used after a fork. A predictor is pickled and copied as its arguments.

    Args:
        model: the file or folder of an exported model; or the name of a network, which is exported once and kept in the
            cache folder; or a `.keras` file, a Keras model or a `Classifier`, which is exported to a temporary file for
            the lifetime of the predictor.
        engine: "litert" (or "tflite"), "onnx", "openvino", "tensorflow" or "keras". "auto" is the engine of the
            exported model. For a network by name it is the fastest of those for which the cache has an export, and of
            ONNX Runtime, for which one is made in a second; they are measured once. For other models it is ONNX
            Runtime if that is installed with onnx, otherwise LiteRT, otherwise Keras. The attributes `engine` and
            `milliseconds` hold the choice and the measurement.
        weights: the name of a weight set or the path of a weight file, for a network given by name.
        **options: `labels`, `size`, `crop` and `decode` of the model, as in `ModelOptions`.
        mode: "throughput": several images are processed at once, each on one core; "latency": all cores work on one
            image, and its labels are yielded before the next image is drawn.

    Raises:
        ImportError: the engine is not installed.
        ValueError: the model, the engine or the mode does not exist, the engine cannot run the model, or `weights` was
            given for a model that has its own.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit.

    Example:
        >>> from keras_effnet.images import sample
        >>> predictor = Predictor("lite0")
        >>> predictor.predict(sample("coffee"))[0].labels[0][1]
        'espresso'
    """

    def __init__(
        self,
        model: Any,
        engine: str = "auto",
        *,
        weights: str | None = None,
        mode: str = "throughput",
        **options: Unpack[ModelOptions],
    ) -> None:
        engine = ALIASES.get(engine, engine)
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}. Expected one of {', '.join(MODES)}.")
        if engine not in ("auto", "keras", *ENGINES):
            names = ", ".join(sorted(("auto", "keras", *ENGINES)))
            raise ValueError(f"engine is {engine!r}. Expected one of {names}.")
        if (labels := options.get("labels")) is not None:  # a process that reads the file may have another folder
            options["labels"] = as_classes(labels)
        self._arguments = {"model": model, "engine": engine, "weights": weights, "mode": mode, **options}
        # Kept because a temporary export is deleted together with it.
        self._source = find_model(model, engine, weights, parallel=mode == "throughput", options=options)
        if isinstance(self._source, Classifier):
            self._run, self.batch = PerProcess(partial(share, [self._source.scores])), BATCH
            self.name, self._outputs = self._source.name or self._source.model.name, self._source.outputs.scores
            self.engine, self.view, self.classes = "keras", self._source.view, self._source.classes
            self.milliseconds: Mapping[str, float] = {}
        else:
            export, self.milliseconds = self._source.export, self._source.milliseconds
            record = export.record
            self.name, self._outputs, self.view, self.classes = record.model, record.scores, record.view, record.classes
            chosen = find_engine(engine, record.format)
            self._run = PerProcess(partial(start, export.path, chosen, parallel=mode == "throughput"))
            self.engine, self.batch = chosen.name, chosen.batch
            check_record(self._run(), export)
        self._mode = mode
        # At least two: the next image is decoded while the engine works on the current one.
        self._workers = max(2, cores())
        self.size = self.view.size
        self._closed = False
        self._pool = PerProcess(self._start_threads)

    def _start_threads(self) -> ThreadPoolExecutor:
        pool = ThreadPoolExecutor(self._workers, "keras-effnet")
        if self._closed:
            pool.shutdown()
        return pool

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities or features, float32 (batch, outputs), of images (batch, size, size, 3) with pixels 0..255."""
        if not len(images):
            return np.zeros((0, self._outputs), np.float32)
        return self._run()(np.asarray(images, np.float32))

    def predict(
        self, images: Input | Iterable[Input], top: int = 5, *, batch_size: int | None = None
    ) -> list[Prediction]:
        """Label one or many images, and return a list; the arguments are those of calling the predictor."""
        return list(self(images, top, batch_size=batch_size))

    def __call__(
        self, images: Input | Iterable[Input], top: int = 5, *, batch_size: int | None = None
    ) -> Iterator[Prediction]:
        """Label images as they are read from the iterator that is returned; `predict` returns a list.

        An image that cannot be read gets a `Prediction` with an error.

        Args:
            images: paths, bytes of files, open files, arrays or tensors (height, width, 3) of pixels 0..255, Pillow
                images, or pairs (name, image). There may be any number of them: only a few are held at a time. A
                single one needs no list.
            top: the number of labels for each image.
            batch_size: the number of images that Keras and TensorFlow get at a time in throughput mode, by default 32.
                The other engines always get one.

        Raises:
            RuntimeError: the predictor was closed. The images submitted before are labelled first, as they are before
                an exception of `images` is raised.
            ValueError: `top` or `batch_size` is below 1, or the model returns features.
        """
        at_least_one(top=top or 0, batch_size=batch_size)
        self.need_labels()
        return label_all(self.score(images, batch_size), self.classes, top)

    def need_labels(self) -> None:
        """Refuse a model that returns features.

        Raises:
            ValueError: the model has no labels.
        """
        if not self.classes:
            raise unlabelled(self.name, self._outputs)

    def score(self, images: Input | Iterable[Input], batch_size: int | None = None) -> Iterator[Scored]:
        """Score images in order; an image that cannot be read gets an error. The arguments are those of a call."""
        at_least_one(batch_size=batch_size)
        batch, ahead = self._limits(batch_size)
        return stream(
            several(images),
            self._run(),
            view=self.view,
            pool=self._pool(),
            batch_size=batch,
            ahead=ahead,
        )

    def _limits(self, batch_size: int | None) -> tuple[int | None, int]:
        """The arguments `batch_size` and `ahead` of `stream`."""
        one_by_one = self.batch == 1
        if self._mode == "latency":
            return None if one_by_one else 1, 0
        if one_by_one:
            return None, 2 * self._workers
        batch = batch_size or self.batch
        return batch, batch

    def provenance(self) -> dict[str, Any]:
        """Describe what runs: the model, its weights with their sha256, the engine, and the versions of libraries."""
        if isinstance(self._source, Classifier):
            return provenance(self._source) | {"engine": self.engine}
        record, used = self._source.export.record, ENGINES[self.engine]
        return {
            "model": record.model,
            "weights": record.weights,
            "weights_sha256": record.weights_sha256,
            "resolution": self.size,
            "decode": self.view.decode,
            "versions": {**record.versions, used.package: version(used)},
            "format": record.format,
            "quantize": record.quantize,
            "engine": self.engine,
        }

    def identity(self) -> str:
        """Name, engine, and a digest of all that the predictions depend on: weights, labels, images, quantization.

        Two engines that run the same weights have the same digest.
        """
        if isinstance(self._source, Classifier):
            found = provenance(self._source)
            weights, quantize = found["weights_sha256"] or variables_digest(self._source.model), None
        else:
            record = self._source.export.record
            weights, quantize = record.weights_sha256 or record.variables_sha256, record.quantize
        seen = [self.view.size, self.view.crop, *([] if self.view.decode == "exact" else [self.view.decode])]
        parts = json.dumps([weights, quantize, self.classes, *seen])
        return f"{self.name} {self.engine} {hashlib.sha256(parts.encode()).hexdigest()[:16]}"

    def close(self) -> None:
        """Stop the threads once the images under way are labelled."""
        self._closed = True
        self._pool().shutdown()

    def __reduce__(self) -> tuple[Any, ...]:
        model = self._arguments["model"]
        if not isinstance(model, str | os.PathLike):
            raise TypeError(
                f"This predictor was made from a {type(model).__name__} in memory, which cannot be pickled or copied "
                "with it. Expected the name of a network or the path of a model. Export the model, and open the file "
                'in each worker: Predictor("model.tflite").'
            )
        # Another process may have another working folder.
        place = model if is_name(model) else Path(model).absolute()
        return _open, ({**self._arguments, "model": place},)

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_once(model: Any, engine: str, **arguments: Any) -> Predictor:
    """Open a predictor for a single run; the arguments are those of `Predictor`."""
    if engine == "auto" and is_keras_file(model):
        engine = "keras"  # exporting the model would take longer than it saves
    return Predictor(model, engine, **arguments)


def _open(arguments: dict[str, Any]) -> Predictor:
    """Open a predictor again from the arguments of another one."""
    return Predictor(**arguments)
