"""`keras-effnet classify`: label photos, as a table, JSON or a file of results."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from keras_effnet.cli.argument_checks import check_model, model_options, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.photo_arguments import find_photos, need_photos
from keras_effnet.cli.terminal import (
    AsJson,
    BatchSize,
    Crop,
    Decode,
    Labels,
    Model,
    Photos,
    Samples,
    Size,
    Weights,
    complain,
    console,
    is_terminal,
    muted,
    plain_errors,
    plain_table,
    print_table,
    printable,
    silence_backend,
)
from keras_effnet.errors import counted

if TYPE_CHECKING:
    from keras_effnet.data.photos import Photo
    from keras_effnet.inference.classify import Prediction
    from keras_effnet.inference.result_files import Results
    from keras_effnet.serving.predictor import Predictor

Top = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Labels per photo.")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="ENGINE", help="litert, onnx, openvino, tensorflow, keras, or auto for the fastest one installed."
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Write the labels to a .csv, .jsonl or .parquet file. Photos already in it are skipped."
    ),
]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per line, as soon as it is known.")]

Verbose = Annotated[bool, typer.Option("--verbose", help="Print the engine that was chosen, and how photos are read.")]

COLUMNS = ("photo", "rank", "label", "score")


def classify(
    files: Photos = None,
    sample: Samples = None,
    model: Model = "lite0",
    weights: Weights = None,
    labels: Labels = None,
    size: Size = None,
    crop: Crop = "auto",
    decode: Decode = None,
    engine: Engine = "auto",
    top: Top = 5,
    batch_size: BatchSize = 32,
    out: Out = None,
    as_json: AsJson = False,
    json_lines: JsonLines = False,
    verbose: Verbose = False,
) -> None:
    """Classify photos. Exits with 1 if any photo cannot be read."""
    need_photos(files, sample)
    if out and (as_json or json_lines):
        raise typer.BadParameter(
            "--out writes to a file. Leave out this option, or pass --out FILE.jsonl.",
            param_hint="--json" if as_json else "--jsonl",
        )
    with plain_errors(resume="Repeat the same command to resume." if out else ""), ExitStack() as stack:
        photos = find_photos(files, sample)
        check_model(model, weights)
        options = model_options(labels, size, crop, decode)
        with naming("--out"):
            results = stack.enter_context(_results(out, top)) if out else None
        with muted(f"Loading {model} ..."):
            mode = "latency" if len(photos) == 1 else "throughput"
            if results and engine == "auto":
                engine = _engine_of(results)
            predictor = _open(model, engine, weights=weights, mode=mode, **options)
        if verbose:
            _describe(predictor)
        if results and out:
            with naming("--out"):
                results.claim(predictor.identity(), out)
            earlier = [name for name in map(_name, photos) if name in results.failed]
            photos = _not_done(photos, results, out)
        chunks = _chunks(predictor(photos, top=top, batch_size=batch_size), batch_size, len(photos))
        failures = _save(chunks, results, out) if results else _show(chunks, as_json=as_json, json_lines=json_lines)
        if results and earlier:
            complain(
                f"{counted(len(earlier), 'photo')} failed in an earlier run, the first {earlier[0]!r}. "
                f"To retry, delete their lines from {out!r} or pass another file."
            )
            failures += len(earlier)
    # Exit only after the `with` block, so that the results file is closed normally.
    if failures:
        raise typer.Exit(1)


def _results(path: str, top: int) -> AbstractContextManager["Results"]:
    from keras_effnet.inference.result_files import open_results

    return open_results(path, top)


def _not_done(photos: list["Photo"], results: "Results", out: str | None) -> list["Photo"]:
    """The photos that are not in the file yet; reports the skipped ones."""
    left = [photo for photo in photos if _name(photo) not in results.done]
    if len(left) < len(photos):
        complain(f"{len(photos) - len(left)} of {len(photos)} photos are already in {out!r} and were skipped.")
    return left


def _name(photo: "Photo") -> str:
    return photo[0] if isinstance(photo, tuple) else os.fspath(photo)


def _open(model: str, engine: str, **arguments: Any) -> "Predictor":
    silence_backend()
    from keras_effnet.serving.predictor import open_once

    return open_once(model, engine, **arguments)


def _engine_of(results: "Results") -> str:
    """The engine of an earlier run that is resumed, so that all rows have the same one; "auto" for a new file."""
    from keras_effnet.serving.engines import ENGINES

    used = {word for model in results.models for word in model.split()[-2:-1]}
    kept = used & {"keras", *(name for name, each in ENGINES.items() if each.installed)}
    return kept.pop() if len(kept) == 1 else "auto"


def _describe(predictor: "Predictor") -> None:
    """Print the engine, with the times that decided for it, and how photos are read."""
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in predictor.milliseconds.items())
    engine = f"engine {predictor.engine}{f' (measured: {times})' if times else ''}"
    crop = "central square" if predictor.view.crop else "whole photo"
    complain(f"{engine}; {predictor.size} x {predictor.size} pixels of the {crop}, {predictor.view.decode} decoding.")


def _chunks(predictions: Iterator["Prediction"], size: int, total: int) -> Iterator[list["Prediction"]]:
    """Group predictions by batch; long lists get a progress bar, which is hidden while anything is printed."""
    if total <= size or not is_terminal(sys.stderr):
        while chunk := list(islice(predictions, size)):
            yield chunk
        return
    bar = Progress(console=console(stderr=True), transient=True, redirect_stdout=False)
    task = bar.add_task("Classifying", total=total)
    while True:
        chunk = []
        with bar:
            for prediction in islice(predictions, size):
                chunk.append(prediction)
                bar.advance(task)
        if not chunk:
            return
        yield chunk


def _save(chunks: Iterable[Sequence["Prediction"]], results: "Results", out: str | None) -> int:
    """Write predictions to a file and report how many; returns the number of photos that failed."""
    failures = count = 0
    for prediction in chain.from_iterable(chunks):
        results.write(prediction)
        count += 1
        if prediction.error:
            failures += 1
            complain(prediction.error)
    complain(f"{counted(count, 'photo')} written to {out}, {failures} failed.")
    return failures


def _show(chunks: Iterable[Sequence["Prediction"]], *, as_json: bool, json_lines: bool) -> int:
    """Stream a table per chunk, or JSON; returns the number of photos that failed."""
    if as_json or json_lines:
        return _print_json(chunks, lines=json_lines)
    failures, separator = 0, ""
    for chunk in chunks:
        failures += _complain_about(chunk)
        if any(prediction.labels for prediction in chunk):
            on_terminal = is_terminal(sys.stdout)
            view = _labels(chunk) if on_terminal else _records(chunk)
            view.show_header = on_terminal or not separator
            print(separator if on_terminal else "", end="")
            print_table(view)
            separator = "\n"
    return failures


def _complain_about(chunk: Sequence["Prediction"]) -> int:
    errors = [prediction.error for prediction in chunk if prediction.error]
    for error in errors:
        complain(error)
    return len(errors)


def _print_json(chunks: Iterable[Sequence["Prediction"]], *, lines: bool) -> int:
    """Print one array, which is complete even after Ctrl-C, or one object per line; returns the number of failures."""
    from keras_effnet.inference.classify import entry

    failures, separator = 0, "" if lines else "[\n"
    try:
        for prediction in chain.from_iterable(chunks):
            failures += _complain_about([prediction])
            print(f"{separator}{json.dumps(entry(prediction))}", end="\n" if lines else "", flush=True)
            separator = "" if lines else ",\n"
    finally:
        if not lines:
            print("\n]" if separator == ",\n" else "[]", flush=True)
    return failures


def _records(predictions: Sequence["Prediction"]) -> Table:
    """A table for scripts: one label per line, each with the path of its photo."""
    view = plain_table(*COLUMNS, left=("photo", "label"))
    for prediction in predictions:
        for rank, (_, label, score) in enumerate(prediction.labels, 1):
            view.add_row(printable(prediction.path), str(rank), label, f"{score:.1%}")
    return view


def _labels(predictions: Sequence["Prediction"]) -> Table:
    """A table for people: one cell per photo, with a line between photos."""
    view = plain_table(*COLUMNS, left=("photo", "label"))
    for prediction in predictions:
        rows = [(str(i), label, f"{score:.1%}") for i, (_, label, score) in enumerate(prediction.labels, 1)]
        if rows:
            cells = ["\n".join(cell) for cell in zip(*rows, strict=True)]
            view.add_row(printable(prediction.path), *cells, end_section=len(rows) > 1)
    return view
