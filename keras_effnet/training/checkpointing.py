"""The callback that saves checkpoints and the best weights, after every epoch and optionally every few steps."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from keras_effnet._keras import array_of, keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import BEGIN, Position
from keras_effnet.introspection import find_network, variant_of
from keras_effnet.training.ema import EMA
from keras_effnet.training.state import BEST, Progress, state_of, write_state
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.saving import save_weights

log = logging.getLogger(__name__)


class DivergedError(ValueError):
    """The loss or the weights are not finite."""


@dataclass(frozen=True)
class Saving:
    """When a run is saved, and when it stops.

    Args:
        steps: batches per epoch.
        batch_size: images per batch.
        every: also save after this many batches within an epoch; None to save only after each epoch.
        patience: stop after this many epochs without improvement; None for never.
        writes: whether this process writes files.
        alone: whether this is the only process; with several, each knows only which images it skipped itself.
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
    """Save the best weights and everything that resuming needs; must come after `EMA` in the list of callbacks.

    If the disk is full, only the checkpoints that do not fit are lost: a warning is logged, and the next one is tried.

    Args:
        folder: folder of the run.
        progress: how far the run is; the saver updates it.
        saving: when to save.
        ema: the moving average, None if there is none.
        odd: counters of non-RGB and unreadable files, for the training and the held-out images.
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
            if seen:
                part.recall(seen)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember the position in the data at which `fit` starts this epoch."""
        begun = self.progress
        # If the place is unknown, the pipeline starts at the beginning of the epoch.
        self._began = Position(begun.epoch) if begun.place is None else Position(begun.epoch, begun.step, begun.place)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop if the loss is not finite; save a checkpoint if one is due."""
        self.progress.step += 1
        # JAX updates the model's variables only on request during `fit`.
        getattr(self.model, "jax_state_sync", lambda: None)()
        self._add_sums()
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise DivergedError(f"The loss is {loss} {self._where}.")
        step, every = self.progress.step, self.saving.every
        if every and step % every == 0 and step < self.saving.steps:
            self._check_weights()
            self.progress.place = self.place_after(step) if self.saving.alone else None
            # Reading them sums over replicas and workers, which all processes have to do together.
            self.progress.metrics = [float(array_of(variable)) for variable in self._metric_variables()]
            self._note_files()
            self._save()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Save the best weights, then a checkpoint: if the process dies in between, the epoch is repeated."""
        self._check_weights()
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        self.progress.history.append(row)
        self.progress.epoch, self.progress.step, self.progress.place, self.progress.metrics = epoch + 1, 0, 0, []
        self.odd[0].gaps.forget(epoch)
        self._note_files()
        best = self.progress.best
        if best is row:
            self._best = self._weights()
        self._save()
        if self._waited_for(best):
            self.model.stop_training = True

    @property
    def out_of_patience(self) -> bool:
        """Whether the last improvement is too many epochs ago."""
        return self.saving.patience is not None and self._waited_for(self.progress.best)

    def _waited_for(self, best: Mapping[str, float] | None) -> bool:
        patience = self.saving.patience
        return patience is not None and best is not None and self.progress.epoch - best["epoch"] >= patience

    def place_after(self, step: int) -> int:
        """The place in the data after a step of this epoch."""
        images = (step - self._began.step) * self.saving.batch_size
        return self.odd[0].gaps.after(self._began, images)

    def finish(self) -> None:
        """Write what is still unwritten: a checkpoint that failed, or the restored best weights.

        Raises:
            OSError: it failed again.
        """
        if self.failure or self._best:
            self._note_files()
            self._save()
        if self.failure:
            raise self.failure

    @contextmanager
    def output_folder(self) -> Iterator[Path]:
        """The folder of the run in the process that writes; a temporary folder in the others."""
        with nullcontext(self.folder) if self.saving.writes else TemporaryDirectory() as folder:
            yield Path(folder)

    def check_best(self, model: Any) -> None:
        """Check the file of the best weights before `fit`; if it is damaged, replace it as far as possible."""
        self.set_model(model)
        best = self.progress.best if self.progress.history else None
        if best is None:
            return
        try:
            read_checkpoint(self.folder / BEST, variant_of(find_network(model)))
        except (OSError, ValueError) as error:
            end, lost = self.progress.epoch, int(best["epoch"])
            whole = self.progress.step == 0
            # A checkpoint at the end of an epoch contains that epoch's weights, which are the best that remain.
            self.progress.lost = end - 1 if whole else end
            done = "it was restored" if whole and lost == end else f"the weights of epoch {lost} are lost"
            self.progress.notes.append(f"The file {BEST} is damaged ({error}): {done}.")
            if whole:
                # Written with the next checkpoint, because the other processes still have to check this file.
                self._best = self._weights()

    @property
    def _where(self) -> str:
        return f"in epoch {self.progress.epoch + 1}, step {self.progress.step}"

    def _metric_variables(self) -> list[Any]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _add_sums(self) -> None:
        """Add the metrics of the interrupted part of the epoch, after the first batch, which resets the metrics."""
        for variable, value in zip(self._metric_variables(), self._sums, strict=True) if self._sums else ():
            variable.assign(array_of(variable) + np.float32(value))
        self._sums = []

    def _check_weights(self) -> None:
        # Training could not resume from such weights.
        if not all(np.isfinite(array_of(weight)).all() for weight in self.model.weights):
            raise DivergedError(f"The weights are not finite {self._where}.")

    def _weights(self) -> list[np.ndarray]:
        return [array_of(weight) for weight in (self.ema.variables if self.ema else self.model.weights)]

    def _note_files(self) -> None:
        """Note in the progress which files are not plain RGB."""
        self.progress.odd = [part.seen() for part in self.odd]

    def _save(self) -> None:
        self.progress.batches = self.ema.batches if self.ema else 0
        # In every process: tf_keras sums some variables over all processes when they are read, and JAX compares the
        # values that the processes assign.
        arrays = {name: array_of(variable) for name, variable in state_of(self.model, self.ema).items()}
        error = self._write(arrays)
        # For the same reason, all of them have to try again if one could not write.
        if any(self.saving.all_gather(int(error is not None))):
            self._failed(error or OSError("another process could not write"))
            return
        if self.failure:
            self.progress.notes.append(f"Checkpoints could be written again from {self.progress} on.")
        self.failure, self._best = None, []

    def _write(self, arrays: Mapping[str, Any]) -> OSError | None:
        try:
            # First, because a checkpoint must not refer to best weights that are not on the disk.
            if self._best:
                with _holding(self.model, self._best), self.output_folder() as folder:
                    save_weights(self.model, folder / BEST)
            if self.saving.writes:
                write_state(self.folder, arrays, self.progress)
        except OSError as error:
            return error
        return None

    def _failed(self, error: OSError) -> None:
        note = f"The checkpoint after {self.progress} could not be written: {error}."
        if self.failure is None:
            self.progress.notes.append(note)
        if self.failure is None or self.progress.step == 0:
            log.warning("%s Training continues and will try again. The previous checkpoint is kept.", note)
        self.failure = error


@contextmanager
def _holding(model: Any, values: Sequence[np.ndarray]) -> Iterator[None]:
    """Put other weights into a model inside the context."""
    kept = [array_of(weight) for weight in model.weights]
    try:
        _assign(model, values)
        yield
    finally:
        _assign(model, kept)


def _assign(model: Any, values: Sequence[np.ndarray]) -> None:
    for weight, value in zip(model.weights, values, strict=True):
        weight.assign(value)
