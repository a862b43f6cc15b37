"""Rounds the weights of a convolution to 8 bits so that its outputs change as little as possible.

Rounding to nearest makes independent errors, but the inputs are correlated: neighbouring pixels are nearly equal, so
errors that sum to zero do almost no harm. The direction of rounding is therefore chosen by the covariance of the inputs
(the objective of arXiv:2004.10568, minimised with arXiv:2210.17323 and coordinate descent). For activations the range
is chosen: clipping a few outliers makes the steps of all other values finer.
"""

import numpy as np

# LiteRT and OpenVINO store the weights of a convolution symmetrically, with one scale per output.
LEVELS = 127
SWEEPS = 3
# The bins of the histogram by which a range is chosen, and the fractions of the full range that are tried.
BINS = 2048
PARTS = np.linspace(1, 0.3, 36)
# The fraction of the mean variance that is added to every variance: no direction may be free of cost just because the
# photos do not vary in it.
DAMPING = 1e-3


def round_layer(kernel: np.ndarray, covariance: np.ndarray, *, levels: int = LEVELS) -> np.ndarray:
    """Round a kernel to its grid; the shape stays the same.

    Args:
        kernel: (height, width, inputs, outputs), or for a depthwise convolution (height, width, channels, 1).
        covariance: the covariance of the kernel's inputs, (inputs, inputs), where inputs counts height x width x
            channels; for a depthwise convolution (channels, inputs, inputs), where inputs counts height x width.
        levels: the number of steps from 0 to the largest weight of each output.

    Example:
        >>> round_layer(np.reshape([1.27, 0.503], (1, 1, 2, 1)), np.eye(2)).ravel().round(6)
        array([1.27, 0.5 ])
    """
    matrix = kernel.astype(np.float64).reshape(-1, kernel.shape[2 if covariance.ndim == 3 else 3])
    return round_matrix(matrix, covariance, levels).reshape(kernel.shape)


def round_matrix(matrix: np.ndarray, covariance: np.ndarray, levels: int = LEVELS) -> np.ndarray:
    """Round each column to its grid, so that the variance of the error of `inputs @ matrix` is small.

    The largest weight of a column stays at the end of the grid, so that a converter derives the same grid from it.

    Args:
        matrix: (inputs, outputs).
        covariance: (inputs, inputs), or (outputs, inputs, inputs) if every output has its own inputs.
        levels: the number of steps from 0 to the largest weight of a column.
    """
    step = abs(matrix).max(axis=0) / levels
    step[step == 0] = 1
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    floor = DAMPING * variance.mean(axis=-1)[..., None, None] + 1e-30
    damped = covariance + floor * np.eye(len(matrix))
    # One shape for both cases: [i] is the covariance of input i with all inputs, for each output.
    rows = damped.transpose(1, 2, 0) if damped.ndim == 3 else damped[..., None]
    units = _compensated(matrix / step, damped, levels)
    fixed = abs(matrix).argmax(axis=0)
    outputs = np.arange(matrix.shape[1])
    units[fixed, outputs] = levels * np.sign(matrix[fixed, outputs])
    _descend(units, matrix / step, rows, fixed, levels)
    return units * step


def _compensated(matrix: np.ndarray, covariance: np.ndarray, levels: int) -> np.ndarray:
    """Round one input after another to nearest, and let the next ones compensate the error (arXiv:2210.17323)."""
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-2, -1)
    matrix, units = matrix.copy(), np.empty_like(matrix)
    rows = factor.transpose(1, 2, 0) if factor.ndim == 3 else factor[..., None]
    for i, row in enumerate(rows):
        units[i] = np.round(matrix[i]).clip(-levels, levels)
        matrix[i:] -= row[i:] * ((matrix[i] - units[i]) / row[i])
    return units


def _descend(units: np.ndarray, matrix: np.ndarray, rows: np.ndarray, fixed: np.ndarray, levels: int) -> None:
    """Coordinate descent in place: move one input at a time to the value with the least variance of the error."""
    slope = sum(row * (units[i] - matrix[i]) for i, row in enumerate(rows))
    for _ in range(SWEEPS):
        for i, row in enumerate(rows):
            wanted = units[i] - np.round(slope[i] / row[i])
            moved = np.where(fixed == i, 0, wanted.clip(-levels, levels) - units[i])
            if moved.any():
                units[i] += moved
                slope += row * moved


def clipped_range(values: np.ndarray) -> tuple[float, float]:
    """The range whose 256 steps give the least squared error, clipping included. It always contains 0.

    Args:
        values: an array of any shape.

    Example:
        >>> low, high = clipped_range(np.append(np.linspace(0, 1, 1_000_000), 2.0))
        >>> low, round(high, 1)
        (0.0, 1.0)
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if low == high:
        return 0.0, 1.0
    counts, edges = np.histogram(values, BINS, (low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    above = [(np.square((centres - high * part).clip(0)) * counts).sum() for part in PARTS]
    below = [(np.square((low * part - centres).clip(0)) * counts).sum() for part in PARTS]
    steps = (PARTS[:, None] * high - PARTS * low) / (2 * LEVELS + 1)
    error = np.add.outer(above, below) + steps**2 / 12 * counts.sum()
    best_high, best_low = np.unravel_index(error.argmin(), error.shape)
    return float(low * PARTS[best_low]), float(high * PARTS[best_high])
