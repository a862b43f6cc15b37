"""Small sets of labelled photos as arrays in memory, for experiments that train many small networks on them."""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.photo_batches import read_photos
from keras_effnet.data.training_photos import open_training_photos


@dataclass(frozen=True)
class PhotoArrays:
    """Photos and their classes.

    Args:
        images: uint8 (photos, side, side, 3), values 0..255.
        labels: int64 (photos,), indices of `classes`.
        classes: their names.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def resize(self, size: int) -> "PhotoArrays":
        """The same photos at another side; smoothed where they shrink."""
        return replace(self, images=np.stack([square(image, size) for image in self.images]))

    def fold(self, index: int, folds: int, *, seed: int = 0) -> "Split":
        """Hold out one of several equal parts of each class, drawn by the seed; every photo is held out by one fold.

        Raises:
            ValueError: a class with fewer photos than there are folds, or an index outside of them.
        """
        fewest = min(np.bincount(self.labels, minlength=len(self.classes)))
        if not 0 <= index < folds or folds < 2 or fewest < folds:
            raise ValueError(
                f"Fold {index} of {folds} was asked for, and the smallest class has {fewest} photos. Expected at least "
                "2 folds, a fold below their number, and a photo of each class in each. Ask for fewer folds or give "
                "more photos."
            )
        order = np.random.default_rng(seed).permutation(len(self.labels))
        held = np.zeros(len(order), bool)
        for label in range(len(self.classes)):
            held[order[self.labels[order] == label][index::folds]] = True
        return Split(self._only(~held), self._only(held))

    def _only(self, chosen: np.ndarray) -> "PhotoArrays":
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


class Split(NamedTuple):
    """What a network is trained on and what it is scored on."""

    training: PhotoArrays
    held_out: PhotoArrays

    def together(self) -> PhotoArrays:
        """All photos, those to train on first."""
        parts = self.training, self.held_out
        images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        return PhotoArrays(images, labels, self.training.classes)


def load_split(data: str | os.PathLike[str], size: int, *, seed: int = 0) -> Split:
    """Read the central squares of all photos of a data set.

    Args:
        data: what `open_training_photos` takes: a folder with a folder for each class, or one with train/ and val/.
        size: side of the squares in pixels.
        seed: of the draw which fifth is held out, where no photos are given for it.

    Raises:
        ValueError: nothing there, fewer than two classes, or a file that cannot be read.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("black/1.png", "black/2.png", "white/1.png", "white/2.png"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         Image.new("RGB", (40, 30), name[:5]).save(Path(folder, name))
        ...     load_split(folder, 8).training.images.shape
        (2, 8, 8, 3)
    """
    found = open_training_photos(data, seed=seed)
    return Split(*(_read(rows, found.classes, size) for rows in (found.train, found.val)))


def _read(rows: tuple[Example, ...], classes: tuple[str, ...], size: int) -> PhotoArrays:
    photos, errors = read_photos(rows, partial(square, size=size), memory=size**2 * 3 * len(rows), tick=lambda: None)
    if errors:
        raise ValueError(
            f"{len(errors)} of {len(rows)} photos cannot be read, the first of them: {errors[0]} Expected photos only, "
            "or the networks would not be compared on the same ones. Mend or remove these."
        )
    images = np.stack([photos.pixels(i) for i in range(len(photos))])
    return PhotoArrays(images, np.array([row.target for row in rows]), classes)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of a photo at a side of `size` pixels, uint8, smoothed where it shrinks."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    cut = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))
