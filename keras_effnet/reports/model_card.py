"""Model cards: a README.md in Hugging Face's format, with what a stranger has to know about a model.

Source of the front matter: https://huggingface.co/docs/hub/model-cards (its metadata is YAML, and JSON is YAML).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import counted
from keras_effnet.weights.registry import WEIGHTS

CARD = "README.md"
# SPDX identifiers of published weights, as the Hub spells them.
_LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "BSD-3-Clause": "bsd-3-clause", "CC-BY-NC-4.0": "cc-by-nc-4.0"}
# Lines of Python that use the folder of a run.
RUN_LOAD = (
    "from keras_effnet import Predictor",
    "",
    'with Predictor(".") as predictor:  # the folder of this file',
    '    print(predictor.predict("photo.jpg")[0].labels)',
)
# The most classes that are listed one by one.
_MOST = 50


@dataclass(frozen=True)
class Metric:
    """A measured value.

    Args:
        name: what was measured, such as "accuracy".
        value: its value, 0 to 1.
        count: the number of images it was measured on.
        images: which images.
    """

    name: str
    value: float
    count: int
    images: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card says.

    Args:
        name: the name of the model.
        labels: its labels; empty for a model that returns features.
        size: side of its images in pixels.
        library: the library that loads it, as the Hub spells it.
        base: the network, and the weights that it started from.
        weights: variant and name of the published weight set it contains or started from; None if there is none.
        data: what it was trained on.
        metrics: what was measured.
        load: lines of Python that load and use it.
        limits: what it is not for.
    """

    name: str
    labels: Sequence[str]
    size: int
    library: str
    base: str
    weights: tuple[str, str] | None
    data: str
    metrics: Sequence[Metric]
    load: Sequence[str]
    limits: Sequence[str] = ()


def model_card(card: Card) -> str:
    """The text of a card: YAML between two lines of dashes, then Markdown.

    Example:
        >>> card = Card(name="flowers", labels=("rose", "tulip"), size=224, library="keras", base="lite0",
        ...             weights=("lite0", "imagenet"), data="100 photos.", metrics=(), load=("import keras",))
        >>> model_card(card).splitlines()[:2]
        ['---', 'license: "apache-2.0"']
    """
    return "\n".join(["---", *_front_matter(card), "---", "", *_text(card)]) + "\n"


def _licence(card: Card) -> str | None:
    published = WEIGHTS.get(card.weights) if card.weights else None
    return published.licence if published else None


def _front_matter(card: Card) -> Iterator[str]:
    task = "image-classification" if card.labels else "image-feature-extraction"
    values: dict[str, Any] = {
        "license": _LICENCES.get(_licence(card) or "", "other"),
        "library_name": card.library,
        "pipeline_tag": task,
        "tags": ["keras_effnet", "efficientnet", task],
    }
    if card.metrics:
        values["model-index"] = [{"name": card.name, "results": [_result(task, row) for row in card.metrics]}]
    for key, value in values.items():
        yield f"{key}: {json.dumps(value, ensure_ascii=False)}"


def _result(task: str, row: Metric) -> dict[str, Any]:
    return {
        "task": {"type": task},
        "dataset": {"type": "image-folder", "name": f"{row.images} (n = {row.count})"},
        "metrics": [{"type": row.name, "value": round(row.value, 6)}],
    }


def _text(card: Card) -> Iterator[str]:
    labels, licence = list(card.labels), _licence(card)
    task = f"Classifies an image into {counted(len(labels), 'class')}" if labels else "Computes features of an image"
    yield from (f"# {_line(card.name)}", "", f"{task}. Images have {card.size} x {card.size} pixels.", "")
    yield from ("| | |", "|---|---|", f"| network | {_cell(card.base)} |", f"| data | {_cell(card.data)} |")
    if licence:
        yield f"| licence of the weights it started from | {licence} |"
    else:
        yield "| licence | choose one: the model contains no published weight set that it would follow from |"
    yield from ("", "## Use", "", "```python", *card.load, "```", "")
    if card.metrics:
        yield from ("## Measured", "", "| | value | images |", "|---|---:|---|")
        yield from (f"| {row.name} | {row.value:.1%} | {row.count:,}: {_cell(row.images)} |" for row in card.metrics)
        yield ""
    if labels:
        shown = ", ".join(map(_line, labels[:_MOST]))
        more = f", and {len(labels) - _MOST:,} more" if len(labels) > _MOST else ""
        yield from ("## Classes", "", f"{shown}{more}.", "")
    yield from ("## Limits", "", *(f"- {_line(limit)}" for limit in _limits(card)))


def _limits(card: Card) -> Iterator[str]:
    if card.labels:
        yield "Every image gets one of these classes, also one that shows none of them."
        yield "Scores were not calibrated: a score of 0.9 does not mean that nine of ten such answers are right."
    yield "Measured values hold for images like those they were measured on. Measure it on yours first."
    yield from card.limits


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
