"""`keras-effnet finetune`: a classifier from a folder of photos, with a report and plots."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_effnet.cli.argument_checks import check_model, check_unfreeze, reject_address
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import (
    INTERRUPTED,
    AsJson,
    Model,
    Weights,
    complain,
    console,
    plain_errors,
    print_lines,
    report_interrupt,
    start_keras,
)
from keras_effnet.cli.training_output import TrainingProgress, result_lines
from keras_effnet.errors import counted
from keras_effnet.finetuning.settings import DEFAULTS

if TYPE_CHECKING:
    from keras_effnet.finetuning.inputs import Inputs
    from keras_effnet.finetuning.report import FineTuned

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one subfolder per class (or with train/ and val/ that contain these), CSV file with "
        "the columns path, label and optionally split, or tfds:NAME for TensorFlow Datasets.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the model, its labels and the report.")]
Unfreeze = Annotated[
    str,
    typer.Option(
        metavar="N", help="Number of last stages to train with the head, or the first block, for example block6a."
    ),
]
Epochs = Annotated[int, typer.Option(metavar="N", callback=at_least(0), help="Epochs of phase 2, the last stages.")]
Rate = Annotated[float, typer.Option(metavar="RATE", help="Peak learning rate of phase 2.")]
Resolution = Annotated[
    int | None,
    typer.Option(
        "--size",
        "--resolution",
        metavar="PIXELS",
        callback=at_least(32),
        help="Side of the images. Default: the network's own.",
    ),
]
ValShare = Annotated[float, typer.Option(metavar="SHARE", help="Share of each class to hold out if there is no val/.")]
Mirror = Annotated[bool, typer.Option(help="Mirror photos at random; switch it off for digits and letters.")]
MixUp = Annotated[float, typer.Option("--mixup", metavar="ALPHA", help="Blend photos in phase 2; 0 for none.")]
CutMix = Annotated[
    float, typer.Option("--cutmix", metavar="ALPHA", help="Paste parts of other photos in phase 2; 0 for none.")
]
Progressive = Annotated[
    bool,
    typer.Option(
        "--progressive", help="Let the images of phase 2 grow from 4/7 of their size, and the crops with them."
    ),
]
MaxBatchSize = Annotated[
    int,
    typer.Option("--batch-size", metavar="N", callback=at_least(1), help="Maximum number of photos per batch."),
]
Seed = Annotated[
    int, typer.Option(metavar="N", callback=at_least(0), help="Random seed; the same seed gives the same model.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write to the folder even if it is not empty.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at photos that cannot be read instead of skipping them.")]

# What a reader calls the parts of a run.
PARTS = {
    "building": "Loading the model",
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
    batch_size: MaxBatchSize = DEFAULTS.batch_size,
    resolution: Resolution = DEFAULTS.resolution,
    val_share: ValShare = DEFAULTS.val_share,
    mirror: Mirror = DEFAULTS.mirror,
    mixup: MixUp = DEFAULTS.mixup,
    cutmix: CutMix = DEFAULTS.cutmix,
    progressive: Progressive = DEFAULTS.progressive,
    seed: Seed = DEFAULTS.seed,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a pretrained network on your photos. Ctrl-C stops early and keeps the model."""
    settings: dict[str, Any] = {
        "unfreeze": int(unfreeze) if unfreeze.isdecimal() else unfreeze,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "resolution": resolution,
        "val_share": val_share,
        "mirror": mirror,
        "mixup": mixup,
        "cutmix": cutmix,
        "progressive": progressive,
        "seed": seed,
    }
    with plain_errors():
        reject_address(data)
        check_unfreeze(check_model(model, weights), settings["unfreeze"])
        inputs = _open_inputs(data, out, overwrite, settings)
        # Makes training at least 1.3 times faster; TensorFlow reads it once, at import.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        start_keras()
        from keras_effnet.finetuning.run import finetune_inputs

        with TrainingProgress(PARTS, console(stderr=True)) as shown:
            options: dict[str, Any] = {"model": model, "weights": weights, "strict": strict}
            run = finetune_inputs(inputs, progress=shown.show, callbacks=[shown.callback()], **options)
            report = run.report()
        _print(run, report, out, as_json)
        if run.interrupted:
            raise typer.Exit(INTERRUPTED)


def _open_inputs(data: str, out: Path, overwrite: bool, settings: dict[str, Any]) -> "Inputs":
    from keras_effnet.finetuning.inputs import open_inputs  # NumPy, which --help does not need

    return open_inputs(data, out, overwrite=overwrite, settings=settings)


def _print(run: "FineTuned", report: dict[str, Any], out: Path, as_json: bool) -> None:
    result = result_lines(
        out,
        f"{report['val_accuracy']:.1%} ({report['val_correct']} of {counted(len(run.photos.val), 'photo')}); "
        f"{report['head_val_accuracy']:.1%} with only the head trained",
        f"Trained on {counted(len(run.photos.train), 'photo')} in {report['seconds']:.0f} s",
    )
    for note in (*report["notes"], *report["errors"]):
        complain(note)
    if run.interrupted:
        report_interrupt("The model was saved as it was at that point.")
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_lines(result)
