"""Checkpoints: everything that the next step of a run depends on, saved to and restored from its folder."""

import json
import math
import re
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, array_of
from keras_effnet._keras_private import loss_scale_variables
from keras_effnet.artifacts import MODEL, PREFIX, staged
from keras_effnet.training.ema import EMA
from keras_effnet.weights.loading import load_weights
from keras_effnet.weights.saving import save_weights

BEST = "best.weights.h5"
HISTORY = "history.jsonl"
SETTINGS = "settings.json"
# What a finished run needs to train for more epochs, apart from the best weights.
FINISHED = "progress.json"
# Number of checkpoints: if one is damaged, the other is used.
KEEP = 2
# Errors that reading a truncated or altered checkpoint raises.
DAMAGES = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass
class Progress:
    """How far a run is.

    Args:
        epoch: finished epochs.
        step: finished batches of the current epoch.
        place: place of the next image, as in `Position`.
        batches: batches that the moving average has seen.
        metrics: the metrics' sums and counts in the current epoch.
        history: metrics of each finished epoch.
        lost: last epoch whose weights cannot be the best, because the file with them was damaged.
        odd: non-RGB and unreadable files of the training and the held-out images, as `OddFiles.seen` returns them.
        notes: problems so far, for the report.
        settings: settings of the run.
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
        """The epoch with the highest accuracy on the held-out images, the earliest if several are equal."""
        rows = [row for row in self.history if row["epoch"] > self.lost]
        return max(rows, key=lambda row: (row["val_accuracy"], -row["epoch"]), default=None)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" if self.step == 0 else f"epoch {self.epoch + 1}, step {self.step}"


def state_of(model: Any, ema: EMA | None) -> dict[str, Any]:
    """Every variable that the next step depends on: weights, random seeds, the optimizer's variables, the average."""
    groups = {
        "model": model.weights if LEGACY else model.variables,
        "optimizer": [*model.optimizer.variables, *loss_scale_variables(model.optimizer)],
        "average": ema.variables if ema else (),
    }
    return {f"{group}/{i}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}


def write_state(folder: Path, arrays: Mapping[str, Any], progress: Progress) -> None:
    """Write a checkpoint and the history, and remove all but the last two checkpoints.

    Args:
        folder: folder of the run.
        arrays: the values of `state_of`.
        progress: how far the run is.

    Raises:
        OSError: writing failed, for example because the disk is full. Existing files are unchanged.
    """
    step = f"-{progress.step:08}" if progress.step else ""
    with staged(folder / f"state-{progress.epoch:05}{step}.npz") as part:
        np.savez(part, notes=np.array(json.dumps(asdict(progress))), **arrays)
    with staged(folder / HISTORY) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in progress.history), "utf-8")
    for old in states(folder)[KEEP:]:
        old.unlink()


def finish_state(folder: Path, model: Any, progress: Progress, *, keep: bool, writes: bool) -> None:
    """Remove the checkpoints of a finished run, which are several times as large as the model.

    More epochs then start from the best weights, with a new optimizer at the same step of its schedule.

    Args:
        folder: folder of the run.
        model: the compiled model.
        progress: how far the run is.
        keep: keep the last checkpoint, from which more epochs continue exactly.
        writes: whether this process writes files.
    """
    # Read in every process, as for a checkpoint.
    counters = {name: array_of(variable).tolist() for name, variable in _counters(model).items()}
    if not writes:
        return
    with staged(folder / FINISHED) as part:
        part.write_text(json.dumps({"counters": counters, **asdict(progress)}) + "\n", "utf-8")
    for old in states(folder)[1 if keep else 0 :]:
        old.unlink(missing_ok=True)


def _counters(model: Any) -> dict[str, Any]:
    """The small variables besides the weights: steps of the optimizer, its loss scale, random seeds."""
    weights = {id(weight) for weight in model.weights}
    return {
        name: variable
        for name, variable in state_of(model, None).items()
        if id(variable) not in weights and math.prod(variable.shape) <= 2
    }


def _restore_finished(folder: Path, model: Any, ema: EMA | None) -> Progress | None:
    """Load the best weights of a finished run without a checkpoint; None if the run is not finished."""
    try:
        saved = json.loads((folder / FINISHED).read_text("utf-8"))
        counters, progress = saved.pop("counters"), Progress(**saved)
    except DAMAGES:
        return None
    try:
        load_weights(model, folder / BEST)
    except (OSError, ValueError):
        load_weights(model, folder / MODEL)
        save_weights(model, folder / BEST)
    variables = _counters(model)
    for name in variables.keys() & counters.keys():
        variables[name].assign(np.asarray(counters[name], array_of(variables[name]).dtype))
    if ema:
        ema.batches = progress.batches
        for average, weight in zip(ema.variables, model.weights, strict=True):
            average.assign(array_of(weight))
    return progress


def states(folder: Path) -> list[Path]:
    """The checkpoints in a folder, latest first."""
    return sorted(folder.glob("state-*.npz"), key=lambda path: re.findall(r"\d+", path.stem), reverse=True)


def restore_state(folder: Path, model: Any, ema: EMA | None) -> tuple[Progress, tuple[str, ...]]:
    """Load the latest undamaged checkpoint into a compiled model whose optimizer is built.

    Returns:
        How far the run is, and a note for each damaged checkpoint.

    Raises:
        ValueError: the checkpoint belongs to another model.
    """
    notes: list[str] = []
    for file in states(folder):
        try:
            # Read everything before assigning anything: the zip archive verifies its checksums while reading.
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            progress = Progress(**json.loads(str(arrays.pop("notes"))))
        except DAMAGES as error:
            notes.append(f"The checkpoint {file.name} is damaged ({error}) and was skipped.")
            continue
        _assign(state_of(model, ema), arrays, file)
        if ema:
            ema.batches = progress.batches
        return progress, tuple(notes)
    return _restore_finished(folder, model, ema) or Progress(), tuple(notes)


def _assign(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray], file: Path) -> None:
    ours = {name: tuple(variable.shape) for name, variable in variables.items()}
    theirs = {name: array.shape for name, array in arrays.items()}
    if ours != theirs:
        differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"The checkpoint {str(file)!r} belongs to another model: {len(differing)} variables differ, such as "
            f"{differing[0]}. Expected the same model, recipe and package versions. Restore them, or choose another "
            "folder."
        )
    for name, variable in variables.items():
        variable.assign(arrays[name])


def claim_settings(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Start a run in a folder, or resume the run in it if it has the same settings; it may be longer now.

    Returns:
        The settings as written to the folder.

    Raises:
        ValueError: the folder contains a run with other settings, or other files.
    """
    file, mine = folder / SETTINGS, json.loads(json.dumps(settings, default=str))
    _check_folder(folder)
    inside = {path.name for path in folder.glob("*") if not path.name.startswith(".")}
    if file.is_file():
        theirs = _read_settings(file, mine)
        keys = mine.keys() | theirs.keys()
        changed = {key for key in keys if mine.get(key) != theirs.get(key) and not _extends(key, theirs, mine)}
        # Without any other file, they belong to a run that failed before it trained, and may be replaced.
        if changed and (inside != {SETTINGS} or mine.keys() != theirs.keys()):
            listed = "; ".join(
                f"{key} {_text(theirs.get(key))} there, {_text(mine.get(key))} now" for key in sorted(changed)
            )
            raise ValueError(
                f"The folder {str(folder)!r} contains a run with other settings: {listed}. Expected the same settings "
                "to resume it, or more epochs. Choose another folder, or restore the settings."
            )
        _clear(folder)
    elif inside:
        raise ValueError(
            f"The folder {str(folder)!r} contains files that are not part of a run. Expected an empty or a new folder. "
            "Choose another one."
        )
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(mine, indent=2) + "\n"
    if not file.is_file() or file.read_bytes() != text.encode():
        with staged(file) as part:
            part.write_text(text, "utf-8")
    return mine


def _extends(key: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> bool:
    """Whether a changed setting only makes the run longer."""
    before, now = theirs.get(key), mine.get(key)
    if key == "patience":
        return before is not None and (now is None or now > before)
    return key in ("epochs", "steps") and before is not None and now is not None and now > before


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _check_folder(folder: Path) -> None:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
        raise ValueError(
            f"{str(folder)!r} is not a local path. Expected a folder in the file system of every machine. Choose such "
            "a folder, and copy it after training."
        )
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if existing.is_file():
        raise ValueError(f"{str(existing)!r} is a file. Expected a folder for the run. Choose another path.")


def _read_settings(file: Path, mine: dict[str, Any]) -> dict[str, Any]:
    """The settings in the file; if it is damaged, those in the latest intact checkpoint; without one, `mine`."""
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        for state in states(file.parent):
            with suppress(*DAMAGES), state.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
                return dict(json.loads(str(archive["notes"]))["settings"])
        return mine


def _clear(folder: Path) -> None:
    """Remove the partial files of a killed process."""
    for path in folder.glob(".*"):
        if path.name.startswith(PREFIX):
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(f".{BEST}"):
            path.unlink(missing_ok=True)
