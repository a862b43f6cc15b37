"""The callback that keeps a training: its best weights and its state, after each epoch and after so many steps."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import BEGIN, Position
from keras_effnet.introspection import find_network, variant_of
from keras_effnet.training.ema import EMA
from keras_effnet.training.state import BEST, Progress, array_of, state_of, write_state
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.saving import save_weights

log = logging.getLogger(__name__)


class DivergedError(ValueError):
    """A loss or weights that are no numbers any more."""


@dataclass(frozen=True)
class Saving:
    """When a training is saved, and when it is over.

    Args:
        steps: batches of an epoch.
        batch_size: images of a batch.
        every: save after so many batches of an epoch too; None for after each epoch alone.
        patience: epochs without a better one after which to stop, None for never.
        writes: whether this process writes files.
        alone: whether no other process makes a part of the batches; else what these left out is not known here.
        all_gather: returns the values that all processes pass to it.
    """

    steps: int
    batch_size: int
    every: int | None = None
    patience: int | None = None
    writes: bool = True
    alone: bool = True
    all_gather: Callable[[int], list[int]] = lambda value: [value]


class Saver(keras.callbacks.Callback):  # type: ignore[misc]
    """Keep the best weights and all that is needed to go on; put it behind `EMA`.

    A disk that is full costs no more than the states that do not fit: it is said, and tried again with the next one.

    Args:
        folder: where to.
        progress: how far the training is; it is kept up to date.
        saving: when to save.
        ema: the moving average, None if there is none.
        odd: takes note of odd files, of those to train on and of those held out.
    """

    def __init__(
        self, folder: Path, progress: Progress, saving: Saving, *, ema: EMA | None, odd: tuple[OddFiles, OddFiles]
    ) -> None:
        super().__init__()
        self.folder, self.progress, self.saving, self.ema, self.odd = folder, progress, saving, ema, odd
        self.failure: OSError | None = None
        self._began = BEGIN
        self._sums = progress.metrics
        self._best: list[np.ndarray] = []
        for part, seen in zip(odd, progress.odd, strict=True):
            part.recall(seen)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the data from where this epoch, or the rest of it, begins."""
        begun = self.progress.position
        # Where the place was not known, the data is made again from the beginning.
        self._began = Position(begun.epoch) if begun.place is None else begun

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop where the loss is no number any more; save, if it is time to."""
        self.progress.step += 1
        # On JAX the variables of a model in training are behind until they are asked for.
        getattr(self.model, "jax_state_sync", lambda: None)()
        self._add_sums()
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(f"The loss is {loss} {self._here}.")
        step, every = self.progress.step, self.saving.every
        if every and step % every == 0 and step < self.saving.steps:
            self._check_weights()
            self.progress.place = self.place_after(step) if self.saving.alone else None
            # Of replicas and workers these are added up, to which all of them have to come.
            self.progress.metrics = [float(array_of(variable)) for variable in self._metric_variables()]
            self._save()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the best weights first: cut between the two, the epoch is done again, and gives the same."""
        self._check_weights()
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        self.progress.history.append(row)
        self.progress.epoch, self.progress.step, self.progress.place, self.progress.metrics = epoch + 1, 0, 0, []
        self.odd[0].gaps.forget(epoch)
        if self.progress.best is row:
            self._best = self._weights()
        self._save()
        if self.out_of_patience:
            self.model.stop_training = True

    @property
    def out_of_patience(self) -> bool:
        """Whether the best epoch is too long ago."""
        best, patience = self.progress.best, self.saving.patience
        return patience is not None and best is not None and self.progress.epoch - best["epoch"] >= patience

    def place_after(self, step: int) -> int:
        """Where the data goes on after a step of this epoch."""
        images = (step - self._began.step) * self.saving.batch_size
        return self.odd[0].gaps.after(self._began, images)

    def finish(self) -> None:
        """Write what could not be written before.

        Raises:
            OSError: it still cannot be.
        """
        if self.failure or self._best:
            self._save()
        if self.failure:
            raise self.failure

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Where this process writes what every one has to: the folder, or one that is thrown away."""
        with nullcontext(self.folder) if self.saving.writes else TemporaryDirectory() as place:
            yield Path(place)

    def mend(self, model: Any) -> None:
        """See to it that the best weights of the epochs that are done can be had; call it before `fit`."""
        self.set_model(model)
        best = self.progress.best
        if best is None:
            return
        try:
            read_checkpoint(self.folder / BEST, variant_of(find_network(model)))
        except (OSError, ValueError) as error:
            end, lost = self.progress.epoch, int(best["epoch"])
            whole = self.progress.step == 0
            # At the end of an epoch its weights are at hand, be they the best or the best that is left.
            self.progress.lost = end - 1 if whole else end
            done = "was written again" if whole and lost == end else f"the weights of epoch {lost} are lost"
            self.progress.notes.append(f"The file {BEST} is damaged ({error}): {done}.")
            if whole:
                # Written with the next state: all workers have to find the file as it is.
                self._best = self._weights()

    @property
    def _here(self) -> str:
        return f"in epoch {self.progress.epoch + 1}, step {self.progress.step}"

    def _metric_variables(self) -> list[Any]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _add_sums(self) -> None:
        """Add what the epoch had come to before it was cut off; before its first batch there is nothing to add to."""
        for variable, value in zip(self._metric_variables(), self._sums, strict=True) if self._sums else ():
            variable.assign(array_of(variable) + np.float32(value))
        self._sums = []

    def _check_weights(self) -> None:
        # A state with such weights could not be gone on with.
        if not all(np.isfinite(array_of(weight)).all() for weight in self.model.weights):
            raise DivergedError(f"The weights are no finite numbers any more {self._here}.")

    def _weights(self) -> list[np.ndarray]:
        return [array_of(weight) for weight in (self.ema.variables if self.ema else self.model.weights)]

    def _save(self) -> None:
        self.progress.batches = self.ema.batches if self.ema else 0
        self.progress.odd = [part.seen() for part in self.odd]
        # On every process, since some variables of tf_keras are summed up over all of them to be read, and JAX compares
        # what each of them assigns.
        arrays = {name: array_of(variable) for name, variable in state_of(self.model, self.ema).items()}
        error = self._write(arrays)
        # For the same reason all of them have to try it again, whichever could not write.
        if any(self.saving.all_gather(int(error is not None))):
            self._failed(error or OSError("another process could not write"))
            return
        if self.failure:
            self.progress.notes.append(f"From {self.progress} on, the state could be written again.")
        self.failure, self._best = None, []

    def _write(self, arrays: Mapping[str, Any]) -> OSError | None:
        try:
            # A state may not speak of best weights that are not on the disk.
            if self._best:
                with _holding(self.model, self._best), self.place() as place:
                    save_weights(self.model, place / BEST)
            if self.saving.writes:
                write_state(self.folder, arrays, self.progress)
        except OSError as error:
            return error
        return None

    def _failed(self, error: OSError) -> None:
        note = f"After {self.progress} the state could not be written: {error}."
        if self.failure is None:
            self.progress.notes.append(note)
        if self.failure is None or self.progress.step == 0:
            log.warning("%s The training goes on, and tries it again. The last state is kept.", note)
        self.failure = error


@contextmanager
def _holding(model: Any, values: Sequence[np.ndarray]) -> Iterator[None]:
    """Put other weights into a model for a while."""
    kept = [array_of(weight) for weight in model.weights]
    try:
        _assign(model, values)
        yield
    finally:
        _assign(model, kept)


def _assign(model: Any, values: Sequence[np.ndarray]) -> None:
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)
