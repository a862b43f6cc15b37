"""Top-1 and top-5 of a model on labelled photos, as the published accuracies were measured.

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
    """How often a model was right.

    Args:
        images: photos that were read and scored; the others are in `errors` and count nowhere.
        top1_correct: of these, how many had their class first.
        top5_correct: how many had it among the first five.
        seconds: for reading and scoring, the model's compilation included.
        errors: why a photo could not be read or scored, one each.
        notes: what had to be assumed about the classes.
    """

    images: int
    top1_correct: int
    top5_correct: int
    seconds: float
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def top1(self) -> float | None:
        """Percent of the images with their class first, None without images."""
        return 100 * self.top1_correct / self.images if self.images else None

    @property
    def top5(self) -> float | None:
        """Percent of the images with their class among the first five, None without images."""
        return 100 * self.top5_correct / self.images if self.images else None

    @property
    def images_per_second(self) -> float:
        """Images by seconds."""
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
    """Count how often a model's best, or one of its best five classes, is the right one.

    Photos are cropped and resized as in the published evaluation and stream through: two batches are held at a time.
    Among classes with the same score the one that comes first in the model wins.

    Args:
        data: a folder with a folder for each class; a folder of photos beside `labels`; TFRecord files in ImageNet's
            layout, or patterns of them; "tfds:NAME"; or what `open_examples` gave.
        model: a classifier from `load_classifier`, or a Keras model with the 1000 classes of ImageNet.
        labels, split, limit: as in `open_examples`.
        batch_size: how many photos the model gets at a time.
        progress: called with the report so far, after every photo.

    Raises:
        ImportError: TensorFlow or TensorFlow Datasets is missing for what only they read.
        ValueError: nothing there, classes that are none of the model's, or a model that does not classify images.

    Example:
        >>> from keras_effnet.inference.classifier import load_classifier
        >>> from keras_effnet.images import sample
        >>> from keras_effnet.data.labelled_photos import Example
        >>> coffee = Examples([Example(("coffee", sample("coffee")), 967)], total=1)  # or a path: "imagenet/val"
        >>> evaluate(coffee, model=load_classifier("lite0")).top1
        100.0
    """
    classifier = as_classifier(model)
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
    """What a report was made with: the model, its weights with their sha256, and the versions of what ran."""
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
    """The file that a classifier's weights came from, if that can be told."""
    for name in (classifier.weights, classifier.name):
        if name and Path(name).is_file():
            return Path(os.fspath(name))
    if not classifier.weights:
        return None
    found = find_local(find_weights(find_variant(classifier.name).name, classifier.weights))
    return found.path if found else None
