"""`keras-effnet finetune`: from a folder of photos to a classifier, its report and its pictures."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from keras_effnet.cli.terminal import AsJson, Model, Weights, complain, console, plain_errors, start_keras
from keras_effnet.finetuning.settings import DEFAULTS

if TYPE_CHECKING:
    from keras_effnet.finetuning.report import FineTuned

Data = Annotated[
    str,
    typer.Argument(
        metavar="DIR | CSV | tfds:NAME",
        help="A folder with a folder for each class, or with train/ and val/ that hold these; a CSV file with "
        "path,label[,split]; or a dataset of TensorFlow Datasets.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="RUN", help="Folder for the model, its labels and the report.")]
Unfreeze = Annotated[
    str, typer.Option(metavar="N|BLOCK", help="Stages that are trained beside the head, or the first block: block6a.")
]
Epochs = Annotated[int, typer.Option(min=0, help="Epochs of phase 2, the blocks.")]
Rate = Annotated[float, typer.Option(help="The highest learning rate of phase 2.")]
Resolution = Annotated[int | None, typer.Option(min=32, help="Side of the images; by default the network's own.")]
ValShare = Annotated[float, typer.Option(help="Part of each class that is held out where there is no val/.")]
Mirror = Annotated[bool, typer.Option(help="Whether photos may be mirrored; not for digits and letters.")]
PhotosABatch = Annotated[int, typer.Option("--batch-size", min=1, help="Photos in a batch of phase 2, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write to RUN even if it holds something.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse photos that cannot be read instead of counting them.")]

# The parts of a run as a reader knows them.
PARTS = {
    "reading": "Reading photos",
    "features": "Phase 1: features",
    "head": "Phase 1: head",
    "blocks": "Phase 2: blocks",
    "measuring": "Measuring",
}


def finetune(
    data: Data,
    out: Out,
    model: Model = "lite0",
    weights: Weights = None,
    unfreeze: Unfreeze = str(DEFAULTS.unfreeze),
    epochs: Epochs = DEFAULTS.epochs,
    learning_rate: Rate = DEFAULTS.learning_rate,
    batch_size: PhotosABatch = DEFAULTS.batch_size,
    resolution: Resolution = DEFAULTS.resolution,
    val_share: ValShare = DEFAULTS.val_share,
    mirror: Mirror = DEFAULTS.mirror,
    seed: Seed = DEFAULTS.seed,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a pretrained network on photos; Ctrl-C keeps what has been learnt."""
    settings = {
        "unfreeze": int(unfreeze) if unfreeze.isdecimal() else unfreeze,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "resolution": resolution,
        "val_share": val_share,
        "mirror": mirror,
        "seed": seed,
    }
    with plain_errors():
        # Measured 1.3 x and more in training; TensorFlow reads it once, when it is imported.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        start_keras()
        from keras_effnet.finetuning.run import finetune

        with _bars() as bars:
            show = follow(bars)
            run = finetune(
                data, out, model=model, weights=weights, overwrite=overwrite, strict=strict, progress=show, **settings
            )
        _print(run, out, as_json)
        if run.interrupted:
            raise typer.Exit(130)


def _bars() -> Progress:
    terminal = console(stderr=True)
    columns = (
        *(TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    # Compiling and the measuring between epochs are part of the pace: it is taken over minutes, not seconds.
    return Progress(*columns, console=terminal, disable=not terminal.is_terminal, speed_estimate_period=300)


def follow(bars: Progress) -> Callable[[str, int, int], None]:
    """What shows how far the parts of a run are, each in a row whose clock starts when it does."""
    rows = {name: bars.add_task(text, visible=False, start=False) for name, text in PARTS.items()}

    def show(part: str, done: int, total: int) -> None:
        bars.start_task(rows[part])
        bars.update(rows[part], completed=done, total=total, visible=True)

    return show


def _print(run: "FineTuned", out: Path, as_json: bool) -> None:
    for note in (*run.notes, *run.errors):
        complain(note)
    if run.interrupted:
        complain("Interrupted: the model is as far as it had come.")
    report = run.report()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    held_out, correct = len(run.photos.val), report["val_correct"]
    print(f"{run.val_accuracy:.1%} of {held_out} photos held out are right ({correct}); head alone: ", end="")
    print(f"{run.head_val_accuracy:.1%}. Trained on {len(run.photos.train)} photos in {report['seconds']:.0f} s.")
    print(f"Written to {out}. Classify with it: keras-effnet classify --model {shlex.quote(str(out))} PHOTO")
