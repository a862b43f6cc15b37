"""The predictions for labelled photos as one HTML page, with the maps of the wrong ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from keras_effnet.data.class_names import Classes
from keras_effnet.data.photos import named
from keras_effnet.images import ImageError
from keras_effnet.inference.accuracy import Answer
from keras_effnet.inference.activation_maps import Explanation, explain
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.overlays import overlay
from keras_effnet.reports.evaluation import Evaluation, evaluation_page

PAGE = "report.html"


def report_page(
    title: str,
    answers: Sequence[Answer],
    classes: Classes,
    *,
    photos: Sequence[Any] | None = None,
    classifier: Classifier | None = None,
    subtitle: str = "",
    facts: Sequence[tuple[str, str]] = (),
    history: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Write predictions as a page: accuracy, confusions, classes, reliability, and the most confident wrong photos.

    Args:
        title: the heading.
        answers: the prediction for each photo.
        classes: of the model. Those without photos and predictions are left out.
        photos: the photos of the answers, if these are not found by their paths.
        classifier: the model, to draw maps of the wrong photos; without it, or if it cannot be explained, only the
            photos are shown.
        subtitle, facts, history, notes: as in `evaluation_page`.
    """
    scored = [(i, answer) for i, answer in enumerate(answers) if answer.predicted is not None]
    used = sorted({answer.target for _, answer in scored} | {int(answer.predicted or 0) for _, answer in scored})
    place = {output: i for i, output in enumerate(used)}
    sources = [photos[i] if photos is not None else answer.path for i, answer in scored]
    evaluation = Evaluation(
        classes=[classes[output][1] for output in used],
        targets=np.array([place[answer.target] for _, answer in scored], dtype=int),
        predicted=np.array([place[int(answer.predicted or 0)] for _, answer in scored], dtype=int),
        confidence=np.array([np.nan if answer.score is None else answer.score for _, answer in scored], dtype=float),
        names=[answer.path for _, answer in scored],
        open_photo=lambda i: _open(sources[i]),
    )
    wrong = evaluation.most_confident_errors()
    maps = _maps(classifier, {i: sources[i] for i in wrong}, {i: used[evaluation.predicted[i]] for i in wrong})
    evaluation = replace(evaluation, open_map=maps.get)
    return evaluation_page(title, evaluation, subtitle=subtitle, facts=facts, history=history, notes=notes)


def _open(source: Any) -> Image.Image | None:
    try:
        return Image.fromarray(named(source, 0).pixels())
    except (ImageError, OSError):  # in a TFRecord file, or gone
        return None


def _maps(classifier: Classifier | None, sources: Mapping[int, Any], outputs: Mapping[int, int]) -> dict[int, Any]:
    """The photos with the map of their predicted class; none if the model cannot be explained."""
    found: dict[int, Any] = {}
    if classifier is None:
        return found
    try:
        for output in sorted(set(outputs.values())):
            positions = [i for i in sources if outputs[i] == output]
            rows = explain(classifier, [sources[i] for i in positions], classes=output)
            found.update((i, _drawn(row)) for i, row in zip(positions, rows, strict=True) if row.maps)
    except ValueError:  # no feature map, or several inputs
        return {}
    return found


def _drawn(row: Explanation) -> Image.Image | None:
    return None if row.photo is None else Image.fromarray(overlay(row.photo, row.maps[0].values))
