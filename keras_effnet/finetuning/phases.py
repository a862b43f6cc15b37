"""The two phases of a fine-tuning: the head on features computed once, then the last blocks on random crops."""

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
from keras_effnet.finetuning.tf_generator import steadily
from keras_effnet.finetuning.transfer import FrozenTrunk, first_block, unfreeze, with_frozen_trunk
from keras_effnet.inference.fusion import fuse
from keras_effnet.training.speed_up import speed_up

_FEATURE_BATCH = 32
# Bytes of what the trunk makes of the photos held out; what is more is computed anew each epoch.
_TRUNK_ROOM = 2**29
_ADVICE = "A lower learning rate (--learning-rate), or photos whose labels are checked, may help."


def train_phases(network: Any, train: Photos, val: Photos, size: int, run: Run) -> None:
    """Train the head, then the blocks; an interrupt after the head's first epoch, or a failure after it, ends that."""
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


def keep_the_better(network: Any, val: Photos, run: Run) -> tuple[np.ndarray, str]:
    """Go back to phase 1 if that was better on the photos held out: the classes they get, and why it was so, or ""."""
    try:
        if not run.failure:
            run.scores = predict(network, val, lambda *far: run.tell("measuring", *far))
    except KeyboardInterrupt:
        run.interrupted = True
    except Exception as error:
        run.failure = f"the photos held out could not be measured: {first_line(error)}"
    # Where phase 2 was not begun there is nothing to go back to.
    worse = _worse(val, run) if run.head else ""
    if worse:
        network.set_weights(run.head)
    scores = run.head_scores if worse or run.scores is None else run.scores
    return scores.argmax(axis=-1), worse


def _worse(val: Photos, run: Run) -> str:
    if run.failure:
        return run.failure
    if run.scores is None:
        return "it was interrupted before the blocks were measured."
    head = next(row for row in reversed(run.history) if row.phase == "head")
    blocks = _measure(run.scores, val, run.settings.label_smoothing)
    if not math.isfinite(blocks["val_loss"]) or not math.isfinite(run.history[-1].loss):
        return f"training the blocks ended in a loss that is no number. {_ADVICE}"
    gain = blocks["val_accuracy"] - head.val_accuracy
    # Keras gives the head's accuracy in float32. As many may be right by luck, which a loss far above the head's shows.
    if gain < -1e-6 or (gain < 1e-6 and blocks["val_loss"] > 1.5 * head.val_loss):
        return f"training the blocks made the model worse on the photos held out. {_ADVICE}"
    return ""


def _features(network: Any, train: Photos, val: Photos, size: int, run: Run) -> list[np.ndarray]:
    """What the classifier gets: of the photos, of their mirror images, of those held out."""
    frozen = fuse(keras.Model(network.input, network.get_layer("avg_pool").output))
    mirrors = (False, True) if run.settings.mirror else (False,)
    jobs: list[tuple[Photos, Any]] = [(train, partial(center_view, size=size, mirrored=mirror)) for mirror in mirrors]
    jobs.append((val, _as_it_is))
    total = sum(len(photos) for photos, _ in jobs)
    features: list[np.ndarray] = []

    def tell(done: int, _: int) -> None:
        run.tell("features", sum(map(len, features)) + done, total)

    for photos, view in jobs:
        features.append(predict(frozen, photos, tell, view))
    return features


def _as_it_is(pixels: np.ndarray) -> np.ndarray:
    return pixels


def predict(model: Any, photos: Photos, tell: Callable[[int, int], object], view: Any = _as_it_is) -> np.ndarray:
    """What a model gives for photos, in their order.

    Args:
        model: takes images.
        photos: as they were read.
        tell: called with how many photos are done and how many there are.
        view: from the pixels of a photo to an image for the model.
    """
    # Batches of one shape: others would be compiled anew.
    steps = math.ceil(len(photos) / _FEATURE_BATCH)

    def done(batch: int, logs: Any = None) -> None:
        tell(min(len(photos), (batch + 1) * _FEATURE_BATCH), len(photos))

    watch = keras.callbacks.LambdaCallback()
    watch.on_predict_batch_end = done
    batches = steadily(ordered_batches(photos, view, batch_size=_FEATURE_BATCH))
    return model.predict(batches, steps=steps, callbacks=[watch], verbose=0)[: len(photos)]


def _train_head(network: Any, features: list[np.ndarray], train: Photos, val: Photos, run: Run) -> None:
    classes, chosen = network.output_shape[-1], run.settings
    # From zero, where every class is as likely: what a random start adds would stay where no photo contradicts it.
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
            callbacks=[run.watch("head", chosen.head_epochs, math.ceil(len(inputs) / batch_size))],
            verbose=0,
        )
    finally:
        if run.history:
            # One more model to predict with, and TensorFlow would warn of functions that are traced again.
            scores = head(features[-1], training=False)
            run.scores = run.head_scores = scores.numpy() if LEGACY else keras.ops.convert_to_numpy(scores)
    last = run.history[-1]
    if not math.isfinite(last.loss):
        raise ValueError(
            f"The loss of the head is {last.loss} in epoch {last.epoch}. Expected a finite number. "
            "Look whether the network's own weights are finite, or lower head_learning_rate."
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
        steadily(batches),
        steps_per_epoch=steps,
        epochs=chosen.epochs,
        callbacks=[run.watch("blocks", chosen.epochs, steps, measure)],
        shuffle=False,
        verbose=0,
    )


def _scores_of(parts: FrozenTrunk, val: Photos) -> Callable[[], np.ndarray]:
    """What gives the probabilities of the photos held out; what the trunk makes of them is kept where there is room."""

    def quiet(*far: int) -> None:
        return

    if parts.trunk is None or 4 * math.prod(parts.trunk.output_shape[1:]) * len(val) > _TRUNK_ROOM:
        return lambda: predict(parts.whole, val, quiet)
    kept = predict(parts.trunk, val, quiet)
    return lambda: parts.tail.predict(kept, batch_size=_FEATURE_BATCH, verbose=0)


def _measure(scores: np.ndarray, val: Photos, smoothing: float) -> dict[str, float]:
    """What `fit` would measure; it takes no batches of several lengths from a generator twice."""
    classes = scores.shape[-1]
    labels = val.labels(classes)
    smoothed = labels * (1 - smoothing) + smoothing / classes
    loss = -(smoothed * np.log(scores.clip(1e-7))).sum(axis=-1).mean()
    return {"val_loss": loss, "val_accuracy": (scores.argmax(axis=-1) == labels.argmax(axis=-1)).mean()}


def _batch_size(photos: int, most: int) -> int:
    """At least eight batches an epoch where there are photos for that."""
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
