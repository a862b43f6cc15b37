"""Photos in, labels out: a stream of predictions in the order of the photos, with bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any, Protocol, Unpack

import numpy as np

from keras_effnet.data.class_names import Classes
from keras_effnet.data.photos import THREADS, Photo, named, prepare, several
from keras_effnet.errors import at_least_one
from keras_effnet.images import View
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.labels import ModelOptions

Label = tuple[str | None, str, float]
Scores = Callable[[np.ndarray], np.ndarray]
Prepared = tuple[str, np.ndarray, str | None]
Numbered = tuple[int, Any]
Task = Callable[[Any], Any]


@dataclass(frozen=True)
class Prediction:
    """The labels of one photo.

    Args:
        path: the photo's path, or its name.
        labels: (wnid, label, score), the highest score first; the wnid is None for classes other than ImageNet's.
        error: why the photo has no labels; None if it has some.
        indices: the index of each label among the model's outputs.
    """

    path: str
    labels: tuple[Label, ...] = ()
    error: str | None = None
    indices: tuple[int, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Scored:
    """The scores of one photo, float32 of shape (classes,), or the reason why it has none."""

    path: str
    scores: np.ndarray | None = None
    error: str | None = None


Group = tuple[list[Scored], Exception | None]


class ImageModel(Protocol):
    """What is streamed through: a `Classifier`, or another model of images, such as a feature extractor."""

    @property
    def view(self) -> View:
        """How a photo becomes an image of the model."""

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Float32 (batch, numbers) of float32 images (batch, size, size, 3), 0..255."""


def classify(
    photos: Photo | Iterable[Photo],
    *,
    model: Classifier | Any,
    top: int = 5,
    batch_size: int = 32,
    **options: Unpack[ModelOptions],
) -> Iterator[Prediction]:
    """Classify photos with Keras. A photo that cannot be read gets a `Prediction` with an error.

    At most two batches are held at a time: the next one is decoded while the model works on the current one.

    Args:
        photos: paths of files, or images, or pairs (name, image), where the image is an array or a tensor (height,
            width, 3), a Pillow image, an open file or the bytes of a file. A single one needs no list.
        model: a network's name, the path of a saved model, a `Classifier`, or a Keras model.
        top: the number of labels for each photo.
        batch_size: the number of photos that the model gets at a time.
        **options: `labels`, `size`, `crop` and `decode` of the model, as in `ModelOptions`.

    Raises:
        ValueError: `top` or `batch_size` is below 1, the labels or the size do not fit the model, or it returns
            features instead of scores of classes.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> model = load_classifier("lite0")
        >>> [prediction.labels[0][1] for prediction in classify([("coffee", sample("coffee"))], model=model)]
        ['espresso']
    """
    at_least_one(top=top or 0)
    classifier = as_classifier(model, **options)
    classifier.need_labels()
    return label_all(score(several(photos), classifier, batch_size), classifier.classes, top)


def score(photos: Iterable[Photo], classifier: ImageModel, batch_size: int) -> Iterator[Scored]:
    """Score photos with Keras, in order. A photo that cannot be read gets an error.

    Args:
        photos: as in `classify`.
        classifier: the model that scores them.
        batch_size: the number of photos that the model gets at a time; at most twice as many are held.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    at_least_one(batch_size=batch_size)
    return _score_in_own_threads(photos, classifier, batch_size)


def _score_in_own_threads(photos: Iterable[Photo], classifier: ImageModel, batch_size: int) -> Iterator[Scored]:
    pool = ThreadPoolExecutor(THREADS)
    options: dict[str, Any] = {"view": classifier.view, "batch_size": batch_size, "ahead": batch_size}
    try:
        yield from stream(photos, classifier.scores, pool=pool, **options)
    finally:
        pool.shutdown(cancel_futures=True)


def stream(
    photos: Iterable[Any], scores: Scores, *, view: View, pool: Executor, batch_size: int | None, ahead: int
) -> Iterator[Scored]:
    """Score photos in order while holding only a few of them.

    An exception of `photos` is raised after the photos before it have been scored.

    Args:
        photos: as in `classify`; names are optional.
        scores: maps float32 images (batch, size, size, 3), 0..255, to float32 scores (batch, classes).
        view: the pixels of each photo that `scores` gets.
        pool: the threads that decode the photos.
        batch_size: the number of photos that `scores` gets at a time, in the caller's thread. With None, `scores` is
            called in the pool, in several threads at once, with one photo each.
        ahead: how many photos more than one batch may be held before the batch is scored and yielded; without
            `batch_size`, how many tasks. A task is one photo, or a few photos of a list.

    Raises:
        RuntimeError: the pool was shut down. The photos before it are scored first.
    """
    task: Task = partial(_prepare_and_score, view=view, scores=scores)
    finish: Callable[[Sequence[Any]], Iterable[Scored]] = _ungroup
    items: Iterable[Any] = _groups(photos, ahead)
    if batch_size:
        task, finish, items = partial(_prepare, view=view), partial(_score_batch, scores=scores), enumerate(photos)
    count, owner = batch_size or 1, os.getpid()
    waiting: deque[Future[Any]] = deque()
    try:
        for future in _submit_all(items, pool, task):
            waiting.append(future)
            while len(waiting) >= count + ahead or (waiting and not batch_size and waiting[0].done()):
                yield from _owned(finish(_take(waiting, count, owner)), waiting, owner)
        while waiting:
            yield from _owned(finish(_take(waiting, count, owner)), waiting, owner)
    finally:
        for future in waiting:
            future.cancel()


# Photos of a list that a thread gets at a time. Handing over every single one takes 2 % of a small photo's time.
GROUP = 4


def _groups(photos: Iterable[Any], ahead: int) -> Iterator[list[Numbered]]:
    """Numbered photos for each task: one, or a few if they are in a list; single ones at the end, for equal shares."""
    if not isinstance(photos, Sequence):
        yield from ([pair] for pair in enumerate(photos))
        return
    start = 0
    while start < len(photos):
        count = max(1, min(GROUP, (len(photos) - start) // (2 * ahead))) if ahead else 1
        yield list(enumerate(photos[start : start + count], start))
        start += count


def _submit_all(items: Iterable[Any], pool: Executor, task: Task) -> Iterator[Future[Any]]:
    """A future for each item. An exception ends them: it becomes the result of the last one."""
    try:
        for item in items:
            yield _submit(pool, task, item)
    except Exception as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        yield failed


def _submit(pool: Executor, task: Task, item: Any) -> Future[Any]:
    try:
        return pool.submit(task, item)
    except RuntimeError as error:
        raise RuntimeError(
            "The predictor is closed. Expected an open one until the last image is labelled. Close it later, or create "
            "a new one."
        ) from error


def _owned(rows: Iterable[Scored], waiting: deque[Future[Any]], owner: int) -> Iterator[Scored]:
    """The rows, unless the process is forked between two of them."""
    for row in rows:
        _check_owner(waiting, owner)
        yield row


def _check_owner(waiting: deque[Future[Any]], owner: int) -> None:
    if os.getpid() != owner:
        waiting.clear()
        raise RuntimeError(
            "These predictions were started before this process was forked. Expected them to be read in the process "
            "that started them. Start them after the fork."
        )


def _take(waiting: deque[Future[Any]], count: int, owner: int) -> list[Any]:
    """Remove the next results, at most `count`; an exception is raised only when it comes first."""
    _check_owner(waiting, owner)
    results: list[Any] = []
    while waiting and len(results) < count and not (results and waiting[0].exception()):
        results.append(waiting.popleft().result())
    return results


def _prepare(item: Numbered, view: View) -> Prepared:
    number, photo = item
    return prepare(named(photo, number), view)


def _prepare_and_score(group: Sequence[Numbered], view: View, scores: Scores) -> Group:
    rows: list[Scored] = []
    try:
        for item in group:
            rows += _score_batch([_prepare(item, view)], scores)
    except Exception as error:
        return rows, error
    return rows, None


def _ungroup(groups: Sequence[Group]) -> Iterator[Scored]:
    """The photos of each task; its exception is raised after the photos before it."""
    for rows, error in groups:
        yield from rows
        if error is not None:
            raise error


def _score_batch(batch: Sequence[Prepared], scores: Scores) -> list[Scored]:
    names, images, errors = zip(*batch, strict=True)
    rows = errors if all(errors) else scores(images[0][None] if len(images) == 1 else np.stack(images))
    return [
        Scored(name, error=error) if error else _checked(name, row)
        for name, error, row in zip(names, errors, rows, strict=True)
    ]


def _checked(name: str, scores: np.ndarray) -> Scored:
    """The scores of one photo, or an error if they are NaN or infinite."""
    if np.isfinite(scores).all():
        return Scored(name, scores)
    return Scored(name, error=f"{name!r} has scores that are NaN or infinite. Expected finite ones. Check the model.")


def label_all(rows: Iterable[Scored], classes: Classes, top: int) -> Iterator[Prediction]:
    """The labels of each photo, as `label` gives them."""
    for row in rows:
        yield label(row, classes, top)


def label(row: Scored, classes: Classes, top: int) -> Prediction:
    """The labels with the highest scores, the highest first; no labels if there are no scores."""
    scores = np.zeros(0) if row.scores is None else row.scores
    best = tuple(int(i) for i in np.argsort(scores)[-top:][::-1])
    return Prediction(row.path, tuple((*classes[i], float(scores[i])) for i in best), row.error, best)


def entry(prediction: Prediction) -> dict[str, Any]:
    """A prediction as a JSON object: its path, and its labels or its error."""
    if prediction.error:
        return {"path": prediction.path, "error": prediction.error}
    labels = [
        {"index": index, "wnid": wnid, "label": name, "score": score}
        for index, (wnid, name, score) in zip_longest(prediction.indices, prediction.labels)
    ]
    return {"path": prediction.path, "labels": labels}
