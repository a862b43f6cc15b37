"""Compares an exported model with the original, and chooses the photos for the comparison."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from keras_effnet.data.photos import Photo, named, prepare
from keras_effnet.errors import at_least_one
from keras_effnet.images import View, find_images, sample
from keras_effnet.serving.engines import Run

SAMPLES = ("astronaut", "camera", "chelsea", "coffee", "motorcycle_left", "rocket")
# The allowed difference, as a fraction of the largest score of an image. Rounding in float32 causes about 1e-5.
TOLERANCE = {None: 1e-3, "float16": 5e-2}
# The required share of equal first labels without quantization. It is not 1: two labels can be equally likely.
LEAST_AGREEMENT = 0.5
MOST = 16
# More than this would take over a gigabyte at 224 x 224 pixels.
ENOUGH = 1000
# More photos bring more outliers, which widen the ranges and make every number coarser.
CALIBRATION = 250


@dataclass(frozen=True)
class Images:
    """Photos prepared for a model, float32 of shape (n, size, size, 3), and a description of them."""

    what: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Check:
    """The difference between an exported model and the original.

    Args:
        images: a description of the images that were compared.
        count: the number of images.
        difference: the largest difference between two scores, as a fraction of the largest score of that image.
        agreement: the share of the images with the same first label.
    """

    images: str
    count: int
    difference: float
    agreement: float


def check_images(representative: Any, view: View, most: int = ENOUGH) -> Images:
    """Load the given photos, or else those of scikit-image, or else noise.

    Args:
        representative: a folder, a pattern, an iterable as in `classify`, or None.
        view: the pixels of each photo that the model gets.
        most: if there are more photos, this many are read, evenly spaced.

    Raises:
        ValueError: there are no photos, or one of them cannot be read.
    """
    at_least_one(size=view.size)
    if representative is not None:
        if isinstance(representative, str | os.PathLike):
            representative = find_images([representative])
        return Images("photos given", _prepared(representative, view, most))
    if find_spec("skimage") is not None:
        photos = ((name, sample(name)) for name in SAMPLES)
        return Images("photographs of scikit-image", _prepared(photos, view, most))
    noise = np.random.default_rng(0).uniform(0, 255, (4, view.size, view.size, 3))
    return Images("images of noise", noise.astype(np.float32))


def _prepared(photos: Iterable[Photo], view: View, most: int) -> np.ndarray:
    every = [named(photo, number) for number, photo in enumerate(photos)]
    if not every:
        raise ValueError("There are no representative photos. Expected at least one. Pass a folder with photos.")
    chosen = np.linspace(0, len(every) - 1, min(len(every), most)).round().astype(int)
    images = np.empty((len(chosen), view.size, view.size, 3), np.float32)
    for place, number in enumerate(chosen):
        _, images[place], fault = prepare(every[number], view)
        if fault:
            raise ValueError(fault)
    return images


def split(images: Images, held_out: Images | None) -> tuple[Images, Images]:
    """The photos for calibration and those for the comparison: the held-out ones, or else every fourth one.

    Raises:
        ValueError: there are fewer than four photos.
    """
    if len(images.pixels) < 4:
        raise ValueError(
            f"There are {len(images.pixels)} representative photos. Expected at least four, better a few hundred. "
            "Three quarters of them are used for calibration, the rest for the comparison. Pass more."
        )
    last = np.arange(len(images.pixels)) % 4 == 3
    seen, unseen = images.pixels[~last], images.pixels[last]
    if held_out:
        seen, unseen = images.pixels, held_out.pixels
    return Images(images.what, seen[:: -(-len(seen) // CALIBRATION)]), Images("photos held out", unseen)


class Scorer(Protocol):
    """The float model: a `Classifier`, or the computation in NumPy."""

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of images (batch, size, size, 3)."""


def compare(classifier: Scorer, run: Run, images: Images, *, quantize: str | None, min_agreement: float) -> Check:
    """Run the model and its export on the same images.

    Raises:
        ValueError: the scores differ too much.
    """
    pixels = images.pixels
    expected, found = scores(classifier, pixels), np.concatenate([run(image[None]) for image in pixels])
    # Features can be negative, or all zero.
    largest = np.maximum(abs(expected).max(axis=1), np.finfo(np.float32).tiny)
    difference = float((abs(found - expected).max(axis=1) / largest).max())
    agreement = agree(found, expected)
    check = Check(images.what, len(pixels), difference, agreement)
    limit = TOLERANCE.get(quantize, np.inf)
    # `not <=` instead of `>`, so that NaN is refused too.
    if not difference <= limit:
        raise ValueError(
            f"The exported scores differ from the model's by {difference:.2g} of the largest score, on {check.count} "
            f"{check.images}. Expected at most {limit:.2g}. Nothing was written. Try another format."
        )
    # If all classes are about equally likely, scores that are nearly equal do not prove much.
    least, remedy = LEAST_AGREEMENT, "another format"
    if quantize:
        least, remedy = min_agreement, "more representative photos, another way to quantize, or a lower min_agreement"
    if not agreement >= least:
        raise ValueError(
            f"The exported model ({quantize or 'float32'}) agrees with the model on the first label of {agreement:.1%} "
            f"of {check.count} {check.images}. Expected at least {least:.1%}. Nothing was written. Try {remedy}."
        )
    return check


def scores(classifier: Scorer, pixels: np.ndarray) -> np.ndarray:
    """The scores of a model for any number of images."""
    return np.concatenate([classifier.scores(pixels[i : i + MOST]) for i in range(0, len(pixels), MOST)])


def agree(found: np.ndarray, expected: np.ndarray) -> float:
    """The share of the images with the same first label."""
    return float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1)))
