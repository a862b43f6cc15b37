"""`keras-effnet inspect`: what may be wrong with a folder of labelled photos."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from keras_effnet.cli.argument_checks import check_folder, check_model, find_training_photos
from keras_effnet.cli.terminal import AsJson, BatchSize, Model, complain, console, plain_errors, start_keras
from keras_effnet.errors import counted, require_packages

if TYPE_CHECKING:
    from keras_effnet.curation.inspection import Inspection

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Folder with one subfolder per class (or with train/ and val/ that contain these), or CSV file with the "
        "columns path, label and optionally split.",
    ),
]
Out = Annotated[str, typer.Option(metavar="DIR", help="Folder for inspection.html, inspection.json and exclude.txt.")]


def inspect(
    data: Data,
    out: Out = "inspection",
    model: Model = "lite0",
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
) -> None:
    """Find wrong labels, duplicates, leaks between splits, outliers and unreadable files among labelled photos.

    The findings are probable, not certain: look at the page before you delete anything.
    """
    with plain_errors():
        check_model(model)
        photos = find_training_photos(data)
        require_packages("inspect", "sklearn")
        folder = check_folder("--out", out)
        start_keras()
        from keras_effnet.artifacts import staged
        from keras_effnet.curation.inspection import inspect_photos
        from keras_effnet.curation.page import inspection_page

        with Progress(
            TextColumn("photos"), BarColumn(), MofNCompleteColumn(), console=console(stderr=True), transient=True
        ) as bar:
            task = bar.add_task("photos", total=None)
            found = inspect_photos(
                photos,
                model=model,
                batch_size=batch_size,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        folder.mkdir(parents=True, exist_ok=True)
        report = found.report()
        for name, text in {
            "inspection.html": inspection_page(found, f"Photos in {data}"),
            "inspection.json": json.dumps(report, indent=2) + "\n",
            "exclude.txt": "".join(f"{photo}\n" for photo in report["exclude"]),
        }.items():
            with staged(folder / name) as part:
                part.write_text(text, encoding="utf-8")
        for _, error in found.unreadable:
            complain(error)
        if as_json:
            print(json.dumps(report, indent=2))
        else:
            _print(found, folder)
    if found.unreadable:
        raise typer.Exit(1)


def _print(found: "Inspection", folder: Path) -> None:
    print(f"{counted(len(found.names), 'photo')} of {counted(len(found.classes), 'class')}:")
    for number, what in (
        (len(found.wrong_labels), "labels that are probably wrong"),
        (len(found.duplicates), "groups of duplicates"),
        (len(found.contradictions), "of them with different labels"),
        (len(found.leaks), "of them both in training and held out"),
        (len(found.outliers), "photos unlike all others"),
        (len(found.unreadable), "files that cannot be read"),
    ):
        print(f"  {number:5}  {what}")
    print(f"See {folder / 'inspection.html'}; exclude.txt lists the photos to leave out.")
