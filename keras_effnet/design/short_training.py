"""Short training: score a network by a few epochs on a small set of photos, with the same settings for every network.

The search of arXiv:1807.11626, section 4.3, trains for five epochs on ImageNet; this is the same at a size for one CPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.design.photo_arrays import PhotoArrays, Split
from keras_effnet.finetuning.tf_graphs import graphs_freed
from keras_effnet.models import create
from keras_effnet.training.speed_up import speed_up
from keras_effnet.variants import Variant

SCORING_BATCH = 256


@dataclass(frozen=True)
class ShortTraining:
    """Settings that are the same for every network: Adam with cosine decay, random mirroring, no other augmentation.

    Args:
        epochs: passes over the photos.
        batch_size: photos per update; an incomplete last batch of an epoch is dropped.
        learning_rate: initial learning rate.
        seed: seed of the weights, the order of the photos and the mirroring.
        bn_momentum: momentum of batch normalisation. The usual 0.99 is too slow for so few updates: the moving
            statistics would still depend on their initial values.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 3e-3
    seed: int = 0
    bn_momentum: float = 0.9


def accuracy(variant: Variant, split: Split, training: ShortTraining | None = None) -> float:
    """Train a network briefly and return its accuracy on the held-out photos, 0..1.

    Args:
        variant: the network; photos are resized to its resolution.
        split: photos to train on, at least one batch of them, and photos to score on.
        training: the settings. Equal seeds give equal results on one machine with one thread.

    Raises:
        ValueError: less than one epoch, or fewer photos than a batch.
    """
    training = training or ShortTraining()
    return accuracies(variant, [split], training, seeds=[training.seed])[0]


@graphs_freed()  # before the next network needs the memory
def accuracies(
    variant: Variant, splits: Sequence[Split], training: ShortTraining, *, seeds: Sequence[int]
) -> list[float]:
    """Do the same as `accuracy` for several splits of equal size, with one seed each; the graph is traced only once.

    On a CPU, tracing a small network takes longer than training it briefly.
    """
    steps = len(splits[0].training.labels) // training.batch_size * training.epochs
    if steps < 1:
        raise ValueError(
            f"There are {len(splits[0].training.labels)} photos and {training.epochs} epochs with batches of "
            f"{training.batch_size}. Expected at least one epoch of one batch. Add photos, or use smaller batches."
        )
    model = _compiled(variant, len(splits[0].training.classes), training, steps)
    initial, results = model.get_weights(), []
    for split, seed in zip(splits, seeds, strict=True):
        model.set_weights(initial)
        _draw_kernels(model, seed)
        for variable in model.optimizer.variables:
            variable.assign(np.zeros_like(variable.numpy()))
        for images, labels in _batches(split.training.resize(variant.resolution), training, seed):
            model.train_on_batch(images, labels)
        results.append(_score(model, split.held_out.resize(variant.resolution)))
    return results


def _compiled(variant: Variant, classes: int, training: ShortTraining, steps: int) -> Any:
    """The network, ready to train; without dropout, since a few epochs underfit."""
    model = create(variant, classes=classes, in_channels=3, dropout_rate=0.0, drop_connect_rate=0.0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = training.bn_momentum
    schedule = keras.optimizers.schedules.CosineDecay(training.learning_rate, steps)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    return speed_up(model)


def _draw_kernels(model: Any, seed: int) -> None:
    """Draw all kernels from seeded copies of their initializers; set_random_seed would change the caller's numbers."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        initializer = getattr(layer, "depthwise_initializer" if depthwise else "kernel_initializer", None)
        if initializer is not None:
            seeded = type(initializer)(**{**initializer.get_config(), "seed": int(rng.integers(2**31))})
            kernel, *bias = layer.get_weights()
            layer.set_weights([seeded(kernel.shape), *bias])


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
    correct = 0
    for start in range(0, len(photos.labels), SCORING_BATCH):
        batch = slice(start, start + SCORING_BATCH)
        # Call the model: predict() would trace a second graph.
        scores = model(photos.images[batch].astype("float32"), training=False)
        scores = scores.numpy() if LEGACY else keras.ops.convert_to_numpy(scores)
        correct += int(np.sum(scores.argmax(axis=1) == photos.labels[batch]))
    return correct / len(photos.labels)
