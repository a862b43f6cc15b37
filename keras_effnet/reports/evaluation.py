"""The page about a model's answers on labelled photos: accuracy, confusions, classes, reliability, wrong photos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from keras_effnet.reports.charts import confusion_matrix, curves, reliability
from keras_effnet.reports.html import Section, bullets, page, photo, table

MATRIX_CLASSES = 30  # a larger matrix cannot be read; the most frequent confusions are listed instead
LISTED = 24


@dataclass(frozen=True)
class Evaluation:
    """A model's answers on labelled photos.

    Args:
        classes: the names of the classes.
        targets: the true class of each photo, integers (photos,).
        predicted: the class with the highest score, integers (photos,).
        confidence: its score, 0..1, (photos,); NaN where it is not known.
        names: what each photo is called.
        open_photo: returns photo i as a Pillow image, or None if it cannot be shown.
        open_map: returns photo i with its activation map drawn over it, or None.
    """

    classes: Sequence[str]
    targets: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    names: Sequence[str]
    open_photo: Callable[[int], Any] = field(default=lambda _: None)
    open_map: Callable[[int], Any] = field(default=lambda _: None)

    @property
    def correct(self) -> np.ndarray:
        """Whether each photo got its true class, bool (photos,)."""
        return self.targets == self.predicted

    def confusion(self) -> np.ndarray:
        """Number of photos by true class (row) and predicted class (column), integers (classes, classes)."""
        n = len(self.classes)
        return np.bincount(self.targets * n + self.predicted, minlength=n * n).reshape(n, n)

    def most_confident_errors(self, most: int = LISTED) -> list[int]:
        """The positions of wrong photos, the one with the highest score first."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-np.nan_to_num(self.confidence[wrong]), kind="stable")][:most].tolist()


def evaluation_page(
    title: str,
    evaluation: Evaluation,
    *,
    subtitle: str = "",
    facts: Sequence[tuple[str, str]] = (),
    history: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """One HTML page that needs no other file.

    Args:
        title: for example "lite0 on flowers".
        evaluation: what the model answered.
        subtitle: one line below the title.
        facts: more pairs (value, name) after accuracy and number of photos.
        history: curves of a training, by the name of what they show: {"loss": {"training": [...], ...}}.
        notes: sentences at the end.
    """
    right, total = int(evaluation.correct.sum()), len(evaluation.targets)
    accuracy = f"{right / total:.1%}" if total else "-"
    boxes = [(accuracy, f"accuracy ({right:,} of {total:,} photos)"), *facts]
    charts = [curves(lines, x_label="epoch", y_label=name) for name, lines in (history or {}).items()]
    known = np.isfinite(evaluation.confidence)
    sections = [
        Section("Learning curves", f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""),
        Section("Confusions", _confusions(evaluation) if total else ""),
        Section("Classes", _classes(evaluation) if total else ""),
        Section("Can the scores be trusted?", _reliability(evaluation, known) if known.any() else ""),
        Section("Wrong photos, the most confident first", _wrong_photos(evaluation)),
        Section("Notes", bullets(notes)),
    ]
    return page(title, subtitle, boxes, sections)


def class_metrics(confusion: np.ndarray) -> list[tuple[int, float, float, float]]:
    """For each class: number of photos, precision, recall and F1; a share without photos is NaN."""
    with np.errstate(invalid="ignore"):
        hits = np.diagonal(confusion)
        precision, recall = hits / confusion.sum(axis=0), hits / confusion.sum(axis=1)
        f1 = 2 * hits / (confusion.sum(axis=0) + confusion.sum(axis=1))
    return list(zip(confusion.sum(axis=1).tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True))


def _confusions(evaluation: Evaluation) -> str:
    counts = evaluation.confusion()
    if len(evaluation.classes) <= MATRIX_CLASSES:
        caption = '<p class="soft">Rows are true classes, columns are predicted ones; numbers are photos.</p>'
        return caption + confusion_matrix(counts, evaluation.classes)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:LISTED]
    pairs = [np.unravel_index(i, counts.shape) for i in order if counts.flat[i]]
    rows = [(evaluation.classes[i], evaluation.classes[j], counts[i, j]) for i, j in pairs]
    return table(("true class", "predicted as", "photos"), rows) if rows else ""


def _classes(evaluation: Evaluation) -> str:
    rows = [
        (name, n, *("-" if np.isnan(share) else f"{share:.1%}" for share in shares))
        for name, (n, *shares) in zip(evaluation.classes, class_metrics(evaluation.confusion()), strict=True)
        if n or not np.isnan(shares[0])
    ]
    return table(("class", "photos", "precision", "recall", "F1"), rows)


def _reliability(evaluation: Evaluation, known: np.ndarray) -> str:
    confidence, correct = evaluation.confidence[known], evaluation.correct[known]
    mean = f"Mean score {confidence.mean():.3f}, share correct {correct.mean():.3f}."
    text = f"On the dashed line, a score of 0.8 is right in 8 of 10 cases. {mean}"
    return f'<p class="soft">{text}</p>' + reliability(confidence, correct)


def _wrong_photos(evaluation: Evaluation) -> str:
    figures, pairs = [], False
    for i in evaluation.most_confident_errors():
        shown, mapped = evaluation.open_photo(i), evaluation.open_map(i)
        images = [photo(image, evaluation.names[i]) for image in (shown, mapped) if image is not None]
        pairs = pairs or len(images) == 2
        inside = f'<div class="pair">{"".join(images)}</div>' if len(images) == 2 else "".join(images)
        score = f" {evaluation.confidence[i]:.2f}" if np.isfinite(evaluation.confidence[i]) else ""
        said, true = (escape(evaluation.classes[part[i]]) for part in (evaluation.predicted, evaluation.targets))
        figures.append(
            f"<figure>{inside}<figcaption><b>{said}</b>{score}, not {true}<br>{escape(evaluation.names[i])}"
            "</figcaption></figure>"
        )
    return f'<div class="photos{" pairs" if pairs else ""}">{"".join(figures)}</div>' if figures else ""
