"""The features of photos: one vector for each, streamed from the layer before a network's classifier."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.data.photos import Photo, several
from keras_effnet.forks import check_fork
from keras_effnet.images import View
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.classify import Scored, score
from keras_effnet.inference.fusion import fuse
from keras_effnet.inference.head_finder import find_head


@dataclass(frozen=True)
class Embedding:
    """The vector of one photo.

    Args:
        path: the photo's path, or its name.
        vector: float32 (features,); None if the photo cannot be read.
        error: why there is no vector.
        scores: the class scores of the same pass, float32 (classes,).
    """

    path: str
    vector: np.ndarray | None = None
    error: str | None = None
    scores: np.ndarray | None = None


class FeatureExtractor:
    """A classifier that also returns what its last layer gets. Batch normalisation is folded for speed.

    Args:
        model: a network's name, the path of a saved model, a `Classifier`, or a Keras model with a classifier.

    Raises:
        ValueError: the model has no classifier, or its classifier is in a nested model.

    Example:
        >>> FeatureExtractor("lite0").size
        1280
    """

    def __init__(self, model: Any) -> None:
        self.classifier: Classifier = as_classifier(model)
        network = self.classifier.model
        dense = find_head(network).classifier
        if dense not in network.layers:
            raise ValueError(
                f"The classifier {dense.name!r} of the model {network.name!r} is in a nested model. Expected it in the "
                "model itself. Pass a model whose last layers are not nested."
            )
        inputs = dense.input
        if len(inputs.shape) > 2:  # a 1x1 convolution of pooled features
            inputs = keras.layers.Flatten()(inputs)
        self.size = int(inputs.shape[-1])
        self._both = fuse(keras.Model(network.inputs, [inputs, network.outputs[0]]))

    @property
    def fingerprint(self) -> str:
        """Identifies the model by its weights: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in self.classifier.model.get_weights():
            digest.update(np.asarray(array).tobytes())
        return digest.hexdigest()[:16]

    @property
    def view(self) -> View:
        """How a photo becomes an image of the model."""
        return self.classifier.view

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Features and scores side by side, float32 (batch, features + classes), of images 0..255."""
        check_fork()
        parts = self._both.predict_on_batch(self.classifier.inputs(images))
        return np.concatenate([np.asarray(part).reshape(len(images), -1) for part in parts], axis=1)


def embed(
    photos: Photo | Iterable[Photo],
    *,
    model: Any = "lite0",
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Embedding]:
    """Compute the features of photos: the vector that a network's classifier gets. Similar photos have similar vectors.

    At most two batches are held at a time. A photo that cannot be read gets an `Embedding` with an error.

    Args:
        photos: paths of files, or images, or pairs (name, image), as in `Predictor.predict`. A single one needs no
            list.
        model: a network's name, the path of a saved model, a `FeatureExtractor`, or a Keras model with a classifier.
        batch_size: the number of photos that the model gets at a time.
        progress: called with the number of finished photos, after each.

    Raises:
        ValueError: `batch_size` is below 1, or the model has no classifier.

    Example:
        >>> from keras_effnet.images import sample
        >>> [found] = embed(sample("coffee"))
        >>> found.vector.shape, found.vector.dtype
        ((1280,), dtype('float32'))
    """
    extractor = model if isinstance(model, FeatureExtractor) else FeatureExtractor(model)
    return _embed(score(several(photos), extractor, batch_size), extractor.size, progress)


def _embed(rows: Iterable[Scored], size: int, progress: Callable[[int], object] | None) -> Iterator[Embedding]:
    for count, row in enumerate(rows, start=1):
        if progress:
            progress(count)
        if row.scores is None:
            yield Embedding(row.path, error=row.error)
        else:
            yield Embedding(row.path, row.scores[:size], None, row.scores[size:])
