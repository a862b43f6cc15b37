"""`model.fit` for the remaining epochs of a run, and the error report when the loss is not finite."""

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from keras_effnet.data.tf_batches import training_batches, validation_batches
from keras_effnet.data.training_data import TrainingData
from keras_effnet.introspection import crop_of
from keras_effnet.training.checkpointing import DivergedError, Saver
from keras_effnet.training.devices import Devices
from keras_effnet.training.plan import Plan
from keras_effnet.training.tf_diverged import batch_names, blame

# Lists every file of the batch whose loss is not finite.
DIVERGED = "diverged.txt"


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
    """

    network: Any
    plan: Plan
    data: TrainingData
    devices: Devices
    saver: Saver
    notes: tuple[str, ...] = ()
    callbacks: tuple[Any, ...] = ()


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
            if saver.progress.step:
                # `fit` cannot start in the middle of an epoch, so the rest of one is a separate call.
                _fit(session, until=saver.progress.epoch + 1, verbose=verbose)
            if saver.progress.epoch < session.plan.epochs and not saver.out_of_patience:
                _fit(session, until=session.plan.epochs, verbose=verbose)
    except DivergedError as error:
        raise ValueError(_explained(str(error), session)) from error
    except Exception as error:
        # TensorFlow wraps errors of the input pipeline, and puts the stack trace into the message.
        if refused := odd[0].refused or odd[1].refused:
            raise refused from error
        raise


def _fit(session: Session, *, until: int, verbose: int | str) -> None:
    plan, data, devices, saver = session.plan, session.data, session.devices, session.saver
    start, odd = saver.progress.position, saver.odd
    training = partial(training_batches, data.train, plan.batches, steps=plan.steps, odd=odd[0], start=start)
    seen = replace(plan.batches, crop=crop_of(session.network))
    validation = partial(validation_batches, data.held_out, seen, odd=odd[1])
    session.network.fit(
        devices.batches(training),
        validation_data=devices.batches(validation),
        steps_per_epoch=plan.steps - start.step,
        validation_steps=devices.validation_steps(data.held_out.total, plan.batch_size),
        initial_epoch=start.epoch,
        epochs=until,
        # The saver comes last, so that it saves the updated average.
        callbacks=[*([saver.ema] if saver.ema else []), *session.callbacks, saver],
        shuffle=False,
        verbose=verbose,
    )


def _explained(error: str, session: Session) -> str:
    """The error with the files of the batch, the likely cause, and what to change."""
    saver, source, batches = session.saver, session.data.train, session.plan.batches
    done = saver.progress.step - 1
    position = replace(saver.progress.position, step=done, place=saver.place_after(done))
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
