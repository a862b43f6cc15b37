"""Which pixels of a photo a network gets: the crop and the resize of the published evaluation, in NumPy.

Sources: github.com/tensorflow/tpu, models/official/efficientnet/preprocessing.py (crop padding 32), and the kernel that
it calls, TensorFlow's ResizeBicubic with half_pixel_centers=False; for whole photos github.com/google/automl,
efficientnetv2/preprocessing.py, and TensorFlow's ResizeBilinear with half_pixel_centers=True.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CROP_PADDING = 32
# Left, top, right and bottom in pixels.
Box = tuple[int, int, int, int]
CROPS = ("center", None)
DECODES = ("exact", "fast")


@dataclass(frozen=True)
class View:
    """The pixels that a network gets of a photo.

    Args:
        size: side of the network's images in pixels.
        crop: "center": the central square, as `center_crop_and_resize`; None: the whole photo, resized to a square
            without keeping its aspect ratio, which is how EfficientNetV2-S to XL were evaluated.
        decode: "exact", or "fast": a large JPEG file is decoded at a half, a quarter or an eighth of its size, the
            smallest at which the part that is used still has twice the size.

    Example:
        >>> View(384, None).box(300, 400), View(384).box(300, 400)
        ((0, 0, 400, 300), (62, 12, 338, 288))
    """

    size: int
    crop: str | None = "center"
    decode: str = "exact"

    def reduction(self, height: int, width: int) -> int:
        """By how much a JPEG file may be reduced while it is decoded: 1, 2, 4 or 8.

        Example:
            >>> View(224, decode="fast").reduction(3000, 4000), View(224).reduction(3000, 4000)
            (4, 1)
        """
        if self.decode == "exact":
            return 1
        left, top, right, bottom = self.box(height, width)
        side = min(right - left, bottom - top)
        return next((factor for factor in (8, 4, 2) if side // factor >= 2 * self.size), 1)

    def box(self, height: int, width: int) -> Box:
        """The part of a photo that the network sees: left, top, right and bottom in pixels."""
        return central_square(height, width, self.size) if self.crop else (0, 0, width, height)

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """Crop and resize a photo (height, width, 3) of any real dtype to float32 (size, size, 3), about 0..255.

        A photo that needs no resize keeps its pixels.

        Raises:
            ValueError: the image has another shape.
        """
        if self.crop:
            return center_crop_and_resize(image, self.size)
        _check_image(image)
        return resize_bilinear(image, self.size)


def center_crop_and_resize(image: np.ndarray, size: int, crop_padding: int = CROP_PADDING) -> np.ndarray:
    """Crop the central square and resize it, exactly as in the evaluation behind the published accuracies.

    The side of the square is `size / (size + crop_padding)` of the image's shorter side. The resize is TensorFlow 1's
    bicubic, which does not smooth when it scales down. Only the pixels that the output needs are read.

    Args:
        image: (height, width, 3), any real dtype, values 0..255.
        size: side of the result in pixels.
        crop_padding: pixels of the result that the crop removes.

    Returns:
        float32 of shape (size, size, 3). Values can lie slightly outside of 0..255, because bicubic interpolation
        overshoots at edges and nothing is clipped.

    Raises:
        ValueError: the image has another shape, or `size` is not a whole number of at least 1.

    Example:
        >>> center_crop_and_resize(np.zeros((300, 400, 3), "uint8"), 224).shape
        (224, 224, 3)
    """
    _check_image(image)
    try:
        side = operator.index(size)
    except TypeError:
        side = 0
    if side < 1:
        raise ValueError(f"size is {size!r}. Expected a whole number of pixels, at least 1.")
    left, top, right, bottom = central_square(image.shape[0], image.shape[1], side, crop_padding)
    return resize_bicubic(image[top:bottom, left:right], side)


def _check_image(image: np.ndarray) -> None:
    if np.ndim(image) != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"The image has the shape {np.shape(image)}. Expected (height, width, 3). Pass one RGB image at a time, "
            "for example from load_image."
        )


def central_square(height: int, width: int, size: int, crop_padding: int = CROP_PADDING) -> Box:
    """Return the square that `center_crop_and_resize` crops: left, top, right and bottom in pixels.

    Example:
        >>> central_square(300, 451, 224)
        (95, 19, 357, 281)
    """
    # TensorFlow multiplies in float32 and truncates; an image of one pixel still has a square.
    side = max(1, int(np.float32(size / (size + crop_padding)) * np.float32(min(height, width))))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return left, top, left + side, top + side


def resize_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) of any real dtype to float32 (size, size, 3), without smoothing or clipping.

    Example:
        >>> resize_bicubic(np.ones((30, 20, 3), np.uint8), 8).shape
        (8, 8, 3)
    """
    return _resize(image, size, _bicubic_taps)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) of any real dtype to float32 (size, size, 3), without smoothing.

    Example:
        >>> resize_bilinear(np.ones((30, 20, 3), np.uint8), 8).shape
        (8, 8, 3)
    """
    return _resize(image, size, _bilinear_taps)


# From a length and a size to the input pixels of each output pixel and their weights, both of shape (size, taps).
Taps = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


def _resize(image: np.ndarray, size: int, taps: Taps) -> np.ndarray:
    """Resize rows and columns one after the other, as small matrix products.

    Eight output pixels at a time depend on a few dozen input pixels. Apart from the rows in use, nothing larger than
    (size, width, 3) floats is allocated.
    """
    height, width, channels = image.shape
    pixels, used = image.reshape(height, width * channels), _used_columns(width, size, taps)
    tall = np.empty((size, len(used) * channels), np.float32)
    for start, rows, weights in _row_blocks(height, size, taps):
        inputs = pixels[rows]
        if len(used) < width:
            inputs = inputs.reshape(-1, width, channels).take(used, axis=1).reshape(len(inputs), -1)
        for left in range(0, inputs.shape[1], _TILE):
            tile = slice(left, left + _TILE)
            np.matmul(weights, inputs[:, tile].astype(np.float32), out=tall[start : start + len(weights), tile])
    result = np.empty((size, size * channels), np.float32)
    for outputs, columns, weights in _column_blocks(width, size, channels, taps):
        height_of_tile = max(1, _PRODUCT // weights.size)
        for top in range(0, size, height_of_tile):
            tile = slice(top, top + height_of_tile)
            np.matmul(tall[tile, columns], weights, out=result[tile, outputs])
    return result.reshape(size, size, channels)


_BLOCK = 8  # output pixels in one matrix product
# A larger product makes OpenBLAS start its threads, which would compete with those of an inference engine.
_PRODUCT = 250_000
_TILE = 960


@lru_cache(maxsize=64)
def _row_blocks(length: int, size: int, taps: Taps) -> tuple[tuple[int, slice | np.ndarray, np.ndarray], ...]:
    """For each block of output rows: its first row, the input rows, and the weights (output rows, input rows)."""
    indices, weights = taps(length, size)
    blocks: list[tuple[int, slice | np.ndarray, np.ndarray]] = []
    for start in range(0, size, _BLOCK):
        needed = indices[start : start + _BLOCK]
        rows = np.unique(needed)
        matrix = np.zeros((len(needed), len(rows)), np.float32)
        # Clipped at an edge, two taps may read the same row: their weights add up.
        np.add.at(
            matrix, (np.arange(len(needed))[:, None], np.searchsorted(rows, needed)), weights[start : start + _BLOCK]
        )
        gapless = rows[-1] - rows[0] + 1 == len(rows)
        blocks.append((start, slice(int(rows[0]), int(rows[-1]) + 1) if gapless else rows, matrix))
    return tuple(blocks)


@lru_cache(maxsize=64)
def _used_columns(length: int, size: int, taps: Taps) -> np.ndarray:
    """The input columns to read: all of them, unless the image is so large that picking is faster."""
    return np.unique(taps(length, size)[0]) if length > 8 * size else np.arange(length)


@lru_cache(maxsize=64)
def _column_blocks(length: int, size: int, channels: int, taps: Taps) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """For each block of output columns: where it goes, which of the used columns it needs, and the weights.

    Columns are counted in numbers, `channels` for each pixel. Weights have the shape (inputs, outputs).
    """
    indices, weights = taps(length, size)
    indices = np.searchsorted(_used_columns(length, size, taps), indices)
    blocks = []
    for start in range(0, size, _BLOCK):
        needed = indices[start : start + _BLOCK]
        first, last = int(needed.min()), int(needed.max()) + 1
        matrix = np.zeros((last - first, len(needed)), np.float32)
        np.add.at(matrix, (needed - first, np.arange(len(needed))[:, None]), weights[start : start + _BLOCK])
        outputs = slice(channels * start, channels * (start + len(needed)))
        inputs = slice(channels * first, channels * last)
        blocks.append((outputs, inputs, np.kron(matrix, np.eye(channels, dtype=np.float32))))
    return tuple(blocks)


def _bicubic_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The four input pixels of each output pixel and their weights, both of shape (size, 4)."""
    position = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    first = np.floor(position)
    # TensorFlow reads the weights from a table with 1024 steps.
    t = np.rint((position - first) * 1024) / 1024
    distances = np.stack([t + 1, t, 1 - t, 2 - t], axis=1)
    indices = first[:, None].astype(np.int64) + np.arange(-1, 3)
    return indices.clip(0, length - 1), _keys(distances).astype(np.float32)


def _bilinear_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The two input pixels of each output pixel and their weights, both of shape (size, 2)."""
    scale = np.float32(length) / np.float32(size)
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(position)
    share = position - first
    indices = np.stack([first, np.ceil(position)], axis=1).astype(np.int64)
    return indices.clip(0, length - 1), np.stack([1 - share, share], axis=1).astype(np.float32)


def _keys(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The cubic convolution kernel at distances 0..2 (Keys, doi:10.1109/TASSP.1981.1163711)."""
    return np.where(x <= 1, ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a)
