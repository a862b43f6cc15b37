"""Rounding to 8 bits by the covariance of the inputs, compared with NumPy and with exhaustive search."""

import itertools

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.exporting.int8_rounding import LEVELS, clipped_range, round_layer, round_matrix


def alike(rng: np.random.Generator, places: int, inputs: int) -> np.ndarray:
    """Inputs like neighbouring pixels: nearly the same everywhere."""
    return rng.normal(size=(places, inputs)) + 5 * rng.normal(size=(places, 1))


def nearest(matrix: np.ndarray) -> np.ndarray:
    step = abs(matrix).max(axis=0) / LEVELS
    return np.round(matrix / step) * step


def test_rounding_by_covariance_changes_outputs_less_than_rounding_to_nearest() -> None:
    rng = np.random.default_rng(0)
    inputs, matrix = alike(rng, 500, 25), rng.normal(size=(25, 40))
    rounded = round_matrix(matrix, np.cov(inputs.T))
    error, plain = ((inputs @ (other - matrix)).var(axis=0) for other in (rounded, nearest(matrix)))
    assert (error <= plain * (1 + 1e-9)).mean() > 0.9
    assert error.mean() < 0.3 * plain.mean()


def test_rounding_four_weights_is_close_to_the_best_of_all_ways() -> None:
    rng = np.random.default_rng(1)
    inputs, matrix = alike(rng, 500, 4), rng.normal(size=(4, 20))
    covariance = np.cov(inputs.T)
    found = round_matrix(matrix, covariance) - matrix
    for column, error in zip(matrix.T, found.T, strict=True):
        step = abs(column).max() / LEVELS
        ways = itertools.product(*((np.floor(w / step) * step - w, np.ceil(w / step) * step - w) for w in column))
        best = min(np.array(way) @ covariance @ np.array(way) for way in ways)
        # Coordinate descent cannot improve an error of half a step on one input.
        assert error @ covariance @ error <= best + step**2 * covariance[0, 0] / 4


def test_rounding_to_nearest_again_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(30, 12)) * rng.uniform(0.01, 10, 12)
    rounded = round_matrix(matrix, np.cov(alike(rng, 300, 30).T))
    np.testing.assert_allclose(nearest(rounded), rounded, rtol=1e-12, atol=0)
    np.testing.assert_allclose(abs(rounded).max(axis=0), abs(matrix).max(axis=0))


@pytest.mark.parametrize("depthwise", [False, True])
def test_each_output_of_a_kernel_has_its_own_grid(depthwise: bool) -> None:
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(3, 3, 4, 1 if depthwise else 6))
    covariance = np.stack([np.cov(alike(rng, 200, 9).T)] * 4) if depthwise else np.cov(alike(rng, 200, 36).T)
    rounded = round_layer(kernel, covariance)
    columns, before = (value.reshape(-1, 4 if depthwise else 6) for value in (rounded, kernel))
    assert abs(columns - before).max() > 0
    np.testing.assert_allclose(nearest(columns), columns, rtol=1e-12, atol=0)
    np.testing.assert_allclose(abs(columns).max(axis=0), abs(before).max(axis=0))


def test_a_range_is_close_to_the_best_one() -> None:
    values = np.append(np.random.default_rng(5).laplace(size=200_000), [40.0, -25.0])

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.square(np.round(values.clip(low, high) / step) * step - values).mean())

    best = min(error(low, high) for low in np.linspace(-25, -2, 24) for high in np.linspace(2, 40, 39))
    assert error(*clipped_range(values)) < 1.3 * best
    assert error(*clipped_range(values)) < 0.8 * error(-25, 40)


@pytest.mark.parametrize(("values", "low", "high"), [((3.0, 4.0), 0, 4), ((-4.0, -3.0), -4, 0), ((0.0, 0.0), 0, 1)])
def test_a_range_contains_zero(values: tuple[float, float], low: float, high: float) -> None:
    np.testing.assert_allclose(clipped_range(np.array(values)), (low, high), atol=1e-9)


def test_constant_inputs_and_zero_weights_are_rounded() -> None:
    rounded = round_matrix(np.array([[0.0, 1.0], [0.0, 0.3]]), np.zeros((2, 2)))
    np.testing.assert_allclose(rounded, [[0, 1], [0, round(0.3 * LEVELS) / LEVELS]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the covariance is computed with TensorFlow")
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize(
    ("side", "strides", "padding"), [(1, 1, "same"), (3, 1, "valid"), (3, 2, "same"), (5, 2, "same")]
)
def test_the_covariance_predicts_the_variance_of_the_outputs(kind: str, side: int, strides: int, padding: str) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow, which computes the covariance, is not installed")
    from keras_effnet.exporting.tf_int8 import input_covariance

    rng = np.random.default_rng(4)
    photos = rng.normal(2, 1, (5, 9, 9, 3)).astype("float32")
    image = keras.Input((9, 9, 3))
    options = {"strides": strides, "padding": padding}
    layer = (
        keras.layers.DepthwiseConv2D(side, **options)
        if kind == "depthwise"
        else keras.layers.Conv2D(4, side, **options)
    )
    model = keras.Model(image, layer(image))
    covariance = input_covariance(layer, photos, most=5 * 81)
    kernel, _ = layer.get_weights()
    outputs = model.predict(photos, verbose=0).reshape(-1, kernel.shape[2] if kind == "depthwise" else 4)
    if kind == "depthwise":
        columns = kernel.reshape(-1, 3).T
        variances = np.einsum("ci,cij,cj->c", columns, covariance, columns)
    else:
        columns = kernel.reshape(-1, 4)
        variances = np.einsum("io,ij,jo->o", columns, covariance, columns)
    np.testing.assert_allclose(variances, outputs.var(axis=0), rtol=1e-3)
