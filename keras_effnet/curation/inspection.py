"""What may be wrong with a folder of labelled photos: labels, duplicates, leaks between splits, outliers, odd files."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.curation.duplicates import difference_hash, file_digest, near_duplicates, same_files
from keras_effnet.curation.features import FeatureExtractor, embed
from keras_effnet.curation.similarity import cosine_blocks, unit
from keras_effnet.curation.wrong_labels import Suspect, find_wrong_labels
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.photos import NamedPhoto, named
from keras_effnet.data.training_photos import TrainingPhotos, open_training_photos
from keras_effnet.errors import require_packages
from keras_effnet.images import ImageError

NEAREST, UNUSUAL = 10, 4.5


@dataclass(frozen=True)
class Inspection:
    """The findings about labelled photos; all lists contain positions in `names`, the most certain first.

    Args:
        names: the photos that could be read.
        photos: the same photos, to be opened.
        labels: their classes, integers (photos,).
        splits: "train" or "val" of each.
        classes: the names of the classes.
        given_splits: whether the data has splits of its own.
        wrong_labels: photos whose label is probably wrong.
        same_files: groups of equal files.
        duplicates: groups that show the same picture, the equal files included.
        outliers: photos that are unlike all others.
        unreadable: pairs (name, error).
        odd_files: as in the report of a fine-tuning: files that are not plain RGB, by kind.
    """

    names: tuple[str, ...]
    photos: tuple[Any, ...]
    labels: np.ndarray
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    given_splits: bool
    wrong_labels: tuple[Suspect, ...]
    same_files: tuple[tuple[int, ...], ...]
    duplicates: tuple[tuple[int, ...], ...]
    outliers: tuple[int, ...]
    unreadable: tuple[tuple[str, str], ...]
    odd_files: dict[str, dict[str, object]]

    @property
    def leaks(self) -> tuple[tuple[int, ...], ...]:
        """Groups of duplicates with photos in both splits, if the data has splits of its own."""
        if not self.given_splits:
            return ()
        return tuple(group for group in self.duplicates if len({self.splits[i] for i in group}) > 1)

    @property
    def contradictions(self) -> tuple[tuple[int, ...], ...]:
        """Groups of duplicates with different labels."""
        return tuple(group for group in self.duplicates if len({int(self.labels[i]) for i in group}) > 1)

    def exclude(self) -> list[str]:
        """The photos to leave out: probable wrong labels, contradictions, and all but the first of other duplicates."""
        found = {row.position for row in self.wrong_labels}
        contradictions = set(self.contradictions)
        for group in self.duplicates:
            found.update(group if group in contradictions else group[1:])
        return [self.names[i] for i in sorted(found)]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of photos of each class, in all and by split."""
        pairs = Counter((self.classes[label], split) for label, split in zip(self.labels, self.splits, strict=True))
        return {name: {split: pairs[name, split] for split in ("train", "val")} for name in self.classes}

    def report(self) -> dict[str, Any]:
        """The findings as JSON, with names in place of positions."""

        def groups(found: Sequence[Sequence[int]]) -> list[list[str]]:
            return [[self.names[i] for i in group] for group in found]

        return {
            "photos": len(self.names),
            "classes": {name: sum(parts.values()) for name, parts in self.counts().items()},
            "wrong_labels": [
                {
                    "path": self.names[row.position],
                    "label": self.classes[self.labels[row.position]],
                    "suggested": self.classes[row.suggested],
                    "margin": round(row.margin, 3),
                }
                for row in self.wrong_labels
            ],
            "contradictions": groups(self.contradictions),
            "in_train_and_val": groups(self.leaks),
            "same_files": groups(self.same_files),
            "duplicates": groups(self.duplicates),
            "outliers": [self.names[i] for i in self.outliers],
            "unreadable": [{"path": name, "error": error} for name, error in self.unreadable],
            "odd_files": self.odd_files,
            "exclude": self.exclude(),
        }


def inspect_photos(
    data: str | os.PathLike[str] | TrainingPhotos,
    *,
    model: Any = "lite0",
    batch_size: int = 32,
    progress: Callable[[int, int], object] | None = None,
) -> Inspection:
    """Look for problems in labelled photos, from one pass over their features.

    Args:
        data: as in `finetune`: a folder with one folder per class, train/ and val/ with these, or a CSV file; or the
            result of `open_training_photos`.
        model: a network's name or a model whose features describe the photos; its classes do not matter.
        batch_size: the number of photos that the model gets at a time.
        progress: called with the number of finished photos and the total.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: there is no data, or none of the photos can be read.

    Example:
        >>> inspect_photos("flowers").report()["wrong_labels"]  # doctest: +SKIP
        [{'path': 'flowers/roses/1.jpg', 'label': 'roses', 'suggested': 'tulips', 'margin': 0.81}]
    """
    require_packages("inspect", "sklearn")
    found = data if isinstance(data, TrainingPhotos) else open_training_photos(data)
    rows = [*((row, "train") for row in found.train), *((row, "val") for row in found.val)]
    odd = OddFiles(total=len(rows) + 1)  # not an error if none can be read: that is a finding
    hashes: dict[str, int] = {}

    def decoded(row: Example) -> tuple[str, Any]:
        photo = named(row.photo, 0)
        try:
            pixels = odd.open(photo)
        except ImageError as error:
            return photo.name, _Unreadable(photo.describe(error))
        hashes[photo.name] = difference_hash(pixels)
        return photo.name, pixels

    extractor = FeatureExtractor(model)
    images = (decoded(row) for row, _ in rows)
    embedded = list(
        embed(images, model=extractor, batch_size=batch_size, progress=lambda n: progress and progress(n, len(rows)))
    )
    read = [i for i, row in enumerate(embedded) if row.vector is not None]
    unreadable = tuple((row.path, row.error or "") for row in embedded if row.vector is None)
    if not read:
        raise ValueError(f"None of the {len(rows)} photos can be read. The first: {unreadable[0][1]}")
    vectors = np.stack([row.vector for row in embedded if row.vector is not None])
    labels = np.array([rows[i][0].target for i in read])
    names = tuple(embedded[i].path for i in read)
    return Inspection(
        names=names,
        photos=tuple(rows[i][0].photo for i in read),
        labels=labels,
        splits=tuple(rows[i][1] for i in read),
        classes=found.classes,
        given_splits=not found.drawn,
        wrong_labels=tuple(find_wrong_labels(vectors, labels)),
        same_files=_tuples(same_files([_digest(rows[i][0].photo) for i in read])),
        duplicates=_tuples(near_duplicates(vectors, [hashes[name] for name in names])),
        outliers=tuple(find_outliers(vectors)),
        unreadable=unreadable,
        odd_files=odd.report(),
    )


def find_outliers(vectors: np.ndarray) -> list[int]:
    """Photos that are far from their nearest neighbours, compared with the other photos; the farthest first.

    The distance is 1 minus the mean cosine to the ten nearest; unusual is more than 4.5 robust standard deviations
    (1.4826 x the median absolute deviation) above the median.
    """
    count = min(NEAREST, len(vectors) - 1)
    if count < 3:
        return []
    means = [
        np.partition(cosines, -count - 1, axis=1)[:, -count - 1 : -1].mean(axis=1)
        for _, cosines in cosine_blocks(unit(vectors))
    ]
    distances = 1 - np.concatenate(means)
    median = np.median(distances)
    limit = median + UNUSUAL * 1.4826 * np.median(np.abs(distances - median))
    return [int(i) for i in np.argsort(-distances, kind="stable") if distances[i] > limit]


class _Unreadable:
    """Stands for a photo that could not be decoded, so that the stream reports its error."""

    def __init__(self, error: str) -> None:
        self.error = error

    def read(self) -> bytes:
        raise ImageError(self.error)


def _digest(photo: Any) -> str | None:
    source = photo.source if isinstance(photo, NamedPhoto) else photo
    return file_digest(source) if isinstance(source, str | os.PathLike) else None


def _tuples(groups: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(group) for group in groups)
