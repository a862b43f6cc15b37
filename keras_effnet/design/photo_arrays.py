"""Small sets of labelled photos in memory, for training many small networks on them."""

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.photo_batches import read_photos
from keras_effnet.data.training_photos import TrainingPhotos, open_training_photos


@dataclass(frozen=True)
class PhotoArrays:
    """Labelled photos of equal size.

    Args:
        images: uint8 (photos, side, side, 3), values 0..255.
        labels: int64 (photos,), indices into `classes`.
        classes: the names of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def resize(self, size: int) -> "PhotoArrays":
        """Resize the photos to another side, with antialiasing."""
        return replace(self, images=np.stack([square(image, size) for image in self.images]))

    def fold(self, index: int, folds: int, *, seed: int = 0) -> "Split":
        """Split for cross-validation: hold out part `index` of `folds` equal random parts of each class.

        Over all folds, each photo is held out once.

        Raises:
            ValueError: a class has fewer photos than there are folds, or `index` is out of range.
        """
        fewest = min(np.bincount(self.labels, minlength=len(self.classes)))
        if not 0 <= index < folds or folds < 2 or fewest < folds:
            raise ValueError(
                f"index is {index} and folds is {folds}, and the smallest class has {fewest} photos. Expected at least "
                "2 folds, an index below their number, and at least one photo of each class per fold. Use fewer folds "
                "or more photos."
            )
        order = np.random.default_rng(seed).permutation(len(self.labels))
        held = np.zeros(len(order), bool)
        for label in range(len(self.classes)):
            held[order[self.labels[order] == label][index::folds]] = True
        return Split(self._only(~held), self._only(held))

    def _only(self, chosen: np.ndarray) -> "PhotoArrays":
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])


class Split(NamedTuple):
    """Photos for training, and held-out photos for scoring."""

    training: PhotoArrays
    held_out: PhotoArrays

    def together(self) -> PhotoArrays:
        """Return all photos, the training photos first."""
        parts = self.training, self.held_out
        images, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        return PhotoArrays(images, labels, self.training.classes)


def load_split(data: str | os.PathLike[str] | TrainingPhotos, size: int, *, seed: int = 0) -> Split:
    """Read the central squares of all photos of a data set.

    Args:
        data: the result of `open_training_photos`, or its argument: for example a folder with one subfolder per class,
            or with train/ and val/.
        size: side of the squares in pixels.
        seed: if the data has no held-out photos, seed of the random fifth that is held out.

    Raises:
        ValueError: there are no photos or fewer than two classes, or a photo cannot be read.

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
    found = data if isinstance(data, TrainingPhotos) else open_training_photos(data, seed=seed)
    return Split(*(_read(rows, found.classes, size) for rows in (found.train, found.val)))


def _read(rows: tuple[Example, ...], classes: tuple[str, ...], size: int) -> PhotoArrays:
    photos, errors = read_photos(rows, partial(square, size=size), memory=size**2 * 3 * len(rows))
    if errors:
        raise ValueError(
            f"{len(errors)} of {len(rows)} photos cannot be read. The first: {errors[0]} Expected readable photos "
            "only, so that all networks are compared on the same ones. Repair or remove the others."
        )
    images = np.stack([photos.pixels(i) for i in range(len(photos))])
    return PhotoArrays(images, np.array([row.target for row in rows]), classes)


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Return the central square of a photo, resized to `size` pixels with antialiasing, as uint8."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    cut = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(cut.resize((size, size), Image.Resampling.BICUBIC))
