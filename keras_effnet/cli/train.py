"""`keras-effnet train` and `keras-effnet recipes`: a network trained from a recipe, and what recipes there are."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_effnet.artifacts import MODEL
from keras_effnet.cli.terminal import AsJson, complain, console, plain_errors, plain_table, start_keras
from keras_effnet.training.cluster_env import STRATEGIES
from keras_effnet.training.recipes import CHOICES, RECIPES, TRANSFER_DATASETS, find_recipe

if TYPE_CHECKING:
    from keras_effnet.training.run import Trained

DataPath = Annotated[
    list[str],
    typer.Option(
        "--data",
        "--dataset",
        metavar="DIR | CSV | TFRECORD... | tfds:NAME[:SPLIT]",
        help="A folder with a folder for each class, or with train/ and val/; a CSV with path,label[,split]; TFRecord "
        "files in ImageNet's layout, a pattern of them or their folder; or a dataset of TensorFlow Datasets.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run; an unfinished one is gone on with.")]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="A network: keras-effnet models.")]
RecipeName = Annotated[str, typer.Option("--recipe", metavar="NAME", help="What to do: keras-effnet recipes.")]
Strategy = Annotated[
    str, typer.Option(metavar="|".join(STRATEGIES), help="Devices to train on; auto says which it finds.")
]
SyncBN = Annotated[
    bool, typer.Option("--sync-bn", help="Batch normalisation over the images of all replicas, not of each alone.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse images that are no plain RGB instead of counting them.")]
Weights = Annotated[str | None, typer.Option(metavar="SET|PATH", help="Weights to start from.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the training images.")]
Size = Annotated[int | None, typer.Option(min=32, help="Side of the images; by default the network's own.")]
Batch = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images of an update; the rate goes with it.")]
Rate = Annotated[float | None, typer.Option("--learning-rate", help="For 256 images; it grows with the batch size.")]
Precision = Annotated[str | None, typer.Option(metavar="|".join(map(str, CHOICES["precision"])), help="Dtype policy.")]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same run.")]
Accumulate = Annotated[int | None, typer.Option(min=1, help="Parts in which a batch is computed, for memory.")]
ClipNorm = Annotated[float | None, typer.Option(min=0, help="Largest norm of all gradients together.")]
Patience = Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")]
Every = Annotated[int | None, typer.Option("--checkpoint-every", min=1, help="Save after so many steps too.")]


def train(
    data: DataPath,
    out: Out,
    model: ModelName = "b0",
    recipe: RecipeName = "imagenet",
    epochs: Epochs = None,
    batch_size: Batch = None,
    learning_rate: Rate = None,
    size: Size = None,
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
    as_json: AsJson = False,
) -> None:
    """Train a network from a recipe; started again, a training that was cut off goes on from what it saved last."""
    changes: dict[str, Any] = {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "size": size,
        "weights": weights,
        "precision": precision,
        "accumulate": accumulate,
        "global_clipnorm": clip_norm,
        "patience": patience,
        "seed": seed,
        "sync_bn": sync_bn or None,
        # A number of epochs replaces a number of steps.
        **({} if epochs is None else {"epochs": epochs, "steps": None}),
    }
    given = {name: value for name, value in changes.items() if value is not None or name == "steps"}
    with plain_errors():
        chosen = replace(find_recipe(recipe), **given)
        # Measured 1.3 x and more in training; TensorFlow reads it once, when it is imported.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        start_keras()
        options: dict[str, Any] = {"strategy": strategy, "strict": strict, "checkpoint_every": checkpoint_every}
        verbose = 0 if as_json else 1 if console().is_terminal else 2
        trained = _run(data, out, model=model, recipe=chosen, verbose=verbose, **options)
        _print(trained, as_json=as_json)


def _run(data: list[str], out: Path, **options: Any) -> "Trained":
    """Train; of an interrupt it is said how to go on."""
    from keras_effnet.training.run import train as run

    try:
        return run(data[0] if len(data) == 1 else data, out, **options)
    except KeyboardInterrupt:
        complain("Interrupted. Start the same command again: it goes on from the last epoch or step that was saved.")
        raise


def _print(trained: "Trained", *, as_json: bool) -> None:
    report = trained.report
    for note in report["notes"]:
        complain(note)
    for part, kinds in report["odd_files"].items():
        for kind, row in kinds.items():
            complain(f"{part}: {row['count']} {kind}, {row['done']}: {', '.join(row['files'])} ...")
    if as_json:
        print(json.dumps(report, indent=2))
        return
    view = plain_table("model", "held-out accuracy", "best epoch", "epochs", "seconds", left=("model",))
    accuracy = f"{100 * report['val_accuracy']:.2f} %"
    view.add_row(report["model"], accuracy, str(report["best_epoch"]), str(report["epochs"]), str(report["seconds"]))
    console().print(view)
    console().print(f"The best weights are in {trained.folder / MODEL}")


def recipes(as_json: AsJson = False) -> None:
    """List the recipes: what they do, what to expect of them, and who measured it."""
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
    console().print(view)
    console().print("\nData sets of the paper's Table 6, for the recipe transfer:")
    view = plain_table("data set", "--data", "split to report", left=("data set", "--data", "split to report"))
    for dataset in TRANSFER_DATASETS:
        view.add_row(dataset.name, dataset.data or "a folder with a folder for each class", dataset.test or "-")
    console().print(view)
