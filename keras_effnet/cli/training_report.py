"""The report of `keras-effnet train` for people: report.md and the learning curves, as fine-tuning writes them."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from keras_effnet.artifacts import MODEL, staged
from keras_effnet.finetuning.plots import learning_curves
from keras_effnet.finetuning.report import Epoch
from keras_effnet.training.state import HISTORY

MARKDOWN, CURVES = "report.md", "learning_curves.png"


def write_training_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.md, and learning_curves.png if Matplotlib is installed, into the folder of a run.

    Raises:
        OSError: the disk is full.
    """
    rows = [json.loads(line) for line in (folder / HISTORY).read_text("utf-8").splitlines()]
    files = _curves(rows)
    files[MARKDOWN] = _markdown(report, rows, tuple(files)).encode("utf-8", "backslashreplace")
    for name, data in files.items():
        with staged(folder / name) as part:
            part.write_bytes(data)


def _curves(rows: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    if not find_spec("matplotlib"):
        return {}
    names = "loss", "accuracy", "val_loss", "val_accuracy"
    history = [Epoch("", int(row["epoch"]), **{name: row[name] for name in names}, seconds=0.0) for row in rows]
    file = BytesIO()
    try:
        learning_curves(file, history)
    except Exception:  # whatever Matplotlib raises, the report must be written
        return {}
    return {CURVES: file.getvalue()}


def _markdown(report: Mapping[str, Any], rows: Sequence[Mapping[str, float]], plots: Sequence[str]) -> str:
    shown = {int(row["epoch"]): row for row in rows if row["epoch"] in (1, report["best_epoch"], report["epochs"])}
    lines = [
        f"# {report['model']}, trained on {report['classes']} classes",
        "",
        (
            f"Validation accuracy: **{report['val_accuracy']:.1%}** of {report['images']['held_out']} images, after "
            f"epoch {report['best_epoch']} of {report['epochs']}."
        ),
        "",
        (
            f"Trained on {report['images']['train']} images in {report['seconds']:.0f} s by the recipe "
            f"{report['recipe']}, with seed {report['seed']} and images of {report['resolution']} x "
            f"{report['resolution']} pixels."
        ),
        "",
        "| epoch | loss | accuracy | validation loss | validation accuracy |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {epoch} | {row['loss']:.4f} | {row['accuracy']:.1%} | {row['val_loss']:.4f} "
            f"| {row['val_accuracy']:.1%} |"
            for epoch, row in sorted(shown.items())
        ),
        "",
        f"All epochs: `{HISTORY}`. Accuracy per class: `keras-effnet evaluate DATA --model .` in this folder.",
        "",
        *(f"- {note}" for note in report["notes"]),
        "",
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in plots),
        "",
        f"To classify a photo, run `keras-effnet classify --model {MODEL} PHOTO` in this folder.",
        "",
    ]
    return "\n".join(lines)
