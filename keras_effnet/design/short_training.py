"""Short training: a score for a network from a few passes over a small set of photos, the same for every network.

What the search of arXiv:1807.11626, section 4.3, does with five epochs of ImageNet, at a size that a CPU can afford.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.design.photo_arrays import PhotoArrays, Split
from keras_effnet.models import create
from keras_effnet.training.speed_up import speed_up
from keras_effnet.variants import Variant

SCORED_AT_ONCE = 256


@dataclass(frozen=True)
class ShortTraining:
    """How every network is trained: Adam under a cosine, photos mirrored at random, no other augmentation.

    Args:
        epochs: passes over the photos.
        batch_size: photos of one update; what is left of an epoch waits for the next order.
        learning_rate: at the start.
        seed: of the weights, the order and the mirroring.
        bn_momentum: of batch normalisation; that of long training would not have forgotten its initial values yet.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 3e-3
    seed: int = 0
    bn_momentum: float = 0.9


def accuracy(variant: Variant, split: Split, training: ShortTraining | None = None) -> float:
    """Train a network briefly and give its share of right answers on the photos held out.

    Args:
        variant: the network; photos are resized to its resolution.
        split: photos to train on, a batch of them at least, and photos to score on.
        training: how; equal seeds give equal results on one machine and one thread.

    Raises:
        ValueError: no epoch, or fewer photos than a batch.
    """
    training = training or ShortTraining()
    return accuracies(variant, [split], training, seeds=[training.seed])[0]


def accuracies(
    variant: Variant, splits: Sequence[Split], training: ShortTraining, *, seeds: Sequence[int]
) -> list[float]:
    """As `accuracy`, for several splits of equal sizes and the seed of each; the graph is traced only once.

    On a CPU the tracing of a small network takes longer than its short training.
    """
    keras.backend.clear_session()
    steps = len(splits[0].training.labels) // training.batch_size * training.epochs
    if steps < 1:
        raise ValueError(
            f"There are {len(splits[0].training.labels)} photos and {training.epochs} epochs with batches of "
            f"{training.batch_size}. Expected at least one epoch and one batch. Give more photos or a smaller batch."
        )
    model, results = None, []
    for split, seed in zip(splits, seeds, strict=True):
        keras.utils.set_random_seed(seed)
        fresh = _new(variant, len(split.training.classes), training)
        if model is None:
            model = fresh
            schedule = keras.optimizers.schedules.CosineDecay(training.learning_rate, steps)
            model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
            speed_up(model)
        else:
            model.set_weights(fresh.get_weights())
            for variable in model.optimizer.variables:
                variable.assign(np.zeros_like(variable.numpy()))
        for images, labels in _batches(split.training.resize(variant.resolution), training, seed):
            model.train_on_batch(images, labels)
        results.append(_score(model, split.held_out.resize(variant.resolution)))
    return results


def _new(variant: Variant, classes: int, training: ShortTraining) -> Any:
    """A network with random weights; a few epochs underfit, so that nothing is dropped."""
    model = create(variant, classes=classes, in_channels=3, dropout_rate=0.0, drop_connect_rate=0.0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = training.bn_momentum
    return model


def _batches(photos: PhotoArrays, training: ShortTraining, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng, count = np.random.default_rng(seed), len(photos.labels)
    for _ in range(training.epochs):
        order = rng.permutation(count)[: count // training.batch_size * training.batch_size]
        for chosen in order.reshape(-1, training.batch_size):
            images = photos.images[chosen].astype("float32")
            mirrored = rng.random(len(chosen)) < 0.5
            images[mirrored] = images[mirrored, :, ::-1]
            yield images, photos.labels[chosen]


def _score(model: Any, photos: PhotoArrays) -> float:
    right = 0
    for start in range(0, len(photos.labels), SCORED_AT_ONCE):
        some = slice(start, start + SCORED_AT_ONCE)
        # Called and not predicted, which would trace a second graph.
        scores = model(photos.images[some].astype("float32"), training=False)
        scores = scores.numpy() if LEGACY else keras.ops.convert_to_numpy(scores)
        right += int(np.sum(scores.argmax(axis=1) == photos.labels[some]))
    return right / len(photos.labels)
