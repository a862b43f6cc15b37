"""`keras-effnet evaluate`: accuracy on labelled photos, of each class and photo by photo, as tables, JSON or CSV."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keras_effnet.cli.argument_checks import check_data, check_folder, check_model, model_options, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import (
    AsJson,
    BatchSize,
    Crop,
    Decode,
    Model,
    Size,
    Weights,
    complain,
    console,
    muted,
    plain_errors,
    plain_table,
    print_table,
    printable,
    silence_backend,
    start_keras,
)
from keras_effnet.errors import counted

if TYPE_CHECKING:
    from keras_effnet.data.labelled_photos import Examples
    from keras_effnet.inference.accuracy import Report
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.inference.labels import ModelOptions
    from keras_effnet.serving.predictor import Predictor

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
        help="Labels of the model, one per line. For a folder of photos without class folders: the classes of the "
        "photos, as lines 'photo class', or one class per line in the order of the file names.",
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

Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help="litert, onnx, openvino, tensorflow or keras. Default: that of an exported model, otherwise keras.",
    ),
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Print precision and recall of each class.")]
Wrong = Annotated[
    int, typer.Option(metavar="N", callback=at_least(0), help="List N wrong photos, the most confident first.")
]
Out = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write the prediction for each photo to a .csv file."),
]

ReportFolder = Annotated[
    str | None,
    typer.Option(
        "--report",
        metavar="DIR",
        help="Write report.html: confusions, classes, reliability, and the wrong photos with their maps.",
    ),
]

DATA = "one folder of photos, TFRecord files or glob patterns, or one tfds:NAME"


def evaluate(
    data: Data,
    model: Model = "lite0",
    weights: Weights = None,
    labels: Labels = None,
    size: Size = None,
    crop: Crop = "auto",
    decode: Decode = None,
    engine: Engine = "auto",
    split: Split = None,
    limit: Limit = None,
    batch_size: BatchSize = 32,
    per_class: PerClass = False,
    wrong: Wrong = 0,
    out: Out = None,
    report_folder: ReportFolder = None,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy on labelled photos. Exits with 1 if any photo cannot be read.

    The model may be an exported file or folder: it is measured in its engine.
    """
    with plain_errors():
        check_model(model, weights)
        check_data(data, DATA)
        if labels is not None and not Path(labels).is_file():
            raise ValueError(
                f"--labels: The label file {labels!r} cannot be read: there is no such file. Check the path."
            )
        if split is not None and not data[0].startswith("tfds:"):
            raise ValueError(f"--split is {split!r}. Expected it with tfds:NAME only. Omit --split.")
        from keras_effnet.data.labelled_photos import names_photos, open_examples
        from keras_effnet.inference.accuracy import check_out, write_answers

        of_photos = labels if labels is not None and names_photos(labels, data) else None
        options = model_options(None if of_photos else labels, size, crop, decode)
        if out:
            with naming("--out"):
                check_out(out)
        if report_folder:
            check_folder("--report", report_folder)
        with muted(f"Loading {model} ..."):
            scorer = _load(model, engine, weights, options)
            examples = open_examples(data, scorer.classes, labels=of_photos, split=split, limit=limit)
        for note in examples.notes:
            complain(note)
        report = _watched(examples, scorer, batch_size)
        if out:
            write_answers(out, report)
        if report_folder:
            _write_page(Path(report_folder), report, scorer, data)
        if as_json:
            print(json.dumps({"data": data, **_describe(scorer), **_figures(report)}, indent=2))
        else:
            _print(report, per_class=per_class, wrong=wrong)
        for error in report.errors:
            complain(error)
        if out:
            complain(f"{counted(len(report.answers), 'photo')} written to {out}.")
        if report.errors or not report.images:
            raise typer.Exit(1)


def _load(model: str, engine: str, weights: str | None, options: "ModelOptions") -> "Classifier | Predictor":
    from keras_effnet.serving.model_source import is_export

    if engine in ("auto", "keras") and not is_export(model):
        start_keras()
        from keras_effnet.inference.classifier import load_classifier

        return load_classifier(model, weights, **options)
    silence_backend()
    from keras_effnet.serving.predictor import Predictor

    return Predictor(model, engine, weights=weights, **options)


def _write_page(folder: Path, report: "Report", scorer: "Classifier | Predictor", data: list[str]) -> None:
    from keras_effnet.artifacts import staged
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.inference.report_page import PAGE, report_page

    facts = _describe(scorer)
    top5 = [] if report.top5 is None else [(f"{report.top5:.1f}%", "top-5 accuracy")]
    text = report_page(
        f"{facts['model']} on {', '.join(data)}",
        report.answers,
        report.classes,
        classifier=scorer if isinstance(scorer, Classifier) else None,
        subtitle=f"keras_effnet {facts['versions']['keras_effnet']}",
        facts=top5,
        notes=(*report.notes, *report.errors),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with staged(folder / PAGE) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    complain(f"The report is {folder / PAGE}.")


def _describe(scorer: "Classifier | Predictor") -> dict[str, Any]:
    from keras_effnet.inference.provenance import provenance
    from keras_effnet.serving.predictor import Predictor

    return scorer.provenance() if isinstance(scorer, Predictor) else provenance(scorer) | {"engine": "keras"}


def _watched(examples: "Examples", scorer: "Classifier | Predictor", batch_size: int) -> "Report":
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

        return evaluate(examples, model=scorer, batch_size=batch_size, progress=show)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _print(report: "Report", *, per_class: bool, wrong: int) -> None:
    view = plain_table("images", "top-1", "top-5", "seconds", "images/s", "errors")
    cells = f"{report.images:,}", _percent(report.top1), _percent(report.top5), f"{report.seconds:.1f}"
    view.add_row(*cells, f"{report.images_per_second:.1f}", f"{len(report.errors):,}")
    print_table(view)
    if per_class:
        classes = plain_table("class", "photos", "correct", "precision", "recall", left=("class",))
        for row in report.per_class:
            cells = f"{row.photos:,}", f"{row.correct:,}", _percent(row.precision), _percent(row.recall)
            classes.add_row(row.label, *cells)
        _print_below(classes)
    if wrong and report.wrong:
        photos = plain_table("photo", "class", "predicted", "score", left=("photo", "class", "predicted"))
        for answer in report.wrong[:wrong]:
            labels = report.label(answer.target), report.label(answer.predicted)
            photos.add_row(printable(answer.path), *labels, f"{answer.score:.1%}")
        _print_below(photos)


def _print_below(view: Table) -> None:
    print()
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
        "classes": [{**asdict(row), "precision": row.precision, "recall": row.recall} for row in report.per_class],
        "wrong": [
            {
                "path": answer.path,
                "label": report.label(answer.target),
                "predicted": report.label(answer.predicted),
                "score": answer.score,
            }
            for answer in report.wrong
        ],
    }
