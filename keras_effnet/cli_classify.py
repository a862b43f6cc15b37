"""`keras-effnet classify`: photos in, a table of labels out, or JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from keras_effnet.terminal import (
    AsJson,
    BatchSize,
    Model,
    Weights,
    complain,
    console,
    plain_errors,
    plain_table,
    printable,
    start_keras,
)

if TYPE_CHECKING:
    from keras_effnet.classify import Photo, Prediction

Files = Annotated[list[str] | None, typer.Argument(help="Photos, folders of photos, patterns such as 'photos/*.jpg'.")]
Samples = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A photo of scikit-image: chelsea, ...")]
Top = Annotated[int, typer.Option(min=1, help="Labels for each photo.")]


def classify(
    files: Files = None,
    sample: Samples = None,
    model: Model = "lite0",
    weights: Weights = None,
    top: Top = 5,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
) -> None:
    """Say what is in photos; exit status 1 if one of them cannot be read."""
    if not files and not sample:
        raise typer.BadParameter("give photos, folders or patterns, or --sample NAME.", param_hint="FILES")
    with plain_errors():
        from keras_effnet.classifier import load_classifier
        from keras_effnet.classify import classify
        from keras_effnet.images import find_images
        from keras_effnet.images import sample as load_sample

        photos: list[Photo] = [(name, load_sample(name)) for name in sample or ()]
        photos = [*find_images(files or ()), *photos]
        start_keras()
        with console(stderr=True).status(f"Loading {model} ..."):
            classifier = load_classifier(model, weights)
        predictions = classify(photos, model=classifier, top=top, batch_size=batch_size)
        if _show(_chunks(predictions, batch_size, len(photos)), as_json):
            raise typer.Exit(1)


def _chunks(predictions: Iterator["Prediction"], size: int, total: int) -> Iterator[list["Prediction"]]:
    """Gather predictions by the batch; on long lists a bar is shown meanwhile, and gone when anything is printed."""
    bar = Progress(console=console(stderr=True), transient=True, redirect_stdout=False)
    task = bar.add_task("Classifying", total=total)
    shown: AbstractContextManager[Any] = bar if bar.console.is_terminal and total > size else nullcontext()
    while True:
        chunk = []
        with shown:
            for prediction in islice(predictions, size):
                chunk.append(prediction)
                bar.advance(task)
        if not chunk:
            return
        yield chunk


def _show(chunks: Iterable[Sequence["Prediction"]], as_json: bool) -> int:
    """Stream a table for each chunk, or one JSON array; returns how many photos have failed."""
    failures, separator = 0, "[\n" if as_json else ""
    for chunk in chunks:
        for prediction in chunk:
            if prediction.error:
                failures += 1
                complain(prediction.error)
            if as_json:
                print(f"{separator}{json.dumps(_entry(prediction))}", end="", flush=True)
                separator = ",\n"
        if not as_json and any(prediction.labels for prediction in chunk):
            print(separator, end="")
            console().print(_labels(chunk))
            separator = "\n"
    if as_json:
        print("\n]" if separator == ",\n" else "[]")
    return failures


def _entry(prediction: "Prediction") -> dict[str, Any]:
    if prediction.error:
        return {"path": prediction.path, "error": prediction.error}
    labels = [{"wnid": wnid, "label": label, "score": score} for wnid, label, score in prediction.labels]
    return {"path": prediction.path, "labels": labels}


def _labels(predictions: Sequence["Prediction"]) -> Table:
    view = plain_table("photo", "rank", "label", "score", left=("photo", "label"))
    for prediction in predictions:
        rows = [(str(i), label, f"{score:.1%}") for i, (_, label, score) in enumerate(prediction.labels, 1)]
        if rows:
            cells = ["\n".join(cell) for cell in zip(*rows, strict=True)]
            view.add_row(printable(prediction.path), *cells, end_section=len(rows) > 1)
    return view
