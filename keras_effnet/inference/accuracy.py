"""What an evaluation found: top-1 and top-5 accuracy, figures of each class, and the photos that were wrong."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keras_effnet.artifacts import staged
from keras_effnet.data.class_names import Classes

COLUMNS = ("path", "label", "predicted", "score", "error")


@dataclass(frozen=True)
class Answer:
    """The prediction for one labelled photo.

    Args:
        path: the path or name of the photo.
        target: the output of the model for its class.
        predicted: the output with the highest score; None if the photo could not be read or scored.
        score: the highest score, 0..1.
        error: why there is no prediction.
    """

    path: str
    target: int
    predicted: int | None = None
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class.

    Args:
        wnid, label: of the class.
        photos: number of photos of the class.
        predicted: number of photos that got its label.
        correct: number of photos of the class that got its label.
    """

    wnid: str | None
    label: str
    photos: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float | None:
        """The share of the photos of the class that got its label, in percent; None without photos."""
        return 100 * self.correct / self.photos if self.photos else None

    @property
    def precision(self) -> float | None:
        """The share of the photos with this label that are of the class, in percent; None without predictions."""
        return 100 * self.correct / self.predicted if self.predicted else None


@dataclass(frozen=True)
class Report:
    """The accuracy of a model.

    Args:
        images: number of photos that were read and scored. The others are listed in `errors` and are not counted.
        top1_correct: number of photos whose class has the highest score.
        top5_correct: number of photos whose class is among the five highest scores.
        seconds: time for reading and scoring, including the compilation of the model.
        errors: one error per photo that could not be read or scored.
        notes: assumptions about the classes.
        answers: the prediction for each photo, in order.
        classes: (wnid or None, label) of each output.
    """

    images: int
    top1_correct: int
    top5_correct: int
    seconds: float
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    answers: Sequence[Answer] = field(default=(), repr=False, compare=False)
    classes: Classes = field(default=(), repr=False, compare=False)

    @property
    def top1(self) -> float | None:
        """Top-1 accuracy in percent; None without images."""
        return 100 * self.top1_correct / self.images if self.images else None

    @property
    def top5(self) -> float | None:
        """Top-5 accuracy in percent; None without images."""
        return 100 * self.top5_correct / self.images if self.images else None

    @property
    def images_per_second(self) -> float:
        """Throughput: images per second."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def per_class(self) -> tuple[ClassFigures, ...]:
        """The figures of each class that has photos or was predicted, in the order of the outputs."""
        scored = [answer for answer in self.answers if answer.predicted is not None]
        photos = Counter(answer.target for answer in scored)
        predicted = Counter(answer.predicted for answer in scored)
        correct = Counter(answer.target for answer in scored if answer.predicted == answer.target)
        return tuple(
            ClassFigures(wnid, label, photos[i], predicted[i], correct[i])
            for i, (wnid, label) in enumerate(self.classes)
            if photos[i] or predicted[i]
        )

    @property
    def wrong(self) -> tuple[Answer, ...]:
        """The photos that got the label of another class, the most confident prediction first."""
        wrong = [answer for answer in self.answers if answer.predicted not in (None, answer.target)]
        return tuple(sorted(wrong, key=lambda answer: -(answer.score or 0.0)))

    def label(self, output: int | None) -> str:
        """The label of an output; "" for None."""
        return "" if output is None else self.classes[output][1]


def check_out(path: str | os.PathLike[str]) -> Path:
    """Check the file for the predictions, before any work.

    Raises:
        ValueError: the name does not end in .csv, or is that of a folder.
    """
    file = Path(path)
    if file.suffix.lower() != ".csv" or file.is_dir():
        raise ValueError(f"The file for the predictions is {str(file)!r}. Expected a name *.csv.")
    return file


def write_answers(path: str | os.PathLike[str], report: Report) -> None:
    """Write the prediction for each photo to a CSV file with the columns path, label, predicted, score and error.

    Raises:
        OSError: the file cannot be written.
        ValueError: the name does not end in .csv.
    """
    with (
        staged(check_out(path)) as part,
        # Keeps file names that are not valid Unicode.
        part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for answer in report.answers:
            names = report.label(answer.target), report.label(answer.predicted)
            writer.writerow((answer.path, *names, answer.score, answer.error))
