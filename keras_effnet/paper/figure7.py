"""The five networks of the paper's class activation maps, with weights of one's own (arXiv:1905.11946, Table 7)."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from keras_effnet.data.class_names import Classes
from keras_effnet.inference.classifier import Classifier, as_classifier, read_classes
from keras_effnet.models import create
from keras_effnet.paper.data import TABLE_7
from keras_effnet.paper.tables import scaled_b0
from keras_effnet.variants import Variant

# In the order of the table.
NAMES = ("baseline", "deeper", "wider", "higher-resolution", "compound")


def figure7_variants() -> dict[str, Variant]:
    """B0 and what the paper scales it to, by depth, by width, by resolution and by all three.

    Example:
        >>> figure7_variants()["compound"].resolution
        288
    """
    rows = zip(NAMES, TABLE_7, strict=True)
    return {name: replace(scaled_b0(row.depth, row.width, row.resolution), name=name) for name, row in rows}


def load_figure7(folder: str | os.PathLike[str]) -> Iterator[Classifier]:
    """Build the five networks one after the other, each with its weights.

    Args:
        folder: with a weight file for each, of any format that the builders read, named after it
            (baseline.weights.h5, ...), and a file labels.txt if they were not trained on ImageNet.

    Raises:
        ValueError: a network without a file, or with several.
        WeightsError: a file that cannot be read or does not fit.
    """
    variants, files = figure7_variants(), {name: _files(Path(folder), name) for name in NAMES}
    wrong = [f"{len(found)} for {name!r}" for name, found in files.items() if len(found) != 1]
    if wrong:
        raise ValueError(
            f"The folder {os.fspath(folder)!r} has {', '.join(wrong)} weight files. Expected one for each of "
            f"{', '.join(sorted(NAMES))}, as in baseline.weights.h5. The paper's were never published, and maps of "
            "untrained networks show nothing: train these five, and save their weights under these names."
        )
    classes = read_classes(Path(folder))
    return (_load(variants[name], files[name][0], classes) for name in NAMES)


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{name}.*") if path.is_file())


def _load(variant: Variant, file: Path, classes: Classes | None) -> Classifier:
    model = create(variant, weights=str(file), classes=len(classes) if classes else 1000, name=variant.name)
    return replace(as_classifier(model, classes), name=variant.name, weights=str(file))
