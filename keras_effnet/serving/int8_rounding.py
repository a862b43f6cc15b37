"""The weights of a convolution on a grid of 8 bits, rounded so that what it computes changes least.

To the nearest, the errors of the weights are independent, but what they are multiplied with is not: neighbouring pixels
are nearly equal, so that errors which add up to nothing do nearly no harm. Which way to round is chosen by the
covariance of the inputs (the aim of arXiv:2004.10568, by the means of arXiv:2210.17323 and coordinate descent). Of
activations it is the range that is chosen: clipping a few outliers makes every other number finer.
"""

import numpy as np

# Symmetric, and one scale for each output: how LiteRT and OpenVINO keep the weights of a convolution.
LEVELS = 127
SWEEPS = 3
# How finely a range is looked for, and which parts of the whole one are tried.
BINS = 2048
PARTS = np.linspace(1, 0.3, 36)
# Of the mean variance, added to each: directions that the photos do not show must not be free.
DAMPING = 1e-3


def round_layer(kernel: np.ndarray, covariance: np.ndarray, *, levels: int = LEVELS) -> np.ndarray:
    """A kernel on its grid, in the shape it had.

    Args:
        kernel: (height, width, inputs, outputs), or for a depthwise convolution (height, width, channels, 1).
        covariance: of what the kernel is multiplied with, (inputs, inputs) with the inputs of all its places; for a
            depthwise convolution (channels, inputs of each, inputs of each).
        levels: steps from 0 to the largest of each output.

    Example:
        >>> round_layer(np.reshape([1.27, 0.503], (1, 1, 2, 1)), np.eye(2)).ravel().round(6)
        array([1.27, 0.5 ])
    """
    matrix = kernel.astype(np.float64).reshape(-1, kernel.shape[2 if covariance.ndim == 3 else 3])
    return round_matrix(matrix, covariance, levels).reshape(kernel.shape)


def round_matrix(matrix: np.ndarray, covariance: np.ndarray, levels: int = LEVELS) -> np.ndarray:
    """Columns on a grid each, so that the variance of the error of `inputs @ matrix` is small.

    The largest of a column stays at the end of its grid: by it a converter finds the same grid again.

    Args:
        matrix: (inputs, outputs).
        covariance: (inputs, inputs), or (outputs, inputs, inputs) if each output has inputs of its own.
        levels: steps from 0 to the largest of a column.
    """
    step = abs(matrix).max(axis=0) / levels
    step[step == 0] = 1
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    floor = DAMPING * variance.mean(axis=-1)[..., None, None] + 1e-30
    damped = covariance + floor * np.eye(len(matrix))
    # The same for both shapes: [i] gives what input i has in common with all inputs, for each output.
    rows = damped.transpose(1, 2, 0) if damped.ndim == 3 else damped[..., None]
    units = _compensated(matrix / step, damped, levels)
    fixed = abs(matrix).argmax(axis=0)
    outputs = np.arange(matrix.shape[1])
    units[fixed, outputs] = levels * np.sign(matrix[fixed, outputs])
    _descend(units, matrix / step, rows, fixed, levels)
    return units * step


def _compensated(matrix: np.ndarray, covariance: np.ndarray, levels: int) -> np.ndarray:
    """One input after the other to the nearest number, its error made good by the next (arXiv:2210.17323)."""
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-2, -1)
    matrix, units = matrix.copy(), np.empty_like(matrix)
    rows = factor.transpose(1, 2, 0) if factor.ndim == 3 else factor[..., None]
    for i, row in enumerate(rows):
        units[i] = np.round(matrix[i]).clip(-levels, levels)
        matrix[i:] -= row[i:] * ((matrix[i] - units[i]) / row[i])
    return units


def _descend(units: np.ndarray, matrix: np.ndarray, rows: np.ndarray, fixed: np.ndarray, levels: int) -> None:
    """Move one input at a time to where the variance of the error is least, in place."""
    slope = sum(row * (units[i] - matrix[i]) for i, row in enumerate(rows))
    for _ in range(SWEEPS):
        for i, row in enumerate(rows):
            wanted = units[i] - np.round(slope[i] / row[i])
            moved = np.where(fixed == i, 0, wanted.clip(-levels, levels) - units[i])
            if moved.any():
                units[i] += moved
                slope += row * moved


def clipped_range(values: np.ndarray) -> tuple[float, float]:
    """The range, from 0 or less to 0 or more, of which 256 steps give the least squared error, with what it clips.

    Args:
        values: of any shape.

    Example:
        >>> low, high = clipped_range(np.append(np.linspace(0, 1, 10_000), 8.0))
        >>> low, 1 <= high < 2
        (-0.0, True)
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
