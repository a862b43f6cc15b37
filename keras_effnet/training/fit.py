"""The epochs of a training: `model.fit` from wherever it stands, and what to say where the loss is no number."""

import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from keras_effnet.data.tf_batches import training_batches, validation_batches
from keras_effnet.data.training_data import TrainingData
from keras_effnet.training.checkpointing import DivergedError, Saver
from keras_effnet.training.devices import Devices
from keras_effnet.training.plan import Plan
from keras_effnet.training.tf_diverged import batch_names, blame

# All files of the batch whose loss is no number.
DIVERGED = "diverged.txt"


def fit_epochs(
    network: Any, plan: Plan, data: TrainingData, saver: Saver, devices: Devices, *, verbose: int | str
) -> None:
    """Train until the last epoch, or until there is no patience left.

    Raises:
        ValueError: a loss that is no number, or data that cannot be used.
    """
    odd = saver.odd
    try:
        with warnings.catch_warnings():
            # Keras says so of validation images whose number it cannot know, since broken ones are left out.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            if saver.progress.step:
                # `fit` begins with a whole epoch: the rest of one is a fit of its own.
                _fit(network, plan, data, saver, devices, until=saver.progress.epoch + 1, verbose=verbose)
            if saver.progress.epoch < plan.epochs and not saver.out_of_patience:
                _fit(network, plan, data, saver, devices, until=plan.epochs, verbose=verbose)
    except DivergedError as error:
        raise ValueError(_explained(str(error), network, plan, data, saver)) from error
    except Exception as error:
        # Out of the pipeline an error comes wrapped in TensorFlow's, with a stack trace for a message.
        if refused := odd[0].refused or odd[1].refused:
            raise refused from error
        raise


def _fit(
    network: Any, plan: Plan, data: TrainingData, saver: Saver, devices: Devices, *, until: int, verbose: int | str
) -> None:
    start, odd = saver.progress.position, saver.odd
    training = partial(training_batches, data.train, plan.batches, steps=plan.steps, odd=odd[0], start=start)
    validation = partial(validation_batches, data.held_out, plan.batches, odd=odd[1])
    network.fit(
        devices.batches(training),
        validation_data=devices.batches(validation),
        steps_per_epoch=plan.steps - start.step,
        validation_steps=devices.validation_steps(data.held_out.total, plan.batch_size),
        initial_epoch=start.epoch,
        epochs=until,
        # What is saved has to be behind the average.
        callbacks=[*([saver.ema] if saver.ema else []), saver],
        shuffle=False,
        verbose=verbose,
    )


def _explained(error: str, network: Any, plan: Plan, data: TrainingData, saver: Saver) -> str:
    """What the batch was made of and what to do about it."""
    done = saver.progress.step - 1
    position = replace(saver.progress.position, step=done, place=saver.place_after(done))
    names = batch_names(data.train, plan.batches, position, saver.odd[0].gaps)
    reason = blame(network, data.train, plan.batches, position, names)
    listed = ", ".join(map(repr, names[:8]))
    if saver.saving.writes and len(names) > 8:
        with suppress(OSError):
            file = saver.folder / DIVERGED
            file.write_text("".join(f"{name}\n" for name in names), "utf-8", "backslashreplace")
            listed += f" and {len(names) - 8} more ({file})"
    return (
        f"{error} Its batch: {listed}. {reason} Expected finite numbers. Lower the learning rate, clip the gradients "
        "(--clip-norm 1), use float32 or mixed_bfloat16, or leave these images out; each of it in a new folder."
    )
