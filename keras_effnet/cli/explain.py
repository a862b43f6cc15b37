"""`keras-effnet explain`: class activation maps drawn over photos, and a contact sheet for several models."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_effnet.cli.argument_checks import check_model, model_options
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.photo_arguments import find_photos, need_photos
from keras_effnet.cli.terminal import (
    AsJson,
    Crop,
    Decode,
    Photos,
    Samples,
    Size,
    complain,
    console,
    plain_errors,
    plain_table,
    print_table,
    printable,
    start_keras,
)

if TYPE_CHECKING:
    from keras_effnet.inference.activation_maps import ActivationMap, Explanation
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.inference.labels import ModelOptions
    from keras_effnet.inference.overlays import Tile

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Network name, .keras file, or folder of a training run; can be repeated. Default: lite0.",
    ),
]
WeightSets = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="WEIGHTS", help="Weight set or weight file, one per --model in the same order."),
]
LabelFiles = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="FILE", help="Labels of a model, one per line; one FILE per --model."),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        help="Label, WordNet ID (n02123045) or index of a class; can be repeated. Default: the best classes.",
    ),
]
Top = Annotated[
    int, typer.Option(metavar="N", callback=at_least(1), help="Number of best classes to explain without --class.")
]
Layer = Annotated[str | None, typer.Option(metavar="NAME", help="Use Grad-CAM on the output of this layer.")]
Out = Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Folder for the pictures.")]


def explain(
    files: Photos = None,
    sample: Samples = None,
    model: Models = None,
    weights: WeightSets = None,
    labels: LabelFiles = None,
    size: Size = None,
    crop: Crop = "auto",
    decode: Decode = None,
    classes: Classes = None,
    top: Top = 1,
    layer: Layer = None,
    out: Out = Path("maps"),
    as_json: AsJson = False,
) -> None:
    """Show where in a photo a model sees a class. Exits with 1 if any photo cannot be read.

    Each map is drawn over its photo and saved as a PNG. Several models also get a contact sheet, sheet.png.
    """
    need_photos(files, sample)
    models = model or ["lite0"]
    for option, given in (("--weights", weights), ("--labels", labels)):
        if given and len(given) != len(models):
            raise typer.BadParameter("give one for each --model, in the same order, or none.", param_hint=option)
    with plain_errors():
        photos = find_photos(files, sample)
        for name, chosen in zip_longest(models, weights or ()):
            check_model(name, chosen)
        options = [model_options(file, size, crop, decode) for _, file in zip_longest(models, labels or ())]
        start_keras()
        # With several models TensorFlow warns of retracing, as if one model were traced again and again.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        from keras_effnet.inference.activation_maps import explain

        album = _Album(out)
        try:
            for classifier in _classifiers(models, weights, options):
                name = "-".join(Path(part).stem for part in (classifier.name, weights and classifier.weights) if part)
                album.models += 1
                for number, found in enumerate(explain(classifier, photos, classes=classes, top=top, layer=layer)):
                    album.add(number, found, name)
        except KeyboardInterrupt:
            album.finish(as_json)  # lists the pictures that were saved
            raise
        album.finish(as_json)
        if album.failures:
            raise typer.Exit(1)


def _classifiers(
    models: Sequence[str], weights: Sequence[str] | None, options: Sequence["ModelOptions"]
) -> Iterator["Classifier"]:
    """Load the models one after another."""
    from keras_effnet.inference.classifier import load_classifier

    for name, chosen, wanted in zip_longest(models, weights or (), options):
        with console(stderr=True).status(f"Loading {name} ..."):
            classifier = load_classifier(name, chosen, **wanted)
        yield classifier


@dataclass
class _Album:
    """The pictures of all models, saved as they are made; thumbnails are kept for the contact sheet."""

    folder: Path
    entries: list[dict[str, Any]] = field(default_factory=list)
    failures: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    models: int = 0
    rows: dict[tuple[int, int], list["Tile"]] = field(default_factory=dict)

    def add(self, number: int, found: "Explanation", model: str) -> None:
        from PIL import Image

        from keras_effnet.inference.overlays import overlay, tile

        if found.photo is None:
            self._fail(found.path, found.error or "")
            return
        maps = []
        for rank, each in enumerate(found.maps):
            picture = overlay(found.photo, each.values)
            file = self._file(found.path, model, each.label)
            Image.fromarray(picture).save(file)
            maps.append(_entry(each, file))
            row = self.rows.setdefault((number, rank), [tile(found.photo, Path(found.path).name)])
            row.append(tile(picture, model, f"{each.label}  {each.score:.0%}"))
        self.entries.append(
            {"path": found.path, "model": model, "method": found.method, "layer": found.layer, "maps": maps}
        )

    def _fail(self, photo: str, error: str) -> None:
        # Every model reports the same broken file.
        if error not in self.failures:
            self.failures.add(error)
            complain(error)
            self.entries.append({"path": photo, "error": error})

    def _file(self, photo: str, model: str, label: str) -> Path:
        stem = re.sub(r"[^\w.-]+", "_", f"{Path(photo).stem}-{model}-{label}")
        # Labels may not exist in the encoding of file names, for example in the C locale.
        stem = stem.encode(sys.getfilesystemencoding(), "replace").decode(sys.getfilesystemencoding()).replace("?", "_")
        name, number = stem, 1
        while name in self.names:
            number += 1
            name = f"{stem}-{number}"
        self.names.add(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.png"

    def finish(self, as_json: bool) -> None:
        if as_json:
            print(json.dumps(self.entries, indent=2))
        else:
            _print(self.entries)
        if self.models > 1 and self.rows:
            from keras_effnet.inference.overlays import contact_sheet

            sheet = self.folder / "sheet.png"
            contact_sheet([self.rows[key] for key in sorted(self.rows)]).save(sheet)
            console(stderr=True).print(f"All models side by side: {sheet}", soft_wrap=True)


def _entry(each: "ActivationMap", file: Path) -> dict[str, Any]:
    row = {"wnid": each.wnid, "label": each.label, "score": each.score, "centre": each.centre, "box": each.box}
    return {**row, "file": str(file)}


def _print(entries: Sequence[dict[str, Any]]) -> None:
    view = plain_table("model", "method", "label", "score", "centre", "file", left=("model", "label", "file"))
    for entry in entries:
        for each in entry.get("maps", ()):
            centre = "-" if each["centre"] is None else "{:.0f}, {:.0f}".format(*each["centre"])
            cells = entry["model"], entry["method"], each["label"], f"{each['score']:.1%}", centre, each["file"]
            view.add_row(*map(printable, cells))
    if view.row_count:
        print_table(view)
