"""TensorFlow 1's bicubic resize in NumPy: ResizeBicubic with half_pixel_centers=False."""

import numpy as np


def resize_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) of any real dtype to float32 (size, size, 3), without smoothing or clipping.

    Example:
        >>> resize_bicubic(np.ones((30, 20, 3), np.uint8), 8).shape
        (8, 8, 3)
    """
    (y, wy), (x, wx) = (_bicubic_taps(length, size) for length in image.shape[:2])
    rows = sum(wy[:, k, None, None] * image[y[:, k]].take(x.ravel(), axis=1).astype(np.float32) for k in range(4))
    rows = rows.reshape(size, size, 4, 3)
    return sum(wx[:, k, None] * rows[:, :, k] for k in range(4))


def _bicubic_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The four input pixels of each output pixel and their weights, both of shape (size, 4)."""
    position = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    first = np.floor(position)
    # TensorFlow looks the weights up in a table of 1024 steps.
    t = np.rint((position - first) * 1024) / 1024
    distances = np.stack([t + 1, t, 1 - t, 2 - t], axis=1)
    indices = first[:, None].astype(np.int64) + np.arange(-1, 3)
    return indices.clip(0, length - 1), _keys(distances).astype(np.float32)


def _keys(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The cubic convolution kernel at distances 0..2 (Keys, doi:10.1109/TASSP.1981.1163711)."""
    return np.where(x <= 1, ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a)
