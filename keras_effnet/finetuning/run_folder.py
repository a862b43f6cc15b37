"""The folder that a fine-tuning leaves: the model, its labels, the reports and the pictures."""

import csv
import json
import os
import shutil
import signal
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from keras_effnet.artifacts import LABELS, MODEL, REPORT, staged
from keras_effnet.finetuning.plots import confusion_matrix, learning_curves
from keras_effnet.finetuning.report import Epoch, FineTuned, markdown

WEIGHTS = "model.weights.h5"
HISTORY = "history.csv"
MARKDOWN = "report.md"
CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"


def claim(folder: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Make sure, before any work, that a run can be written to a folder.

    Raises:
        ValueError: it holds something and may not be overwritten, or nothing can be written there.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Hidden ones are the system's, or what a killed run has left of its own.
        taken = any(not inside.name.startswith(".") for inside in path.iterdir())
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"The folder {str(path)!r} cannot be written to: {error.strerror}. Expected a folder for the results. "
            "Choose another one."
        ) from error
    if taken and not overwrite:
        raise ValueError(
            f"The folder {str(path)!r} is not empty. Expected a new one, so that no earlier result is lost. Choose "
            "another name, or overwrite it (--overwrite, overwrite=True)."
        )
    return path


def write_run(folder: Path, run: FineTuned) -> tuple[str, ...]:
    """Write a run: all of it, or nothing.

    Returns:
        The names of the files.

    Raises:
        OSError: there is no room.
    """
    parts: dict[str, Path] = {}
    names = "\n".join(run.photos.classes) + "\n"
    writers = {
        MODEL: run.model.save,
        WEIGHTS: lambda path: _extract_weights(parts[MODEL], path),
        LABELS: lambda path: path.write_text(names, "utf-8"),
        HISTORY: lambda path: _write_history(path, run.history),
        REPORT: lambda path: path.write_text(json.dumps(run.report(), indent=2) + "\n", "utf-8"),
    }
    pictures, why_none = _draw(run)
    writers |= {name: partial(Path.write_bytes, data=data) for name, data in pictures.items()}
    # Names of folders need not be Unicode.
    text = markdown(run, tuple(pictures), why_none).encode("utf-8", "backslashreplace")
    writers[MARKDOWN] = partial(Path.write_bytes, data=text)
    with ExitStack() as stack:
        for name, write in writers.items():
            parts[name] = stack.enter_context(staged(folder / name))
            write(parts[name])
    for name in {CURVES, CONFUSION} - pictures.keys():
        (folder / name).unlink(missing_ok=True)  # of an earlier run
    return tuple(writers)


def _draw(run: FineTuned) -> tuple[dict[str, bytes], str]:
    """The pictures, or why there are none."""
    if not find_spec("matplotlib"):
        return {}, 'Matplotlib is missing (`pip install "keras_effnet[plots]"`)'
    curves, confusion = BytesIO(), BytesIO()
    try:
        learning_curves(curves, run.history)
        confusion_matrix(confusion, run.confusion, run.photos.classes)
    except Exception as error:  # Matplotlib raises anything, and the model is as good without
        return {}, f"Matplotlib has failed ({type(error).__name__})"
    return {CURVES: curves.getvalue(), CONFUSION: confusion.getvalue()}, ""


def _extract_weights(model: Path, path: Path) -> None:
    """The file of weights that is inside of a model's; HDF5 itself ends the process on a disk that is full."""
    with zipfile.ZipFile(model) as archive, archive.open(WEIGHTS) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """There is no training left to end then, only its result to lose."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@_deaf_to_ctrl_c()
def write_somewhere(folder: Path, run: FineTuned) -> None:
    """Write a run, and where the folder has no room for it, to another one: what was learnt is not lost.

    Raises:
        OSError: it is not in the folder; the message says where it is.
    """
    try:
        write_run(folder, run)
    except OSError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="keras-effnet-"))
        try:
            write_run(elsewhere, run)
        except OSError:
            elsewhere.rmdir()
            kept = "It is in no other place either. Make room, and start again."
        else:
            kept = f"The results are in {str(elsewhere)!r}. Move them from there."
        raise OSError(
            f"Nothing can be written to {str(folder)!r}: {error}. Expected room for the model. {kept}"
        ) from error


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
