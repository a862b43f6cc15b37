"""Photos in, labels out: a stream of predictions in the order of the photos, with bounded memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.data.class_names import Classes
from keras_effnet.data.photos import THREADS, Photo, named, prepare
from keras_effnet.errors import at_least_one
from keras_effnet.inference.classifier import Classifier, as_classifier

Label = tuple[str | None, str, float]


@dataclass(frozen=True)
class Prediction:
    """What a model sees in one photo.

    Args:
        path: the photo's path, or its name.
        labels: (wnid, label, score), the highest score first; the wnid is None for classes other than ImageNet's.
        error: why there are no labels, None where there are.
    """

    path: str
    labels: tuple[Label, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Scored:
    """The scores of one photo, float32 of shape (classes,), or the error that stands in their place."""

    path: str
    scores: np.ndarray | None = None
    error: str | None = None


def classify(
    photos: Iterable[Photo], *, model: Classifier | Any, top: int = 5, batch_size: int = 32
) -> Iterator[Prediction]:
    """Classify photos one after the other; a bad one gives a `Prediction` with its error, and the others go on.

    At most two batches are held at a time: the next one is decoded while the model works on one.

    Args:
        photos: paths of files, or pairs (name, image) with uint8 images (height, width, 3), images of Pillow or the
            bytes of files.
        model: a classifier from `load_classifier`, or a Keras model with the 1000 classes of ImageNet.
        top: how many labels to give for each photo.
        batch_size: how many photos the model gets at a time.

    Raises:
        ValueError: `top` or `batch_size` below 1, or a model that does not classify images.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> model = load_classifier("lite0")
        >>> [prediction.labels[0][1] for prediction in classify([("coffee", sample("coffee"))], model=model)]
        ['espresso']
    """
    at_least_one(top=top or 0)
    classifier = as_classifier(model)
    rows = score(photos, classifier, batch_size)
    return (label(row, classifier.classes, top) for row in rows)


def score(photos: Iterable[Photo], classifier: Classifier, batch_size: int) -> Iterator[Scored]:
    """Score photos in their order; a bad one comes out with its error.

    Args:
        photos: as in `classify`.
        classifier: what scores them.
        batch_size: how many photos the model gets at a time; at most twice as many are held.

    Raises:
        ValueError: `batch_size` below 1.
    """
    at_least_one(batch_size=batch_size)
    return _stream(photos, classifier, batch_size)


def _stream(photos: Iterable[Photo], classifier: Classifier, batch_size: int) -> Iterator[Scored]:
    pool = ThreadPoolExecutor(THREADS)
    waiting: deque[Future[tuple[str, np.ndarray, str | None]]] = deque()
    try:
        for number, photo in enumerate(photos):
            waiting.append(pool.submit(prepare, named(photo, number), classifier.size))
            if len(waiting) == 2 * batch_size:
                yield from _score([waiting.popleft().result() for _ in range(batch_size)], classifier)
        while waiting:
            count = min(batch_size, len(waiting))
            yield from _score([waiting.popleft().result() for _ in range(count)], classifier)
    finally:
        pool.shutdown(cancel_futures=True)


def _score(batch: Sequence[tuple[str, np.ndarray, str | None]], classifier: Classifier) -> Iterator[Scored]:
    names, images, errors = zip(*batch, strict=True)
    scores = errors if all(errors) else classifier.scores(np.stack(images))
    for name, error, row in zip(names, errors, scores, strict=True):
        yield Scored(name, error=error) if error else scored(name, row)


def scored(name: str, scores: np.ndarray) -> Scored:
    """The scores of one photo, or an error where they are no numbers."""
    if np.isfinite(scores).all():
        return Scored(name, scores)
    return Scored(name, error=f"{name!r} gets scores that are no numbers. Expected a sound model. Check it.")


def label(row: Scored, classes: Classes, top: int) -> Prediction:
    """The labels with the highest scores, the highest first; none without scores."""
    scores = np.zeros(0) if row.scores is None else row.scores
    labels = tuple((*classes[i], float(scores[i])) for i in np.argsort(scores)[-top:][::-1])
    return Prediction(row.path, labels, row.error)


def entry(prediction: Prediction) -> dict[str, Any]:
    """A prediction as JSON has it: its path, and labels or an error."""
    if prediction.error:
        return {"path": prediction.path, "error": prediction.error}
    labels = [{"wnid": wnid, "label": name, "score": score} for wnid, name, score in prediction.labels]
    return {"path": prediction.path, "labels": labels}
