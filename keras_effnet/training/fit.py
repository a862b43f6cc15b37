"""`model.fit` for the remaining epochs of a run, and the error report when the loss is not finite."""

import logging
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from keras_effnet._keras import keras
from keras_effnet.data.sharding import Position
from keras_effnet.data.tf_batches import training_batches, validation_batches
from keras_effnet.data.training_data import TrainingData
from keras_effnet.introspection import crop_of
from keras_effnet.training.checkpointing import DivergedError, Saver
from keras_effnet.training.devices import Devices
from keras_effnet.training.plan import Plan
from keras_effnet.training.progressive import Stage
from keras_effnet.training.state import Progress
from keras_effnet.training.tf_diverged import batch_names, blame

# Lists every file of the batch whose loss is not finite.
DIVERGED = "diverged.txt"

log = logging.getLogger("keras_effnet")


class Entered(keras.callbacks.Callback):  # type: ignore[misc]
    """A stage that was begun in this process, and how long its first step took: compilation and the first images."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage, self._start = stage, time.perf_counter()
        self.seconds: float | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop the clock at the first step."""
        if self.seconds is None:
            self.seconds = round(time.perf_counter() - self._start, 1)


@dataclass(frozen=True)
class Session:
    """A run that is open: everything that training needs.

    Args:
        network: the compiled model.
        plan: the steps, epochs and batches of the run.
        data: the training and held-out images.
        devices: the devices that the network is trained on.
        saver: the callback that writes checkpoints; it knows the folder and how far the run is.
        notes: on the devices, for the report.
        callbacks: of the user.
        stages: the stages that were begun in this process.
    """

    network: Any
    plan: Plan
    data: TrainingData
    devices: Devices
    saver: Saver
    notes: tuple[str, ...] = ()
    callbacks: tuple[Any, ...] = ()
    stages: list[Entered] = field(default_factory=list)


def fit_epochs(session: Session, *, verbose: int | str) -> None:
    """Train until the last epoch, or until the patience is used up.

    Raises:
        ValueError: the loss is not finite, or the data cannot be used.
    """
    saver, odd = session.saver, session.saver.odd
    try:
        with warnings.catch_warnings():
            # Unreadable images are skipped, so Keras cannot know the number of validation batches, and warns.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            while saver.progress.epoch < session.plan.epochs and not saver.out_of_patience:
                stage = _enter_stage(session)
                # `fit` cannot start in the middle of an epoch, so the rest of one is a separate call.
                _fit(session, until=saver.progress.epoch + 1 if saver.progress.step else stage.until, verbose=verbose)
    except DivergedError as error:
        raise ValueError(_explained(str(error), session)) from error
    except Exception as error:
        # TensorFlow wraps errors of the input pipeline, and puts the stack trace into the message.
        if refused := odd[0].refused or odd[1].refused:
            raise refused from error
        raise


def _enter_stage(session: Session) -> Stage:
    """The stage of the next epoch; if it is a new one, the network is compiled for its size."""
    network, done = session.network, session.stages
    stage = session.plan.stage(session.saver.progress.epoch)
    if done and done[-1].stage == stage:
        return stage
    # Otherwise the next size would be compiled with an open shape.
    network.train_function = None
    done.append(Entered(stage))
    if len(session.plan.stages) > 1:
        log.info("training with %d x %d pixels until epoch %d", stage.size, stage.size, stage.until)
    return stage


def _fit(session: Session, *, until: int, verbose: int | str) -> None:
    plan, data, devices, saver = session.plan, session.data, session.devices, session.saver
    start, odd = _position(saver.progress), saver.odd
    batches = replace(plan.batches(start.epoch), crop=crop_of(session.network))
    training = partial(training_batches, data.train, batches, steps=plan.steps, odd=odd[0], start=start)
    seen = replace(batches, size=plan.held_out_size)
    validation = partial(validation_batches, data.held_out, seen, odd=odd[1])
    session.network.fit(
        devices.batches(training),
        validation_data=devices.batches(validation),
        steps_per_epoch=plan.steps - start.step,
        validation_steps=devices.validation_steps(data.held_out.total, plan.batch_size),
        initial_epoch=start.epoch,
        epochs=until,
        # The saver comes last, so that it saves the updated average.
        callbacks=[*([saver.ema] if saver.ema else []), session.stages[-1], *session.callbacks, saver],
        shuffle=False,
        verbose=verbose,
    )


def _position(progress: Progress) -> Position:
    """Position of the next batch in the data."""
    return Position(progress.epoch, progress.step, progress.place)


def _explained(error: str, session: Session) -> str:
    """The error with the files of the batch, the likely cause, and what to change."""
    saver, source = session.saver, session.data.train
    batches = replace(session.plan.batches(saver.progress.epoch), crop=crop_of(session.network))
    done = saver.progress.step - 1
    position = replace(_position(saver.progress), step=done, place=saver.place_after(done))
    names = batch_names(source, batches, position, saver.odd[0].gaps)
    reason = blame(session.network, source, batches, position, names)
    listed = ", ".join(map(repr, names[:8]))
    if saver.saving.writes and len(names) > 8:
        with suppress(OSError):
            file = saver.folder / DIVERGED
            file.write_text("".join(f"{name}\n" for name in names), "utf-8", "backslashreplace")
            listed += f" and {len(names) - 8} more ({file})"
    return (
        f"{error} The batch: {listed}. {reason} Expected a finite loss. In a new folder, lower the learning rate, clip "
        "the gradients (--clip-norm 1), use float32 or mixed_bfloat16, or remove these images."
    )
