"""The weights of a convolution on a grid of 8 bits, rounded so that what it computes changes least.

To the nearest, the errors of the weights are independent, but what they are multiplied with is not: neighbouring pixels
are nearly equal, so that errors which add up to nothing do nearly no harm. Which way to round is chosen by the
covariance of the inputs (the aim of arXiv:2004.10568, by the means of arXiv:2210.17323 and coordinate descent); what is
left of the mean goes into the bias (arXiv:1906.04721, section 4.2).
"""

from dataclasses import dataclass

import numpy as np

# Symmetric, and one scale for each output: how LiteRT and OpenVINO keep the weights of a convolution.
LEVELS = 127
SWEEPS = 3
# Of the mean variance, added to each: directions that the photos do not show must not be free.
DAMPING = 1e-3


@dataclass(frozen=True)
class Moments:
    """What a convolution multiplies its weights with, over all its places in some photos.

    Args:
        mean: (inputs,), or for a depthwise convolution (channels, inputs of each).
        covariance: one more axis of inputs.
    """

    mean: np.ndarray
    covariance: np.ndarray


def round_layer(kernel: np.ndarray, bias: np.ndarray, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """A kernel on its grid, in the shape it had, and the bias that keeps the mean of the outputs.

    Args:
        kernel: (height, width, inputs, outputs), or for a depthwise convolution (height, width, channels, 1).
        bias: (outputs,).
        moments: with `mean.ndim` 2 for a depthwise convolution.

    Example:
        >>> one = Moments(np.ones(2), np.eye(2))
        >>> kernel, bias = round_layer(np.reshape([1.27, 0.503], (1, 1, 2, 1)), np.zeros(1), one)
        >>> kernel.ravel().round(6), bias.round(6)
        (array([1.27, 0.5 ]), array([0.003]))
    """
    depthwise = moments.mean.ndim == 2
    matrix = kernel.astype(np.float64).reshape(-1, kernel.shape[2] if depthwise else kernel.shape[3])
    rounded = round_matrix(matrix, moments.covariance)
    left = matrix - rounded
    shift = (moments.mean.T * left).sum(axis=0) if depthwise else moments.mean @ left
    return rounded.reshape(kernel.shape), bias + shift


def round_matrix(matrix: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Columns on a grid each, so that the variance of the error of `inputs @ matrix` is small.

    The largest of a column stays at the end of its grid: by it a converter finds the same grid again.

    Args:
        matrix: (inputs, outputs).
        covariance: (inputs, inputs), or (outputs, inputs, inputs) if each output has inputs of its own.
    """
    step = abs(matrix).max(axis=0) / LEVELS
    step[step == 0] = 1
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)
    floor = DAMPING * variance.mean(axis=-1)[..., None, None] + 1e-30
    damped = covariance + floor * np.eye(len(matrix))
    # The same for both shapes: [i] gives what input i has in common with all inputs, for each output.
    rows = damped.transpose(1, 2, 0) if damped.ndim == 3 else damped[..., None]
    units = _compensated(matrix / step, damped)
    fixed = abs(matrix).argmax(axis=0)
    outputs = np.arange(matrix.shape[1])
    units[fixed, outputs] = LEVELS * np.sign(matrix[fixed, outputs])
    _descend(units, matrix / step, rows, fixed)
    return units * step


def _compensated(matrix: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """One input after the other to the nearest number, its error made good by the next (arXiv:2210.17323)."""
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).swapaxes(-2, -1)
    matrix, units = matrix.copy(), np.empty_like(matrix)
    rows = factor.transpose(1, 2, 0) if factor.ndim == 3 else factor[..., None]
    for i, row in enumerate(rows):
        units[i] = np.round(matrix[i]).clip(-LEVELS, LEVELS)
        matrix[i:] -= row[i:] * ((matrix[i] - units[i]) / row[i])
    return units


def _descend(units: np.ndarray, matrix: np.ndarray, rows: np.ndarray, fixed: np.ndarray) -> None:
    """Move one input at a time to where the variance of the error is least, in place."""
    slope = sum(row * (units[i] - matrix[i]) for i, row in enumerate(rows))
    for _ in range(SWEEPS):
        for i, row in enumerate(rows):
            wanted = units[i] - np.round(slope[i] / row[i])
            moved = np.where(fixed == i, 0, wanted.clip(-LEVELS, LEVELS) - units[i])
            if moved.any():
                units[i] += moved
                slope += row * moved
