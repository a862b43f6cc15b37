"""Top-1 and top-5 accuracy on labelled photos, measured like the published accuracies.

Source: the evaluation of github.com/tensorflow/tpu, models/official/efficientnet (crop padding 32, bicubic).
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Unpack

import numpy as np

from keras_effnet.data.class_names import Classes
from keras_effnet.data.labelled_photos import Examples, Location, names_photos, open_examples
from keras_effnet.data.photos import Photo
from keras_effnet.inference.accuracy import Answer, Report
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.classify import Scored, score
from keras_effnet.inference.labels import ImageOptions, Labels


class Scorer(Protocol):
    """A model with another way to score photos than a `Classifier`: a `Predictor`."""

    classes: Classes

    def need_labels(self) -> None:
        """Raise a ValueError if the model returns features."""

    def score(self, photos: Iterable[Photo], batch_size: int) -> Iterator[Scored]:
        """Score photos in order."""


def evaluate(
    data: Location | Sequence[Location] | Examples,
    *,
    model: Classifier | Scorer | Any,
    labels: Labels | None = None,
    split: str | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Callable[[Report], object] | None = None,
    **options: Unpack[ImageOptions],
) -> Report:
    """Measure the accuracy of a model on labelled photos: of the whole, of each class, and photo by photo.

    Photos are cropped and resized as in the published evaluation. They are streamed, with two batches in memory. If
    scores are equal, the class with the lower index ranks higher.

    Args:
        data: a folder with one subfolder per class; a folder of photos together with `labels`; TFRecord files in
            ImageNet's layout, or patterns for them; "tfds:NAME"; or the result of `open_examples`.
        model: the name of a network, the path of a saved model, a `Classifier` or a Keras model; or a `Predictor`,
            which measures an exported model in its engine.
        labels: the labels of the model, as in `as_classifier`; or, for a folder of photos without a folder for each
            class, a file with the classes of the photos, as in `open_examples`.
        split, limit: as in `open_examples`.
        batch_size: number of photos per batch.
        progress: called with the report so far, after each photo.
        **options: `size`, `crop` and `decode` of the model, as in `ModelOptions`.

    Raises:
        ImportError: the data needs TensorFlow or TensorFlow Datasets, which is not installed.
        ValueError: there is no data, its classes are not those of the model, or the model does not classify images.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> from keras_effnet.data.labelled_photos import Example
        >>> coffee = Examples([Example(("coffee", sample("coffee")), 967)], total=1)  # or a path: "imagenet/val"
        >>> evaluate(coffee, model=load_classifier("lite0")).top1
        100.0
    """
    photo_labels = None
    if isinstance(labels, str | os.PathLike) and not isinstance(data, Examples) and names_photos(labels, data):
        labels, photo_labels = None, labels
    scorer = _scorer(model, labels, options)
    scorer.need_labels()
    if not isinstance(data, Examples):
        data = open_examples(data, scorer.classes, labels=photo_labels, split=split, limit=limit)
    report = Report(0, 0, 0, 0.0, notes=data.notes)
    for report in _reports(data, scorer, batch_size):
        if progress:
            progress(report)
    return report


def _scorer(model: Any, labels: Labels | None, options: ImageOptions) -> Classifier | Scorer:
    if hasattr(model, "score") and hasattr(model, "predict") and hasattr(model, "classes"):  # a Predictor
        if labels is not None or options:
            raise ValueError(
                "labels, size or crop were given together with a Predictor. Expected them where it is made: "
                "Predictor(model, labels=..., crop=...)."
            )
        return model
    return as_classifier(model, labels, **options)


def _reports(examples: Examples, scorer: Classifier | Scorer, batch_size: int) -> Iterator[Report]:
    """The report after each photo."""
    start = time.perf_counter()
    targets: deque[int] = deque()
    errors: list[str] = []
    answers: list[Answer] = []
    images = first = best = 0

    def photos() -> Iterator[Photo]:
        for row in examples.rows:
            if row.error:
                errors.append(row.error)
            else:
                targets.append(row.target)
                yield row.photo

    def report() -> Report:
        seconds = time.perf_counter() - start
        # The list is shared by all reports of a run: a copy for each photo would take quadratic time.
        return Report(images, first, best, seconds, tuple(errors), examples.notes, answers, scorer.classes)

    rows = (
        scorer.score(photos(), batch_size)
        if not isinstance(scorer, Classifier)
        else score(photos(), scorer, batch_size)
    )
    for row in rows:
        target = targets.popleft()
        if row.scores is None:
            errors.append(row.error or "")
            answers.append(Answer(row.path, target, error=row.error))
        else:
            order = np.argsort(-row.scores, kind="stable")[:5]
            images, first, best = images + 1, first + int(order[0] == target), best + int(target in order)
            answers.append(Answer(row.path, target, int(order[0]), float(row.scores[order[0]])))
        yield report()
    yield report()
