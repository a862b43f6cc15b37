"""`keras-effnet evaluate`: top-1 and top-5 accuracy on labelled photos, as a table or JSON."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_effnet.cli.argument_checks import check_data, check_model
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import (
    AsJson,
    BatchSize,
    Model,
    Weights,
    complain,
    console,
    plain_errors,
    plain_table,
    print_table,
    start_keras,
)

if TYPE_CHECKING:
    from keras_effnet.data.labelled_photos import Examples
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.inference.evaluate import Report

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="Folder with one subfolder per class, folder of photos with --labels, TFRecord files in ImageNet's "
        "layout, or tfds:NAME for TensorFlow Datasets.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Classes of the photos: lines 'photo class', or one class per line in the order of the file names.",
    ),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Split of tfds:NAME. Default: validation.")]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        callback=at_least(1),
        help="Use at most N photos: evenly spaced from a folder, otherwise the first N.",
    ),
]

DATA = "one folder of photos, TFRecord files or glob patterns, or one tfds:NAME"


def evaluate(
    data: Data,
    model: Model = "lite0",
    weights: Weights = None,
    labels: Labels = None,
    split: Split = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
) -> None:
    """Measure top-1 and top-5 accuracy on labelled photos. Exits with 1 if any photo cannot be read."""
    with plain_errors():
        check_model(model, weights)
        check_data(data, DATA)
        if labels is not None and not Path(labels).is_file():
            raise ValueError(
                f"--labels: The label file {labels!r} cannot be read: there is no such file. Check the path."
            )
        if split is not None and not data[0].startswith("tfds:"):
            raise ValueError(f"--split is {split!r}. Expected it with tfds:NAME only. Omit --split.")
        start_keras()
        from keras_effnet.data.labelled_photos import open_examples
        from keras_effnet.inference.classifier import load_classifier
        from keras_effnet.inference.evaluate import provenance

        with console(stderr=True).status(f"Loading {model} ..."):
            classifier = load_classifier(model, weights)
            examples = open_examples(data, classifier.classes, labels=labels, split=split, limit=limit)
        for note in examples.notes:
            complain(note)
        report = _watched(examples, classifier, batch_size)
        if as_json:
            print(json.dumps({"data": data, **provenance(classifier), **_figures(report)}, indent=2))
        else:
            _print(report)
        for error in report.errors:
            complain(error)
        if report.errors or not report.images:
            raise typer.Exit(1)


def _watched(examples: "Examples", classifier: "Classifier", batch_size: int) -> "Report":
    """Evaluate; a terminal shows a progress bar with the accuracy so far and the remaining time."""
    from keras_effnet.inference.evaluate import evaluate

    terminal = console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("Evaluating", total=examples.total)

        def show(report: "Report") -> None:
            done = report.images + len(report.errors)
            bar.update(
                task, completed=done, description=f"top-1 {_percent(report.top1)}  top-5 {_percent(report.top5)}"
            )

        return evaluate(examples, model=classifier, batch_size=batch_size, progress=show)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _print(report: "Report") -> None:
    view = plain_table("images", "top-1", "top-5", "seconds", "images/s", "errors")
    cells = f"{report.images:,}", _percent(report.top1), _percent(report.top5), f"{report.seconds:.1f}"
    view.add_row(*cells, f"{report.images_per_second:.1f}", f"{len(report.errors):,}")
    print_table(view)


def _figures(report: "Report") -> dict[str, Any]:
    return {
        "images": report.images,
        "top1": report.top1,
        "top5": report.top5,
        "top1_correct": report.top1_correct,
        "top5_correct": report.top5_correct,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(report.images_per_second, 3),
        "errors": report.errors,
        "notes": report.notes,
    }
