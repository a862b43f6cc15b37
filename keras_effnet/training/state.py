"""The state of a training on the disk: everything that its next step depends on."""

import json
import re
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet._keras_private import loss_scale_variables
from keras_effnet.artifacts import PREFIX, staged
from keras_effnet.data.sharding import Position
from keras_effnet.training.ema import EMA

BEST = "best.weights.h5"
HISTORY = "history.jsonl"
SETTINGS = "settings.json"
# Two, so that one is whole if the other is not.
KEEP = 2
# What reading a state raises that was cut off or altered.
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass
class Progress:
    """How far a training is.

    Args:
        epoch: epochs that are done.
        step: batches of the next one that are done.
        place: where the data goes on, as in `Position`.
        batches: that the moving average has seen.
        metrics: sums and counts behind the figures of the epoch that was begun.
        history: figures of each epoch.
        lost: the last epoch whose weights can no more be the best, since the file that held them was damaged.
        odd: the odd files so far, those to train on and those held out, as `OddFiles.seen` has them.
        notes: what went wrong on the way.
        settings: what the training was begun with.
    """

    epoch: int = 0
    step: int = 0
    place: int | None = 0
    batches: int = 0
    metrics: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    lost: int = 0
    odd: list[dict[str, list[str]]] = field(default_factory=lambda: [{}, {}])
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, float] | None:
        """The epoch with the highest accuracy on what is held out; the first of equals."""
        rows = [row for row in self.history if row["epoch"] > self.lost]
        return max(rows, key=lambda row: (row["val_accuracy"], -row["epoch"]), default=None)

    @property
    def position(self) -> Position:
        """Where the data goes on."""
        return Position(self.epoch, self.step, self.place)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.step == 0 else f"epoch {self.epoch + 1}, step {self.step}"


def state_of(model: Any, ema: EMA | None) -> dict[str, Any]:
    """Every variable that the next step depends on: weights, seeds, the optimizer's, the average."""
    groups = {
        "model": model.weights if LEGACY else model.variables,
        "optimizer": [*model.optimizer.variables, *loss_scale_variables(model.optimizer)],
        "average": ema.variables if ema else (),
    }
    return {f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}


def write_state(folder: Path, arrays: Mapping[str, Any], progress: Progress) -> None:
    """Write a state and the history, and remove states that are older than the last two.

    Args:
        folder: of the run.
        arrays: the values of `state_of`.
        progress: how far the training is.

    Raises:
        OSError: there is no room; what was there before still is.
    """
    step = f"-{progress.step:08}" if progress.step else ""
    with staged(folder / f"state-{progress.epoch:05}{step}.npz") as part:
        np.savez(part, notes=np.array(json.dumps(asdict(progress))), **arrays)
    with staged(folder / HISTORY) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in progress.history), "utf-8")
    for old in _states(folder)[KEEP:]:
        old.unlink()


def _states(folder: Path) -> list[Path]:
    """The states of a folder, the last one first."""
    return sorted(folder.glob("state-*.npz"), key=lambda path: re.findall(r"\d+", path.stem), reverse=True)


def restore_state(folder: Path, model: Any, ema: EMA | None) -> tuple[Progress, tuple[str, ...]]:
    """Put the last whole state of a folder into a model that is compiled and whose optimizer is built.

    Returns:
        How far the training was, and what had to be passed over.
    """
    notes: list[str] = []
    for file in _states(folder):
        try:
            # Read whole before anything is assigned: the archive checks its sums as it is read.
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            progress = Progress(**json.loads(str(arrays.pop("notes"))))
        except DAMAGES as error:
            notes.append(f"The state {file.name} is damaged ({error}) and was passed over for the one before it.")
            continue
        _assign(state_of(model, ema), arrays, file)
        if ema:
            ema.batches = progress.batches
        return progress, tuple(notes)
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


def array_of(variable: Any) -> np.ndarray:
    """A variable's value."""
    return np.asarray(keras.backend.get_value(variable) if LEGACY else keras.ops.convert_to_numpy(variable))


def claim_settings(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a run in a folder, or go on with one that has the same settings.

    Returns:
        The settings as they are written.

    Raises:
        ValueError: the folder holds a run with other settings, or something else.
    """
    file, mine = folder / SETTINGS, json.loads(json.dumps(settings, default=str))
    _check_folder(folder)
    inside = {path.name for path in folder.glob("*") if not path.name.startswith(".")}
    if file.is_file():
        theirs = _read_settings(file, mine)
        odd = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        # Alone they are those of a run that failed before it had trained anything.
        if odd and (inside != {SETTINGS} or mine.keys() != theirs.keys()):
            listed = "; ".join(f"{key} {theirs.get(key)!r} there, {mine.get(key)!r} now" for key in sorted(odd))
            raise ValueError(
                f"The folder {str(folder)!r} holds a run with other settings: {listed}. Expected the same, to go on "
                "with it. Choose another folder, or the settings that it began with."
            )
        _clear(folder)
    elif inside:
        raise ValueError(
            f"The folder {str(folder)!r} holds something else than a run. Expected an empty or a new folder. Choose "
            "another name."
        )
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(mine, indent=2) + "\n"
    if not file.is_file() or file.read_bytes() != text.encode():
        with staged(file) as part:
            part.write_text(text, "utf-8")
    return mine


def _check_folder(folder: Path) -> None:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise ValueError(
            f"{str(folder)!r} is on no disk. Expected a folder that all machines see as a part of their own. Choose "
            "one, and copy it there when the training is over."
        )
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if existing.is_file():
        raise ValueError(f"{str(existing)!r} is a file. Expected a folder for the run. Choose another name.")


def _read_settings(file: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run; if the file is damaged those of its last whole state, and if there is none, mine."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        for state in _states(file.parent):
            with suppress(*DAMAGES), state.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                return dict(json.loads(str(archive["notes"]))["settings"])
        return mine


def _clear(folder: Path) -> None:
    """Remove what a process that was killed had begun to write."""
    for path in folder.glob(".*"):
        if path.name.startswith(PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f".{BEST}"):
            path.unlink(missing_ok=True)
