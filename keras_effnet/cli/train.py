"""`keras-effnet train` and `keras-effnet recipes`: train a network by a recipe, and list the recipes."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_effnet.cli.argument_checks import check_data, check_model, merge_data, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import (
    AsJson,
    complain,
    console,
    plain_errors,
    plain_table,
    print_lines,
    print_table,
    start_keras,
)
from keras_effnet.cli.training_output import TrainingProgress, result_lines
from keras_effnet.errors import check_choice, counted, require_packages
from keras_effnet.training.cluster_env import STRATEGIES
from keras_effnet.training.recipes import CHOICES, RECIPES, TRANSFER_DATASETS, find_recipe
from keras_effnet.variants import find_variant

if TYPE_CHECKING:
    from keras_effnet.training.run import Trained

Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA",
        help="Folder with one subfolder per class (or with train/ and val/ that contain these), CSV file with the "
        "columns path, label and optionally split, TFRecord files in ImageNet's layout (a pattern, or their folder), "
        "or tfds:NAME or tfds:NAME:SPLIT for TensorFlow Datasets. Can be repeated for TFRecord files.",
    ),
]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", "--dataset", metavar="DATA", help="Another way to give DATA.")
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the run; an unfinished run in it is resumed.")]
ModelName = Annotated[str, typer.Option("--model", metavar="MODEL", help="Network name (see keras-effnet models).")]
RecipeName = Annotated[
    str, typer.Option("--recipe", metavar="NAME", help="Recipe that sets the defaults (see keras-effnet recipes).")
]
Weights = Annotated[
    str | None,
    typer.Option(metavar="WEIGHTS", help="Weight set or weight file to start from, instead of the recipe's."),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at images that are not plain RGB instead of converting them.")
]
Every = Annotated[
    int | None,
    typer.Option("--checkpoint-every", metavar="N", callback=at_least(1), help="Also save a checkpoint every N steps."),
]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep-checkpoint",
        help="Keep the last checkpoint of a finished run, several times the size of the model, so that more --epochs "
        "continue exactly.",
    ),
]

OPTIMISATION = "Optimisation (defaults: see keras-effnet recipes)"
Epochs = Annotated[
    float | None,
    typer.Option(metavar="N", rich_help_panel=OPTIMISATION, help="Number of epochs."),
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        callback=at_least(1),
        rich_help_panel=OPTIMISATION,
        help="Images per update. The learning rate is scaled with it.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate", metavar="RATE", rich_help_panel=OPTIMISATION, help="Learning rate for a batch of 256."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size",
        "--resolution",
        metavar="PIXELS",
        callback=at_least(32),
        rich_help_panel=OPTIMISATION,
        help="Side of the images. Default: the network's own.",
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=at_least(1),
        rich_help_panel=OPTIMISATION,
        help="Progressive learning in N stages, in which the size and the regularisation grow; 1 for none.",
    ),
]
MixUp = Annotated[
    float | None,
    typer.Option(
        "--mixup", metavar="ALPHA", callback=at_least(0), rich_help_panel=OPTIMISATION, help="Blend images; 0 for none."
    ),
]
CutMix = Annotated[
    float | None,
    typer.Option(
        "--cutmix",
        metavar="ALPHA",
        callback=at_least(0),
        rich_help_panel=OPTIMISATION,
        help="Paste rectangles of other images; 0 for none. With --mixup, each on half of a batch.",
    ),
]
ClipNorm = Annotated[
    float | None,
    typer.Option(
        metavar="NORM", callback=at_least(0), rich_help_panel=OPTIMISATION, help="Clip gradients by their global norm."
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=at_least(1),
        rich_help_panel=OPTIMISATION,
        help="Stop after N epochs without improvement.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=at_least(0),
        rich_help_panel=OPTIMISATION,
        help="Random seed; the same seed gives the same run.",
    ),
]

DEVICES = "Devices and memory"
RESUME = "Repeat the same command to resume from the last checkpoint."
Strategy = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=DEVICES,
        help=f"Devices to train on: {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}.",
    ),
]
SyncBN = Annotated[
    bool,
    typer.Option(
        "--sync-bn", rich_help_panel=DEVICES, help="Compute batch-norm statistics over all replicas together."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", rich_help_panel=DEVICES, help=f"Dtype policy: {', '.join(map(str, CHOICES['precision']))}."
    ),
]
Accumulate = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=at_least(1),
        rich_help_panel=DEVICES,
        help="Compute each batch in N parts, to save memory.",
    ),
]


def train(
    out: Out,
    data: Data = None,
    data_option: DataOption = None,
    model: ModelName = "b0",
    recipe: RecipeName = "imagenet",
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    size: Size = None,
    stages: Stages = None,
    mixup: MixUp = None,
    cutmix: CutMix = None,
    weights: Weights = None,
    precision: Precision = None,
    accumulate: Accumulate = None,
    clip_norm: ClipNorm = None,
    patience: Patience = None,
    seed: Seed = None,
    sync_bn: SyncBN = False,
    strategy: Strategy = "one",
    strict: Strict = False,
    checkpoint_every: Every = None,
    keep_checkpoint: Keep = False,
    as_json: AsJson = False,
) -> None:
    """Train a network by a recipe. Repeat the command to resume an interrupted run from its last checkpoint."""
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "size": size,
        "stages": stages,
        "mixup": mixup,
        "cutmix": cutmix,
        "weights": weights,
        "precision": precision,
        "accumulate": accumulate,
        "global_clipnorm": clip_norm,
        "patience": patience,
        "seed": seed,
        "sync_bn": sync_bn or None,
        # A number of epochs overrides the recipe's number of steps.
        **({} if epochs is None else {"epochs": epochs, "steps": None}),
    }
    names, given_as = merge_data(data, data_option)
    given = {name: value for name, value in changes.items() if value is not None or name == "steps"}
    with plain_errors(resume=RESUME):
        with naming("--model"):
            check_model(find_variant(model).name, weights)
        with naming("--recipe"):
            base = find_recipe(recipe)
        check_choice("strategy", strategy, STRATEGIES)
        require_packages("Training", "tensorflow")  # reads photos, whatever the backend is
        with naming(given_as):
            check_data(names, "a folder, a CSV file, TFRecord files or tfds:NAME")
        chosen = replace(base, **given)
        # Makes training at least 1.3 times faster; TensorFlow reads it once, at import.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        start_keras()
        from keras_effnet.training import run

        options: dict[str, Any] = {"model": model, "recipe": chosen, "strategy": strategy, "strict": strict}
        options |= {"checkpoint_every": checkpoint_every, "keep_checkpoint": keep_checkpoint, "verbose": 0}
        epochs_known = int(chosen.epochs) if chosen.steps is None else 0
        with TrainingProgress({"training": "Training"}, console(stderr=True), epochs=epochs_known) as shown:
            options["callbacks"] = [shown.callback("training")]
            trained = run.train(names[0] if len(names) == 1 else names, out, **options)
        from keras_effnet.cli.training_report import write_training_report

        if trained.new_epochs and trained.report["processes"] == 1:
            write_training_report(trained.folder, trained.report)
        _print(trained, as_json=as_json)


def _print(trained: "Trained", *, as_json: bool) -> None:
    report = trained.report
    images = counted(report["images"]["train"], "image")
    result = result_lines(
        trained.folder,
        f"{report['val_accuracy']:.1%} of {counted(report['images']['held_out'], 'image')}, after epoch "
        f"{report['best_epoch']} of {report['epochs']}",
        f"Trained {report['model']} on {images} in {report['seconds']:.0f} s",
    )
    for note in report["notes"]:
        complain(note)
    for part, kinds in report["odd_files"].items():
        for kind, row in kinds.items():
            complain(f"{part}: {row['count']} {kind}, {row['done']}: {', '.join(row['files'])} ...")
    if not trained.new_epochs:
        complain("The run was finished already: nothing was trained. To continue it, pass a larger --epochs.")
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print_lines(result)


def recipes(as_json: AsJson = False) -> None:
    """List the recipes: their settings, the accuracy to expect, and whether it was measured here."""
    with plain_errors():
        if as_json:
            rows = [
                {"name": row.name, "command": row.record.command, "expected": dict(row.record.expected)}
                | {"hardware": row.record.hardware, "measured": row.record.measured, "source": row.record.source}
                for row in RECIPES.values()
            ]
            print(json.dumps(rows, indent=2))
            return
        text = ("recipe", "augmentation", "top-1 published", "measured here")
        view = plain_table("recipe", "augmentation", "epochs", "batch", "top-1 published", "measured here", left=text)
        for row in RECIPES.values():
            length = f"{row.epochs:g}" if row.steps is None else f"{row.steps:,} steps"
            expected = ", ".join(f"{variant} {top1}" for variant, top1 in row.record.expected) or row.record.source
            measured = "yes" if row.record.measured else "no"
            view.add_row(row.name, row.augment or "-", length, f"{row.batch_size:,}", expected, measured)
        print_table(view)
        console().print("\nData sets of the paper's Table 6, for the transfer recipe:")
        view = plain_table("data set", "--data", "split to report", left=("data set", "--data", "split to report"))
        for dataset in TRANSFER_DATASETS:
            view.add_row(dataset.name, dataset.data or "a folder with one subfolder per class", dataset.test or "-")
        print_table(view)
