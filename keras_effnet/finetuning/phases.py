"""The two phases of fine-tuning: the head on precomputed features, then the last blocks on random crops."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.photo_batches import Photos, center_view, ordered_batches, random_view, training_batches
from keras_effnet.errors import first_line
from keras_effnet.finetuning.progress import Run
from keras_effnet.finetuning.settings import Settings
from keras_effnet.finetuning.tf_generator import as_dataset
from keras_effnet.finetuning.transfer import FrozenTrunk, first_block, unfreeze, with_frozen_trunk
from keras_effnet.inference.fusion import fuse
from keras_effnet.training.speed_up import speed_up

_FEATURE_BATCH = 32
# Limit in bytes for the trunk's features of the validation photos; above it, they are recomputed each epoch.
_TRUNK_MEMORY = 2**29
_ADVICE = "A lower learning rate, or a check of the labels, may help."


def train_phases(network: Any, train: Photos, val: Photos, size: int, run: Run) -> None:
    """Train the head, then the blocks; stop early if phase 2 fails, or at an interrupt after the first epoch."""
    try:
        with run.part("features"):
            features = _features(network, train, val, size, run)
        with run.part("head"):
            _train_head(network, features, train, val, run)
        if run.settings.unfreeze and run.settings.epochs:
            run.head = network.get_weights()
            with run.part("blocks"):
                _train_blocks(network, train, val, size, run)
    except KeyboardInterrupt:
        if not run.history:
            raise
        run.interrupted = True
        if run.head:
            run.scores = None
    except Exception as error:
        if not run.head:
            raise
        run.failure = f"training the blocks failed: {first_line(error)}"
    finally:
        network.trainable = True


def keep_better_phase(network: Any, val: Photos, run: Run) -> tuple[np.ndarray, str]:
    """Restore the weights of phase 1 if phase 2 made the model worse on the validation photos.

    Returns:
        The predicted classes of the validation photos, and why phase 2 was discarded, "" if it was not.
    """
    try:
        if not run.failure:
            run.scores = predict(network, val, partial(run.report, "measuring"))
    except KeyboardInterrupt:
        run.interrupted = True
    except Exception as error:
        run.failure = f"the validation photos could not be evaluated: {first_line(error)}"
    # If phase 2 did not start, there is nothing to restore.
    worse = _worse(val, run) if run.head else ""
    if worse:
        network.set_weights(run.head)
    scores = run.head_scores if worse or run.scores is None else run.scores
    return scores.argmax(axis=-1), worse


def _worse(val: Photos, run: Run) -> str:
    if run.failure:
        return run.failure
    if run.scores is None:
        return "the run was interrupted before the blocks were evaluated."
    head = next(row for row in reversed(run.history) if row.phase == "head")
    blocks = _measure(run.scores, val, run.settings.label_smoothing)
    if not math.isfinite(blocks["val_loss"]) or not math.isfinite(run.history[-1].loss):
        return f"training the blocks ended with a loss that is not finite. {_ADVICE}"
    gain = blocks["val_accuracy"] - head.val_accuracy
    # Keras computes the head's accuracy in float32. Equal accuracy may be luck; a much higher loss gives it away.
    if gain < -1e-6 or (gain < 1e-6 and blocks["val_loss"] > 1.5 * head.val_loss):
        return f"training the blocks made the model worse on the validation photos. {_ADVICE}"
    return ""


def _features(network: Any, train: Photos, val: Photos, size: int, run: Run) -> list[np.ndarray]:
    """The inputs of the classifier: features of the training photos, their mirror images, and the validation photos."""
    frozen = fuse(keras.Model(network.input, network.get_layer("avg_pool").output))
    mirrors = (False, True) if run.settings.mirror else (False,)
    jobs: list[tuple[Photos, Any]] = [(train, partial(center_view, size=size, mirrored=mirror)) for mirror in mirrors]
    jobs.append((val, _identity))
    total = sum(len(photos) for photos, _ in jobs)
    features: list[np.ndarray] = []

    def progress(done: int, _: int) -> None:
        run.report("features", sum(map(len, features)) + done, total)

    for photos, view in jobs:
        features.append(predict(frozen, photos, progress, view))
    return features


def _identity(pixels: np.ndarray) -> np.ndarray:
    return pixels


def predict(model: Any, photos: Photos, progress: Callable[[int, int], object], view: Any = _identity) -> np.ndarray:
    """The outputs of a model for photos, in their order.

    Args:
        model: a Keras model with images as input.
        photos: the photos.
        progress: called with the number of finished photos and the total.
        view: maps the pixels of a photo to an input of the model.
    """
    # All batches have the same shape, since Keras would compile the model again for another one.
    steps = math.ceil(len(photos) / _FEATURE_BATCH)

    def done(batch: int, logs: Any = None) -> None:
        progress(min(len(photos), (batch + 1) * _FEATURE_BATCH), len(photos))

    callback = keras.callbacks.LambdaCallback()
    callback.on_predict_batch_end = done
    batches = as_dataset(ordered_batches(photos, view, batch_size=_FEATURE_BATCH))
    return model.predict(batches, steps=steps, callbacks=[callback], verbose=0)[: len(photos)]


def _train_head(network: Any, features: list[np.ndarray], train: Photos, val: Photos, run: Run) -> None:
    classes, chosen = network.output_shape[-1], run.settings
    # Start from zero, where all classes are equally likely: no data would correct the random part of a random start.
    classifier = network.get_layer("predictions")
    classifier.set_weights([np.zeros_like(value) for value in classifier.get_weights()])
    head = keras.Model(network.get_layer("avg_pool").output, network.output)
    inputs = np.concatenate(features[:-1])
    labels = np.concatenate([train.labels(classes)] * (len(features) - 1))
    batch_size = _batch_size(len(inputs), 2 * chosen.batch_size)
    _compile(head, chosen.head_learning_rate, chosen)
    try:
        head.fit(
            inputs,
            labels,
            batch_size=batch_size,
            epochs=chosen.head_epochs,
            validation_data=(features[-1], val.labels(classes)),
            callbacks=run.all_callbacks("head", chosen.head_epochs, math.ceil(len(inputs) / batch_size)),
            verbose=0,
        )
    finally:
        if run.history:
            # Not predict(): with one more model TensorFlow would warn about retracing.
            scores = head(features[-1], training=False)
            run.scores = run.head_scores = scores.numpy() if LEGACY else keras.ops.convert_to_numpy(scores)
    last = run.history[-1]
    if not math.isfinite(last.loss):
        raise ValueError(
            f"The loss of the head is {last.loss} in epoch {last.epoch}. Expected a finite number. "
            "Check that the network's own weights are finite, or lower head_learning_rate."
        )


def _train_blocks(network: Any, train: Photos, val: Photos, size: int, run: Run) -> None:
    classes, chosen = network.output_shape[-1], run.settings
    unfreeze(network, chosen.unfreeze)
    parts = with_frozen_trunk(network, str(first_block(network, chosen.unfreeze)))
    scores = _scores_of(parts, val)
    batch_size = _batch_size(len(train), chosen.batch_size)
    steps = len(train) // batch_size
    view = partial(random_view, size=size, smallest=chosen.smallest_crop, mirror=chosen.mirror)
    batches = training_batches(
        train, lambda pixels, rng: view(pixels, rng=rng), classes=classes, batch_size=batch_size, seed=chosen.seed
    )

    def measure() -> dict[str, float]:
        run.scores = scores()
        return _measure(run.scores, val, chosen.label_smoothing)

    _compile(parts.whole, _warmed_cosine(chosen.learning_rate, steps * chosen.epochs), chosen)
    parts.whole.fit(
        as_dataset(batches),
        steps_per_epoch=steps,
        epochs=chosen.epochs,
        callbacks=run.all_callbacks("blocks", chosen.epochs, steps, measure),
        shuffle=False,
        verbose=0,
    )


def _scores_of(parts: FrozenTrunk, val: Photos) -> Callable[[], np.ndarray]:
    """A function for the probabilities of the validation photos; it caches the trunk's features if they fit."""

    def silent(*_: int) -> None:
        return

    if parts.trunk is None or 4 * math.prod(parts.trunk.output_shape[1:]) * len(val) > _TRUNK_MEMORY:
        return lambda: predict(parts.whole, val, silent)
    kept = predict(parts.trunk, val, silent)
    return lambda: parts.tail.predict(kept, batch_size=_FEATURE_BATCH, verbose=0)


def _measure(scores: np.ndarray, val: Photos, smoothing: float) -> dict[str, float]:
    """The metrics that `fit` would compute; it does not accept a generator with a smaller last batch twice."""
    classes = scores.shape[-1]
    labels = val.labels(classes)
    smoothed = labels * (1 - smoothing) + smoothing / classes
    loss = -(smoothed * np.log(scores.clip(1e-7))).sum(axis=-1).mean()
    return {"val_loss": loss, "val_accuracy": (scores.argmax(axis=-1) == labels.argmax(axis=-1)).mean()}


def _batch_size(photos: int, most: int) -> int:
    """Reduce the batch size to get at least eight batches per epoch, if there are at least eight photos."""
    return min(photos, max(1, min(most, photos // 8)))


def _warmed_cosine(peak: float, steps: int) -> Any:
    warm_up = steps // 5
    return keras.optimizers.schedules.CosineDecay(
        peak / 50, max(1, steps - warm_up), warmup_target=peak, warmup_steps=warm_up
    )


def _compile(model: Any, learning_rate: Any, chosen: Settings) -> None:
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=chosen.weight_decay),
        keras.losses.CategoricalCrossentropy(label_smoothing=chosen.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
    )
    speed_up(model)
