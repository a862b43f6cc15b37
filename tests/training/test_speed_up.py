"""`speed_up`: the same results as Keras and NumPy, and the same saved files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.models import create
from keras_effnet.training.optimizers import RMSpropTF1
from keras_effnet.training.speed_up import _warn_about_onednn, speed_up
from keras_effnet.variants import tiny

if LEGACY or keras.backend.backend() != "tensorflow":
    pytest.skip("speed_up only has an effect on TensorFlow with Keras 3", allow_module_level=True)

import tensorflow as tf

SHAPE = (4, 3, 5, 6)


def normalisation(dtype: str = "float32", **options: Any) -> tuple[Any, Any]:
    """A batch normalisation layer with random weights, and a model with this layer only."""
    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, dtype=dtype, **options)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return layer, model


def step(
    model: Any, layer: Any, inputs: np.ndarray, upstream: np.ndarray, *, training: bool = True
) -> list[np.ndarray]:
    """Outputs, gradients of inputs, gamma and beta, and moving statistics after one call of a compiled step."""

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE[1:]), tf.float32)] * 2)
    def run(x: Any, seed: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.cast(model(x, training=training), tf.float32)
            loss = tf.reduce_sum(outputs * seed)
        return outputs, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    results = [np.asarray(value, "float64") for value in run(tf.constant(inputs), tf.constant(upstream))]
    return [*results, *(np.asarray(v.numpy(), "float64") for v in (layer.moving_mean, layer.moving_variance))]


def data(batch: int = SHAPE[0]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs, upstream = rng.normal(2.0, 3.0, (batch, *SHAPE[1:])), rng.normal(size=(batch, *SHAPE[1:]))
    return inputs.astype("float32"), upstream.astype("float32")


def by_numpy(layer: Any, inputs: np.ndarray, upstream: np.ndarray) -> list[np.ndarray]:
    """The formulas of arXiv:1502.03167 in float64, with the variance divided by n."""
    gamma, beta, moving_mean, moving_variance = (np.asarray(value, "float64") for value in layer.get_weights())
    x, dy, axes = inputs.astype("float64"), upstream.astype("float64"), (0, 1, 2)
    mean, variance = x.mean(axes), x.var(axes)
    root = np.sqrt(variance + 1e-3)
    hat = (x - mean) / root
    dgamma, dbeta = (dy * hat).sum(axes), dy.sum(axes)
    count = x.size // x.shape[-1]
    dx = gamma / root * (dy - dbeta / count - hat * dgamma / count)
    moved = 0.9 * moving_mean + 0.1 * mean, 0.9 * moving_variance + 0.1 * variance
    return [hat * gamma + beta, dx, dgamma, dbeta, *moved]


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a - b).max() <= tolerance * max(1.0, np.abs(b).max())


@pytest.mark.parametrize("batch", [4, 1])
def test_fused_batch_norm_matches_numpy(batch: int) -> None:
    layer, model = normalisation()
    inputs, upstream = data(batch)
    expected = by_numpy(layer, inputs, upstream)
    assert_close(step(speed_up(model), layer, inputs, upstream), expected, 1e-5)
    assert "call" in vars(layer)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2), ("float64", 1e-5)]
)
def test_fused_batch_norm_matches_keras(dtype: str, tolerance: float) -> None:
    ours, theirs = normalisation(dtype), normalisation(dtype)
    assert_close(step(speed_up(ours[1]), ours[0], *data()), step(theirs[1], theirs[0], *data()), tolerance)


@pytest.mark.parametrize(
    "options",
    [{"axis": 1}, {"synchronized": True}, {"trainable": False}],
    ids=["channels first", "synchronised", "frozen"],
)
def test_unsupported_batch_norm_falls_back_to_keras(options: dict[str, Any]) -> None:
    ours, theirs = normalisation(**options), normalisation(**options)
    for a, b in zip(step(speed_up(ours[1]), ours[0], *data()), step(theirs[1], theirs[0], *data()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inference_uses_keras() -> None:
    ours, theirs = normalisation(), normalisation()
    for a, b in zip(
        step(speed_up(ours[1]), ours[0], *data(), training=False),
        step(theirs[1], theirs[0], *data(), training=False),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_training_gives_the_same_weights_and_traces_its_graph_once(dtype: str) -> None:
    traced = 0

    def trained(prepare: Any) -> tuple[list[np.ndarray], list[float]]:
        nonlocal traced
        keras.utils.set_random_seed(3)
        model = create(tiny(), classes=3, input_shape=(32, 32, 3), dropout_rate=0.0, drop_connect_rate=0.0, dtype=dtype)
        optimizer = RMSpropTF1(0.01, l2=1e-3)
        model.compile(optimizer, "categorical_crossentropy", metrics=[keras.metrics.CategoricalAccuracy()])
        prepare(model)
        plain = model.train_step

        def counted(batch: Any) -> Any:
            nonlocal traced
            traced += 1
            return plain(batch)

        traced, model.train_step = 0, counted
        rng = np.random.default_rng(2)
        images, labels = rng.uniform(0, 255, (32, 32, 32, 3)).astype("float32"), np.eye(3)[np.arange(32) % 3]
        losses = model.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history["loss"]
        return [*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)], losses

    theirs, their_loss = trained(lambda model: None)
    assert traced == 2
    ours, our_loss = trained(speed_up)
    assert traced == 1
    tolerance = 1e-5 if dtype == "float32" else 2e-3
    assert our_loss == pytest.approx(their_loss, rel=tolerance)
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=tolerance, abs=tolerance)


def test_fused_rmsprop_matches_tensorflow_1() -> None:
    layer = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(RMSpropTF1(0.1, rho=0.9, momentum=0.8, epsilon=1e-3, l2=0.02), "mse")
    speed_up(model)
    assert "update_step" in vars(model.optimizer)
    weight = layer.get_weights()[0].astype("float64")
    square, moved = np.ones_like(weight), np.zeros_like(weight)
    for seed in range(5):
        gradient = np.random.default_rng(seed).normal(size=weight.shape)
        model.optimizer.apply([tf.constant(gradient, tf.float32)], layer.trainable_variables)
        gradient = gradient + 0.02 * weight
        square = 0.9 * square + 0.1 * gradient**2
        moved = 0.8 * moved + 0.1 * gradient / np.sqrt(square + 1e-3)
        weight -= moved
    assert layer.get_weights()[0] == pytest.approx(weight, abs=1e-5)


def test_the_saved_model_is_the_plain_one(tmp_path: Path) -> None:
    model = create(tiny(), classes=3, input_shape=(32, 32, 3))
    config, names = model.get_config(), [variable.path for variable in model.weights]
    model.compile(RMSpropTF1(0.01), "categorical_crossentropy")
    speed_up(model)
    model.train_on_batch(np.ones((2, 32, 32, 3), "float32"), np.eye(3)[:2])
    assert model.get_config() == config
    assert [variable.path for variable in model.weights] == names
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    assert not any("call" in vars(layer) for layer in (*loaded.layers, *keras.models.clone_model(model).layers))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    assert np.asarray(loaded(images)) == pytest.approx(np.asarray(model(images)), abs=1e-6)


def test_layers_of_a_nested_model_are_sped_up_too() -> None:
    _, inner = normalisation()
    outer = keras.Sequential([keras.Input(SHAPE[1:]), inner])
    speed_up(outer)
    assert "call" in vars(inner.layers[0])


def test_an_unset_onednn_variable_is_warned_about_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, model = normalisation()
    _warn_about_onednn.cache_clear()
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    speed_up(speed_up(model))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "TF_ENABLE_ONEDNN_OPTS" in caplog.text


def test_a_set_onednn_variable_logs_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _, model = normalisation()
    _warn_about_onednn.cache_clear()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    speed_up(model)
    assert not caplog.records
