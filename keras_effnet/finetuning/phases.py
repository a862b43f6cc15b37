"""The two phases of fine-tuning: the head on precomputed features, then the last blocks on random crops."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.mixing import mix
from keras_effnet.data.photo_batches import Batch, Photos, center_view, random_view, training_batches
from keras_effnet.errors import first_line
from keras_effnet.finetuning.growth import Stage, make_stages, open_copy
from keras_effnet.finetuning.report import Epoch
from keras_effnet.finetuning.run_state import Run
from keras_effnet.finetuning.settings import Settings
from keras_effnet.finetuning.tf_generator import BATCH, View, as_dataset, predict, predict_all
from keras_effnet.finetuning.transfer import FrozenTrunk, first_block, unfreeze, with_frozen_trunk
from keras_effnet.inference.fusion import fuse
from keras_effnet.training.speed_up import speed_up

# Limit in bytes for the trunk's features of the validation photos; above it, they are recomputed each epoch.
_TRUNK_MEMORY = 2**29
_ADVICE = "A lower learning rate, or a check of the labels, may help."


def train_phases(run: Run) -> tuple[np.ndarray, str]:
    """Train the head, then the blocks, and keep the better of the two models.

    An interrupt after the first epoch, and a failure of phase 2, stop the training.

    Returns:
        The scores of the validation photos, float32 (photos, classes), and why phase 2 was discarded, "" if it was not.
    """
    try:
        with _timed(run, "features"):
            fused = fuse(keras.Model(run.network.input, run.network.get_layer("avg_pool").output))
            features = _features(fused, run)
        with _timed(run, "head"):
            _train_head(features, run)
        if run.settings.unfreeze and run.settings.epochs:
            run.head = run.network.get_weights()
            with _timed(run, "blocks"):
                _train_blocks(fused, run)
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
        run.network.trainable = True
    with _timed(run, "measuring"):
        return _keep_better(run)


@contextmanager
def _timed(run: Run, part: str) -> Iterator[None]:
    """Record the duration of a `with` block."""
    start = time.perf_counter()
    try:
        yield
    finally:
        run.seconds[part] = time.perf_counter() - start


def _keep_better(run: Run) -> tuple[np.ndarray, str]:
    """Restore the weights of phase 1 if phase 2 made the model worse on the validation photos."""
    try:
        if not run.failure:
            run.scores = predict(run.network, run.val, partial(run.report, "measuring"))
    except KeyboardInterrupt:
        run.interrupted = True
    except Exception as error:
        run.failure = f"the validation photos could not be evaluated: {first_line(error)}"
    # If phase 2 did not start, there is nothing to restore.
    worse = _worse(run) if run.head else ""
    if worse:
        run.network.set_weights(run.head)
    scores = run.head_scores if worse or run.scores is None else run.scores
    return scores, worse


def _worse(run: Run) -> str:
    if run.failure:
        return run.failure
    if run.scores is None:
        return "the run was interrupted before the blocks were evaluated."
    head = next(row for row in reversed(run.history) if row.phase == "head")
    blocks = _measure(run, run.scores)
    if not math.isfinite(blocks["val_loss"]) or not math.isfinite(run.history[-1].loss):
        return f"training the blocks ended with a loss that is not finite. {_ADVICE}"
    gain = blocks["val_accuracy"] - head.val_accuracy
    # Keras computes the head's accuracy in float32. Equal accuracy may be luck; a much higher loss gives it away.
    if gain < -1e-6 or (gain < 1e-6 and blocks["val_loss"] > 1.5 * head.val_loss):
        return f"training the blocks made the model worse on the validation photos. {_ADVICE}"
    return ""


def _features(fused: Any, run: Run) -> list[np.ndarray]:
    """The inputs of the classifier: features of the training photos, their mirror images, and the validation photos."""
    mirrors = (False, True) if run.settings.mirror else (False,)
    jobs: list[tuple[Photos, View | None]] = [
        (run.train, partial(center_view, size=run.size, mirrored=mirror)) for mirror in mirrors
    ]
    return predict_all(fused, [*jobs, (run.val, None)], partial(run.report, "features"))


def _train_head(features: list[np.ndarray], run: Run) -> None:
    chosen, (labels, val_labels) = run.settings, run.labels
    # Start from zero, where all classes are equally likely: no data would correct the random part of a random start.
    classifier = run.network.get_layer("predictions")
    classifier.set_weights([np.zeros_like(value) for value in classifier.get_weights()])
    head = keras.Model(run.network.get_layer("avg_pool").output, run.network.output)
    inputs = np.concatenate(features[:-1])
    batch_size = _batch_size(len(inputs), 2 * chosen.batch_size)
    _compile(head, chosen.head_learning_rate, chosen)
    try:
        head.fit(
            inputs,
            np.concatenate([labels] * (len(features) - 1)),
            batch_size=batch_size,
            epochs=chosen.head_epochs,
            validation_data=(features[-1], val_labels),
            callbacks=_callbacks(run, "head", chosen.head_epochs, math.ceil(len(inputs) / batch_size)),
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


def _train_blocks(fused: Any, run: Run) -> None:
    network, chosen = run.network, run.settings
    unfreeze(network, chosen.unfreeze)
    parts = with_frozen_trunk(network, str(first_block(network, chosen.unfreeze)), fused)
    scores = _scores_of(parts, run.val)
    copy, whole = open_copy(network, chosen.unfreeze) if chosen.progressive else (network, parts.whole)
    photos = len(run.train.rows)
    batch_size = _batch_size(photos, chosen.batch_size)
    steps = photos // batch_size

    def measure() -> dict[str, float]:
        if copy is not network:
            network.set_weights(copy.get_weights())
        run.scores = scores()
        return _measure(run, run.scores)

    _compile(whole, _warmed_cosine(chosen.learning_rate, steps * chosen.epochs), chosen)
    callbacks = _callbacks(run, "blocks", chosen.epochs, steps, measure)
    epoch = 0
    for stage in make_stages(chosen, run.size):
        # Otherwise the next size would be compiled with an open shape.
        whole.train_function = None
        whole.fit(
            as_dataset(_batches(run, stage, batch_size, epoch)),
            steps_per_epoch=steps,
            initial_epoch=epoch,
            epochs=stage.until,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
        epoch = stage.until
        if whole.stop_training:
            break


def _batches(run: Run, stage: Stage, batch_size: int, epoch: int) -> Iterator[Batch]:
    view = partial(random_view, size=stage.size, smallest=stage.smallest_crop, mirror=run.settings.mirror)
    mixed = partial(mix, mixup=stage.mixup, cutmix=stage.cutmix) if stage.mixup or stage.cutmix else None
    options = {"classes": run.network.output_shape[-1], "batch_size": batch_size, "seed": run.settings.seed}
    return training_batches(run.train, view, **options, epoch=epoch, mix=mixed)


def _callbacks(
    run: Run, phase: str, epochs: int, steps: int, measure: Callable[[], dict[str, float]] = dict
) -> list[Any]:
    """Keras callbacks: the user's after one that records epochs and reports progress.

    Args:
        run: the run.
        phase: "head" or "blocks".
        epochs: of the phase.
        steps: batches per epoch.
        measure: returns metrics that `fit` lacks, called after each epoch.
    """
    start = time.perf_counter()
    done = 0

    def batch(_: int, logs: Any = None) -> None:
        nonlocal done
        done += 1
        run.report(phase, done, epochs * steps)

    def epoch(number: int, logs: Any) -> None:
        logs.update(measure())  # in place, so that the following callbacks get them
        figures = {name: float(value) for name, value in logs.items()}
        seconds = round(time.perf_counter() - start, 2)
        run.history.append(Epoch(phase, number + 1, **figures, seconds=seconds))
        if not math.isfinite(figures["loss"]):
            # The model cannot recover. Phase 2 is discarded then, as the head alone is better.
            callback.model.stop_training = True

    def begin(_: Any) -> None:
        # Each stage is a call of `fit`, which knows only its own last epoch.
        callback.params["epochs"] = epochs

    callback = keras.callbacks.LambdaCallback(on_train_begin=begin, on_epoch_end=epoch, on_train_batch_end=batch)
    return [callback, *run.callbacks]


def _scores_of(parts: FrozenTrunk, val: Photos) -> Callable[[], np.ndarray]:
    """A function for the probabilities of the validation photos; it caches the trunk's features if they fit."""
    if parts.trunk is None or 4 * math.prod(parts.trunk.output_shape[1:]) * len(val.rows) > _TRUNK_MEMORY:
        return partial(predict, parts.whole, val)
    kept = predict(parts.trunk, val)
    return lambda: parts.tail.predict(kept, batch_size=BATCH, verbose=0)


def _measure(run: Run, scores: np.ndarray) -> dict[str, float]:
    """The metrics that `fit` would compute; it does not accept a generator with a smaller last batch twice."""
    smoothing, labels = run.settings.label_smoothing, run.labels[1]
    smoothed = labels * (1 - smoothing) + smoothing / scores.shape[-1]
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
