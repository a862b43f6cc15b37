"""The state of a training on the disk: after each epoch, everything that the next one depends on."""

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.ema import EMA
from keras_effnet.saving import save_weights
from keras_effnet.staging import staged

BEST = "best.weights.h5"
HISTORY = "history.jsonl"
SETTINGS = "settings.json"
# Two, so that one is whole if the other is not.
KEEP = 2


@dataclass
class Progress:
    """How far a training is.

    Args:
        epoch: epochs that are done.
        batches: that the moving average has seen.
        history: figures of each epoch.
    """

    epoch: int = 0
    batches: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, float] | None:
        """The epoch with the highest accuracy on what is held out; the first of equals."""
        return max(self.history, key=lambda row: (row["val_accuracy"], -row["epoch"]), default=None)


class Saver(keras.callbacks.Callback):  # type: ignore[misc]
    """After each epoch, keep the best weights and all that is needed to go on; put it behind `EMA`.

    Args:
        folder: where to.
        progress: how far the training is; it is kept up to date.
        ema: the moving average, None if there is none.
        patience: epochs without a better one after which to stop, None for never.
        writes: whether this process writes files.
    """

    def __init__(
        self, folder: Path, progress: Progress, *, ema: EMA | None, patience: int | None = None, writes: bool = True
    ) -> None:
        super().__init__()
        self.folder, self.progress, self.ema, self.patience, self.writes = folder, progress, ema, patience, writes

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Stop where the loss is no number any more."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise ValueError(
                f"The loss is {loss} in epoch {self.progress.epoch + 1}, step {batch + 1}. Expected a finite number. "
                "Lower the learning rate or clip the gradients (--clip-norm 1), use float32 or mixed_bfloat16, and "
                f"start the command again: it goes on from epoch {self.progress.epoch}."
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write the best weights first: cut between the two, the epoch is done again, and gives the same."""
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        self.progress.history.append(row)
        self.progress.epoch = epoch + 1
        self.progress.batches = self.ema.batches if self.ema else 0
        if self.writes and self.progress.best is row:
            self._write_best()
        if self.writes:
            write_state(self.folder, self.model, self.ema, self.progress)
        if self.out_of_patience:
            self.model.stop_training = True

    @property
    def out_of_patience(self) -> bool:
        """Whether the best epoch is too long ago."""
        best = self.progress.best
        return self.patience is not None and best is not None and self.progress.epoch - best["epoch"] >= self.patience

    def _write_best(self) -> None:
        path = self.folder / BEST
        if self.ema is None:
            save_weights(self.model, path)
        else:
            with self.ema.applied():
                save_weights(self.model, path)


def state_of(model: Any, ema: EMA | None) -> dict[str, Any]:
    """Every variable that the next step depends on: weights, seeds, the optimizer's, the average."""
    groups = {
        "model": model.weights if LEGACY else model.variables,
        "optimizer": model.optimizer.variables,
        "average": ema.variables if ema else (),
    }
    return {f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}


def write_state(folder: Path, model: Any, ema: EMA | None, progress: Progress) -> None:
    """Write the state of an epoch and its history, and remove states that are older than the last two."""
    arrays: dict[str, Any] = {name: _array(variable) for name, variable in state_of(model, ema).items()}
    notes = json.dumps({"epoch": progress.epoch, "batches": progress.batches, "history": progress.history})
    with staged(folder / f"state-{progress.epoch:05}.npz") as part:
        np.savez(part, notes=np.array(notes), **arrays)
    with staged(folder / HISTORY) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in progress.history), "utf-8")
    for old in sorted(folder.glob("state-*.npz"))[:-KEEP]:
        old.unlink()


def restore_state(folder: Path, model: Any, ema: EMA | None) -> tuple[Progress, tuple[str, ...]]:
    """Put the last whole state of a folder into a model that is compiled and whose optimizer is built.

    Returns:
        How far the training was, and what had to be passed over.
    """
    notes: list[str] = []
    for file in sorted(folder.glob("state-*.npz"), reverse=True):
        try:
            # Read whole before anything is assigned: the archive checks its sums as it is read.
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            found = json.loads(str(arrays.pop("notes")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            notes.append(f"The state {file.name} is damaged ({error}) and was passed over for the one before it.")
            continue
        _assign(state_of(model, ema), arrays, file)
        if ema:
            ema.batches = found["batches"]
        return Progress(found["epoch"], found["batches"], found["history"]), tuple(notes)
    return Progress(), tuple(notes)


def _assign(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], file: Path) -> None:
    ours = {name: tuple(variable.shape) for name, variable in variables.items()}
    theirs = {name: array.shape for name, array in arrays.items()}
    if ours != theirs:
        odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"The state {str(file)!r} is of another model: {len(odd)} variables differ, the first {odd[0]}. Expected "
            "the same model, recipe and versions. Choose another folder, or start with what it was written by."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.backend.get_value(variable) if LEGACY else keras.ops.convert_to_numpy(variable))


def claim_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Begin a run in a folder, or go on with one that has the same settings.

    Raises:
        ValueError: the folder holds a run with other settings, or something else.
    """
    file, mine = folder / SETTINGS, json.loads(json.dumps(settings, default=str))
    if file.is_file():
        theirs = json.loads(file.read_text("utf-8"))
        odd = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        if odd:
            listed = "; ".join(f"{key} {theirs.get(key)!r} there, {mine.get(key)!r} now" for key in sorted(odd))
            raise ValueError(
                f"The folder {str(folder)!r} holds a run with other settings: {listed}. Expected the same, to go on "
                "with it. Choose another folder, or the settings that it began with."
            )
        return
    if folder.is_dir() and any(path for path in folder.iterdir() if not path.name.startswith(".")):
        raise ValueError(
            f"The folder {str(folder)!r} holds something else than a run. Expected an empty or a new folder. Choose "
            "another name."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with staged(file) as part:
        part.write_text(json.dumps(mine, indent=2) + "\n", "utf-8")
