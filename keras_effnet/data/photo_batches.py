"""Batches of photos for fine-tuning: photos are decoded once, and each epoch draws new random crops.

Source of the crops: arXiv:1409.4842, section 6 (random area and aspect ratio). The minimum area is larger here, which
is enough for a few hundred photos and a pretrained network.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from PIL import Image

from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.photos import THREADS, named
from keras_effnet.images import CROP_PADDING

Prepare = Callable[[np.ndarray], np.ndarray]
Batch = tuple[np.ndarray, ...]

_RATIOS = (3 / 4, 4 / 3)
_AT_A_TIME = 64


@dataclass(frozen=True)
class Photos:
    """Photos that could be read.

    Args:
        rows: their sources and classes.
        prepare: applied once to the pixels of each photo.
        odd: counts the photos that are not plain RGB.
        kept: the prepared pixels, or None for photos that did not fit into memory: these are read again every time.
        lost: for each photo that could not be read again, the error by its index.
    """

    rows: tuple[Example, ...]
    prepare: Prepare
    odd: OddFiles
    kept: tuple[np.ndarray | None, ...]
    lost: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: int) -> np.ndarray:
        """The prepared pixels of a photo; if it cannot be read again, those of another photo of its class."""
        target = self.rows[index].target
        for i in (index, *(i for i, row in enumerate(self.rows) if row.target == target)):
            kept = self.kept[i]
            found = self.lost.get(i) or _read(self.rows[i], self.prepare, self.odd) if kept is None else kept
            if not isinstance(found, str):
                return found
            self.lost[i] = found
        raise ValueError(self.lost[index])

    def labels(self, classes: int) -> np.ndarray:
        """One-hot labels, float32 of shape (photos, classes)."""
        return np.eye(classes, dtype=np.float32)[[row.target for row in self.rows]]


def read_splits(
    train: Sequence[Example],
    val: Sequence[Example],
    prepare: tuple[Prepare, Prepare],
    *,
    memory: int,
    report: Callable[[int, int], object],
) -> tuple[Photos, Photos, tuple[str, ...]]:
    """Decode the photos to train and to evaluate on; the photos that are not plain RGB are counted together.

    Args:
        train, val: the photos.
        prepare: for each split, as in `read_photos`.
        memory: limit for the kept pixels of both splits, in bytes.
        report: called with the number of photos read so far, and the total.

    Returns:
        The photos of each split that could be read, and one error message for each of the others.
    """
    odd, done = OddFiles(len(train) + len(val)), count(1)

    def tick() -> None:
        report(next(done), odd.total)

    read = [
        read_photos(rows, each, memory=memory // 2, odd=odd, tick=tick)
        for rows, each in zip((train, val), prepare, strict=True)
    ]
    return read[0][0], read[1][0], (*read[0][1], *read[1][1])


def read_photos(
    rows: Sequence[Example],
    prepare: Prepare,
    *,
    memory: int,
    tick: Callable[[], object] = lambda: None,
    odd: OddFiles | None = None,
) -> tuple[Photos, tuple[str, ...]]:
    """Decode photos on threads, and keep as many in memory as fit.

    Args:
        rows: the photos.
        prepare: converts uint8 pixels (height, width, 3) to what is kept.
        memory: limit for the kept pixels, in bytes.
        tick: called after each photo.
        odd: counts the photos that are not plain RGB.

    Returns:
        The photos that could be read, and one error message for each of the others.
    """
    odd = odd or OddFiles(len(rows))
    good, kept, errors = [], [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(rows), _AT_A_TIME):
            some = rows[start : start + _AT_A_TIME]
            for row, result in zip(some, pool.map(lambda row: _read(row, prepare, odd), some), strict=True):
                tick()
                if isinstance(result, str):
                    errors.append(result)
                    continue
                memory -= result.nbytes
                good.append(row)
                kept.append(result if memory >= 0 else None)
    return Photos(tuple(good), prepare, odd, tuple(kept)), tuple(errors)


def _read(row: Example, prepare: Prepare, odd: OddFiles) -> np.ndarray | str:
    photo = named(row.photo, 0)
    try:
        return prepare(odd.open(photo))
    except ValueError as error:
        return photo.describe(error)


def shrink(image: np.ndarray, size: int) -> np.ndarray:
    """Scale a photo down to the smallest size that crops of `size` pixels need; smaller photos are returned unchanged.

    Args:
        image: uint8 (height, width, 3).
        size: side of the crops in pixels.
    """
    height, width = image.shape[:2]
    scale = (size + CROP_PADDING) / min(height, width)
    if scale >= 1:
        return image
    sides = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC, reducing_gap=3))


def random_view(image: np.ndarray, size: int, rng: np.random.Generator, *, smallest: float, mirror: bool) -> np.ndarray:
    """Cut out a random rectangle, resize it to a square, and mirror it with probability 1/2.

    Args:
        image: uint8 (height, width, 3).
        size: side of the result in pixels.
        rng: random generator.
        smallest: minimum area of the crop, as a share of the photo's area.
        mirror: whether to mirror at all.

    Returns:
        float32 (size, size, 3), 0..255.
    """
    height, width = image.shape[:2]
    area = height * width * rng.uniform(smallest, 1)
    ratio = np.exp(rng.uniform(*np.log(_RATIOS)))
    w, h = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return _resized(image, size, (left, top, left + w, top + h), mirrored=mirror and rng.random() < 0.5)


def center_view(image: np.ndarray, size: int, *, mirrored: bool) -> np.ndarray:
    """The central square that evaluation uses, float32 (size, size, 3), 0..255."""
    height, width = image.shape[:2]
    side = size / (size + CROP_PADDING) * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return _resized(image, size, (left, top, left + side, top + side), mirrored=mirrored)


def _resized(image: np.ndarray, size: int, box: tuple[float, float, float, float], *, mirrored: bool) -> np.ndarray:
    view = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box), np.float32)
    return view[:, ::-1] if mirrored else view


def training_batches(
    photos: Photos,
    view: Callable[..., np.ndarray],
    *,
    classes: int,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    mix: Callable[..., Batch] | None = None,
) -> Iterator[Batch]:
    """Endless batches; every epoch has a new order and new crops. An incomplete last batch is dropped.

    Args:
        photos: the photos to train on.
        view: maps the pixels of a photo and a random generator `rng` to an image of the batch.
        classes: number of outputs of the model.
        batch_size: photos per batch, at most the number of photos.
        seed: of order and crops; the same seed gives the same batches with any number of threads.
        epoch: the first epoch.
        mix: maps the images and labels of a batch and a random generator `rng` to mixed ones.
    """
    labels = photos.labels(classes)
    with ThreadPoolExecutor(THREADS) as pool:
        for epoch in count(epoch):  # noqa: B020  # the first one is not needed any more

            def draw(index: int, epoch: int = epoch) -> np.ndarray:
                return view(photos.pixels(index), rng=np.random.default_rng((seed, epoch, index)))

            order = np.random.default_rng((seed, epoch)).permutation(len(photos.rows))
            for start in range(0, len(order) - batch_size + 1, batch_size):
                chosen = order[start : start + batch_size]
                batch = np.stack(list(pool.map(draw, chosen.tolist()))), labels[chosen]
                # Photos have two numbers after the seed, a batch has three.
                yield mix(*batch, rng=np.random.default_rng((seed, epoch, start, 1))) if mix else batch


def ordered_batches(photos: Photos, view: Prepare | None, *, batch_size: int) -> Iterator[Batch]:
    """Each photo once, in order and without labels; the last photo is repeated to fill the last batch.

    Args:
        photos: the photos.
        view: maps the pixels of a photo to an image of the batch; None for the pixels themselves.
        batch_size: photos per batch.
    """

    def draw(index: int) -> np.ndarray:
        pixels = photos.pixels(index)
        return view(pixels) if view else pixels

    total = len(photos.rows)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, total, batch_size):
            chosen = [min(i, total - 1) for i in range(start, start + batch_size)]
            yield (np.stack(list(pool.map(draw, chosen))),)
