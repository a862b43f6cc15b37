"""The output folder of a fine-tuning run: model, labels, reports and plots."""

import csv
import json
import logging
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
from keras_effnet.errors import first_line
from keras_effnet.finetuning.plots import confusion_matrix, learning_curves
from keras_effnet.finetuning.report import Epoch, FineTuned, card, markdown, page
from keras_effnet.inference.report_page import PAGE
from keras_effnet.reports.model_card import CARD

log = logging.getLogger("keras_effnet")

WEIGHTS = "model.weights.h5"
HISTORY = "history.csv"
MARKDOWN = "report.md"
CURVES, CONFUSION = "learning_curves.png", "confusion_matrix.png"


def write_run(folder: Path, run: FineTuned) -> tuple[str, ...]:
    """Write all files of a run, or none if one of them fails.

    Returns:
        The names of the files.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Path] = {}
    names = "\n".join(run.photos.classes) + "\n"
    report = json.dumps(run.report(), indent=2) + "\n"
    writers = {
        MODEL: run.classifier.model.save,
        WEIGHTS: lambda path: _extract_weights(parts[MODEL], path),
        LABELS: lambda path: path.write_text(names, "utf-8"),
        HISTORY: lambda path: _write_history(path, run.history),
        REPORT: lambda path: path.write_text(report, "utf-8"),
    }
    plots, why_none = _plot(run)
    writers |= {name: partial(Path.write_bytes, data=data) for name, data in plots.items()}
    # Folder names need not be valid Unicode.
    for name, text in ((MARKDOWN, markdown(run, tuple(plots), why_none)), (CARD, card(run))):
        writers[name] = partial(Path.write_bytes, data=text.encode("utf-8", "backslashreplace"))
    if (shown := _page(run)) is not None:
        writers[PAGE] = partial(Path.write_bytes, data=shown)
    with ExitStack() as stack:
        for name, write in writers.items():
            parts[name] = stack.enter_context(staged(folder / name))
            write(parts[name])
    for name in {CURVES, CONFUSION, PAGE} - writers.keys():
        (folder / name).unlink(missing_ok=True)  # from an earlier run
    return tuple(writers)


def _page(run: FineTuned) -> bytes | None:
    """The report as an HTML page; None if it fails: the model must be written whatever happens."""
    try:
        return page(run).encode("utf-8", "backslashreplace")
    except Exception as error:
        log.warning("The page %s was not written (%s: %s).", PAGE, type(error).__name__, first_line(error))
        return None


def _plot(run: FineTuned) -> tuple[dict[str, bytes], str]:
    """The plots by file name, and why there are none."""
    if not find_spec("matplotlib"):
        return {}, "Matplotlib is not installed (`pip install matplotlib`)"
    curves, confusion = BytesIO(), BytesIO()
    try:
        learning_curves(curves, run.history)
        confusion_matrix(confusion, run.confusion, run.photos.classes)
    except Exception as error:  # whatever Matplotlib raises, the model must be written
        return {}, f"Matplotlib failed ({type(error).__name__})"
    return {CURVES: curves.getvalue(), CONFUSION: confusion.getvalue()}, ""


def _extract_weights(model: Path, path: Path) -> None:
    """Copy the weight file out of the model file. Writing it with HDF5 would kill the process on a full disk."""
    with zipfile.ZipFile(model) as archive, archive.open(WEIGHTS) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C during a `with` block: after training it could only lose the result."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def write_or_fall_back(folder: Path, run: FineTuned) -> None:
    """Write a run to a folder; if that fails, write it to a temporary folder, so that the result is not lost.

    Raises:
        OSError: the run could not be written to the folder; the message contains the temporary folder.
    """
    with _ignore_interrupts():
        try:
            write_run(folder, run)
        except OSError as error:
            elsewhere = Path(tempfile.mkdtemp(prefix="keras-effnet-"))
            try:
                write_run(elsewhere, run)
            except OSError:
                elsewhere.rmdir()
                advice = "Writing to a temporary folder failed as well. Free some disk space, and start again."
            else:
                advice = f"The results are in {str(elsewhere)!r} instead. Move them from there."
            raise OSError(
                f"The results cannot be written to {str(folder)!r}: {error}. Expected enough disk space. {advice}"
            ) from error


def _write_history(path: Path, history: Sequence[Epoch]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
