"""Published predictions for the published weights: photograph, preprocessing and probability.

Sources: the tests of github.com/qubvel/efficientnet (the panda) and github.com/leondgarse/keras_efficientnet_v2 (the
cat). Each probability was computed by another implementation, with its own conversion of the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_effnet.normalization import IMAGENET

PANDA = "https://raw.githubusercontent.com/qubvel/efficientnet/master/misc/panda.jpg"
# ImageNet class indices.
GIANT_PANDA, EGYPTIAN_CAT = 388, 285


def center_cropped(image: np.ndarray, size: int) -> np.ndarray:
    """The central square, resized by scikit-image's cubic splines, as in the tests with the panda.

    Args:
        image: (height, width, 3), values 0..255.
        size: side of the result in pixels.
    """
    from skimage.transform import resize

    side = int(size / (size + 32) * min(image.shape[:2]))
    top, left = ((length - side + 1) // 2 for length in image.shape[:2])
    square = image[top : top + side, left : left + side]
    return resize(square, (size, size), order=3, preserve_range=True).astype(np.float32)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The whole image, resized like `tf.image.resize` by default: bilinear, without antialiasing.

    Args:
        image: (height, width, 3), values 0..255.
        size: side of the result in pixels.
    """
    (top, bottom, dy), (left, right, dx) = (_neighbours(length, size) for length in image.shape[:2])
    pixels = image.astype(np.float32)
    rows = pixels[top] + (pixels[bottom] - pixels[top]) * dy[:, None, None]
    return rows[:, left] + (rows[:, right] - rows[:, left]) * dx[:, None]


def _neighbours(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    position = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(length / size) - 0.5
    first = np.floor(position)
    low, high = (np.clip(first + step, 0, length - 1).astype(int) for step in (0, 1))
    return low, high, (position - first).astype(np.float32)


def resized_to_unit_range(image: np.ndarray, size: int) -> np.ndarray:
    """`resized`, scaled so that normalisation with ImageNet's statistics results in x / 128 - 1."""
    normalised = resized(image, size) / 128 - 1
    return (normalised * np.float32(IMAGENET.std) + np.float32(IMAGENET.mean)).astype(np.float32)


@dataclass(frozen=True)
class Golden:
    """One published prediction.

    Args:
        variant, name: the network and its weight set.
        photo: "panda", or a photograph of scikit-image.
        prepare: preprocesses an image (height, width, 3) to pixels (size, size, 3) of about 0..255.
        index: the class that has to have the highest probability.
        probability: the published probability of that class.
        tolerance: the largest accepted difference.
        doubt: why a difference would not prove that the weights are wrong; "" if it would.
    """

    variant: str
    name: str
    photo: str
    prepare: Callable[[np.ndarray, int], np.ndarray]
    index: int
    probability: float
    tolerance: float
    doubt: str = ""


# The tests with the panda require five digits, but do not state the JPEG decoder and the version of scikit-image.
_PANDA = {
    "b0": 0.7587869,
    "b1": 0.8373562,
    "b2": 0.8569102,
    "b3": 0.8761664,
    "b4": 0.7342420,
    "b5": 0.8810669,
    "b6": 0.8667784,
    "b7": 0.8399882,
}
_OTHER_PREPROCESSING = "published for pixels x / 128 - 1, with which these weights were not trained"

GOLDENS = (
    *(Golden(key, "imagenet", "panda", center_cropped, GIANT_PANDA, value, 1e-3) for key, value in _PANDA.items()),
    # Published with a tolerance of 1e-5 on one machine; the order of float32 sums changes a probability by more.
    Golden(
        "b1", "noisy-student", "chelsea", resized_to_unit_range, EGYPTIAN_CAT, 0.8223327, 1e-4, _OTHER_PREPROCESSING
    ),
    Golden("b3", "noisy-student", "chelsea", resized, EGYPTIAN_CAT, 0.8770545, 1e-4),
)
