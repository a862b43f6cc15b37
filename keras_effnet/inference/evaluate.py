"""Top-1 and top-5 accuracy on labelled photos, measured like the published accuracies.

Source: the evaluation of github.com/tensorflow/tpu, models/official/efficientnet (crop padding 32, bicubic).
"""

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet import __version__
from keras_effnet.data.labelled_photos import Examples, Location, open_examples
from keras_effnet.data.photos import Photo
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.classify import score
from keras_effnet.variants import find_variant
from keras_effnet.weights.published import find_local, find_weights


@dataclass(frozen=True)
class Report:
    """The accuracy of a model.

    Args:
        images: number of photos that were read and scored. The others are listed in `errors` and are not counted.
        top1_correct: number of photos whose class has the highest score.
        top5_correct: number of photos whose class is among the five highest scores.
        seconds: time for reading and scoring, including the compilation of the model.
        errors: one error per photo that could not be read or scored.
        notes: assumptions about the classes.
    """

    images: int
    top1_correct: int
    top5_correct: int
    seconds: float
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in percent; None without images."""
        return 100 * self.top1_correct / self.images if self.images else None

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None without images."""
        return 100 * self.top5_correct / self.images if self.images else None

    @property
    def images_per_second(self) -> float:
        """Throughput: images per second."""
        return self.images / self.seconds if self.seconds else 0.0


def evaluate(
    data: Location | Sequence[Location] | Examples,
    *,
    model: Classifier | Any,
    labels: Location | None = None,
    split: str | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    progress: Callable[[Report], object] | None = None,
) -> Report:
    """Measure the top-1 and top-5 accuracy of a model on labelled photos.

    Photos are cropped and resized as in the published evaluation. They are streamed, with two batches in memory. If
    scores are equal, the class with the lower index ranks higher.

    Args:
        data: a folder with one subfolder per class; a folder of photos together with `labels`; TFRecord files in
            ImageNet's layout, or patterns for them; "tfds:NAME"; or the result of `open_examples`.
        model: a classifier from `load_classifier`, or a Keras model with the 1000 classes of ImageNet.
        labels, split, limit: as in `open_examples`.
        batch_size: number of photos per batch.
        progress: called with the report so far, after each photo.

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
    classifier = as_classifier(model)
    classifier.need_labels()
    if not isinstance(data, Examples):
        data = open_examples(data, classifier.classes, labels=labels, split=split, limit=limit)
    report = Report(0, 0, 0, 0.0, notes=data.notes)
    for report in _reports(data, classifier, batch_size):
        if progress:
            progress(report)
    return report


def _reports(examples: Examples, classifier: Classifier, batch_size: int) -> Iterator[Report]:
    """The report after each photo."""
    start = time.perf_counter()
    targets: deque[int] = deque()
    errors: list[str] = []
    images = first = best = 0

    def photos() -> Iterator[Photo]:
        for row in examples.rows:
            if row.error:
                errors.append(row.error)
            else:
                targets.append(row.target)
                yield row.photo

    def report() -> Report:
        return Report(images, first, best, time.perf_counter() - start, tuple(errors), examples.notes)

    for row in score(photos(), classifier, batch_size):
        target = targets.popleft()
        if row.scores is None:
            errors.append(row.error or "")
        else:
            order = np.argsort(-row.scores, kind="stable")[:5]
            images, first, best = images + 1, first + int(order[0] == target), best + int(target in order)
        yield report()
    yield report()


def provenance(classifier: Classifier) -> dict[str, Any]:
    """Describe how a report was made: the model, its weights with their sha256, and the versions of the libraries."""
    file = _weight_file(classifier)
    digest = None
    if file is not None:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    modules = ("keras", "tf_keras", "tensorflow", "jax", "torch", "numpy", "PIL")
    versions = {
        name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")
    }
    return {
        "model": classifier.name or classifier.model.name,
        "weights": classifier.weights,
        "weights_sha256": digest,
        "resolution": classifier.size,
        "versions": {"keras_effnet": __version__, **versions},
    }


def _weight_file(classifier: Classifier) -> Path | None:
    """The file with a classifier's weights, if it is known."""
    for name in (classifier.weights, classifier.name):
        if name and Path(name).is_file():
            return Path(os.fspath(name))
    if not classifier.weights:
        return None
    found = find_local(find_weights(find_variant(classifier.name).name, classifier.weights))
    return found.path if found else None
