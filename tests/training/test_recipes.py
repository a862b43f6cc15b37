"""The recipes: optimizer, schedule and moving average against NumPy; weight decay by name against the network."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet._keras_private import variable_key
from keras_effnet.complexity import complexity
from keras_effnet.models import create
from keras_effnet.training.ema import EMA, ramped
from keras_effnet.training.optimizers import NesterovL2, RMSpropTF1, learning_rate, make_optimizer, total_steps
from keras_effnet.training.recipes import RECIPES, TRANSFER_DATASETS, find_recipe
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights.registry import WEIGHTS


@pytest.fixture
def model() -> Any:
    keras.utils.set_random_seed(1)
    return create(tiny(), classes=3)


def values(variables: Any) -> list[np.ndarray]:
    return [np.array(keras.backend.get_value(v) if LEGACY else keras.ops.convert_to_numpy(v)) for v in variables]


def variable(value: np.ndarray, name: str) -> Any:
    if LEGACY:
        import tensorflow as tf

        return tf.Variable(value, name=name)
    return keras.Variable(value, name=name)


def constant(value: np.ndarray) -> Any:
    return keras.backend.constant(value) if LEGACY else keras.ops.convert_to_tensor(value)


def steps(optimizer: Any, weights: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    held = variable(weights, "kernel")
    for gradient in gradients:
        optimizer.apply_gradients([(constant(gradient), held)])
    return values([held])[0]


@pytest.fixture
def gradients() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 3)).astype("float32"), [rng.normal(size=(4, 3)).astype("float32") for _ in range(6)]


# --- recipes ---


def test_recipes_match_the_paper() -> None:
    recipe = RECIPES["imagenet"]
    assert (recipe.epochs, recipe.batch_size, recipe.scaled_learning_rate) == (350, 4096, 0.256)
    assert (recipe.decay_rate, recipe.decay_epochs, recipe.warmup_epochs) == (0.97, 2.4, 5)
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.ema_decay) == (1e-5, 0.1, 0.9999)
    assert round(1_281_167 * recipe.holdout / 1000) == 25  # the paper: 25,000 images
    assert replace(recipe, batch_size=2048).scaled_learning_rate == 0.128
    randaugment = RECIPES["randaugment"]
    assert [randaugment.magnitude_for(v) for v in ("b0", "b5", "b7")] == [10, 17, 28]


def test_expected_accuracies_match_the_weight_registry() -> None:
    published = {key: row.top1 for key, row in WEIGHTS.items()}
    for recipe, name in (("imagenet", "imagenet"), ("baseline", "baseline"), ("randaugment", "randaugment")):
        expected = RECIPES[recipe].record.expected
        assert expected
        assert all(published[variant, name] == top1 for variant, top1 in expected)
    assert all(published[variant, "imagenet"] == top1 for variant, top1 in RECIPES["lite"].record.expected)


def test_measured_recipes_name_their_hardware() -> None:
    for recipe in RECIPES.values():
        assert recipe.record.measured != ("not run" in recipe.record.hardware)
        assert f"--recipe {recipe.name}" in recipe.record.command


def test_the_transfer_recipe_matches_the_protocol_cited_by_the_paper() -> None:
    recipe = RECIPES["transfer"]
    assert (recipe.optimizer, recipe.momentum, recipe.schedule) == ("sgd", 0.9, "cosine")
    assert total_steps(recipe, steps_per_epoch=31) == 20_000


def test_transfer_data_sets_match_table_6() -> None:
    from keras_effnet.paper.data import TABLE_6

    assert [row.name for row in TRANSFER_DATASETS] == [row.name for row in TABLE_6]
    assert all(row.data.startswith("tfds:") and row.test for row in TRANSFER_DATASETS if row.data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "adam"}, "optimizer is 'adam'. Expected one of rmsprop, sgd."),
        ({"augment": "trivial"}, "Expected one of None, autoaugment, randaugment."),
        ({"epochs": 0}, "epochs is 0. Expected a number above 0."),
        (
            {"epochs": 0.5},
            "epochs is 0.5. Expected a whole number. For a fraction of an epoch, pass a number of updates",
        ),
        ({"epochs": math.nan}, "epochs is nan."),
        ({"learning_rate": math.inf}, "learning_rate is inf."),
        ({"warmup_epochs": -1}, "warmup_epochs is -1. Expected a number of at least 0."),
        ({"ema_decay": 2}, "ema_decay is 2. Expected a number of at least 0 and at most 1."),
        ({"drop_connect_rate": 3}, "drop_connect_rate is 3."),
        ({"size": 3}, "size is 3. Expected a whole number of at least 32."),
        ({"patience": 0}, "patience is 0."),
        ({"seed": 2**32}, "seed is 4294967296. Expected a whole number of at least 0 and at most 4294967295."),
        ({"batch_size": 64.5}, "batch_size is 64.5. Expected a whole number of at least 1."),
        ({"steps": True}, "steps is True. Expected a whole number of at least 1."),
        ({"accumulate": 3}, "batch_size is 4096 and accumulate is 3."),
        ({"holdout": 1.0}, "holdout is 1.0."),
    ],
)
def test_invalid_recipes_raise(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPES["imagenet"], **change)
    with pytest.raises(
        ValueError, match="There is no recipe 'resnet'. Expected one of baseline, imagenet, imagenet-v2-b0"
    ):
        find_recipe("resnet")


# --- schedule ---


@pytest.mark.parametrize("step", [0, 1, 499, 500, 501, 719, 720, 961, 2400, 35_000])
def test_the_learning_rate_follows_the_formula(step: int) -> None:
    epoch = step / 100
    expected = 0.256 * epoch / 5 if epoch < 5 else 0.256 * 0.97 ** np.floor(epoch / 2.4)
    assert float(learning_rate(RECIPES["imagenet"], 100)(step)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("step", [0, 5_000, 12_345, 20_000])
def test_the_transfer_schedule_is_half_a_cosine(step: int) -> None:
    expected = 0.01 * 0.5 * (1 + np.cos(np.pi * step / 20_000))
    assert float(learning_rate(RECIPES["transfer"], 31)(step)) == pytest.approx(expected, abs=1e-8)


def test_a_constant_schedule_is_constant() -> None:
    schedule = learning_rate(replace(RECIPES["imagenet"], schedule="constant", warmup_epochs=0), 10)
    assert {round(float(schedule(step)), 6) for step in (0, 7, 5000)} == {0.256}


def test_a_schedule_can_be_serialised() -> None:
    schedule = learning_rate(RECIPES["imagenet"], 100)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert [float(again(step)) for step in (3, 900)] == [float(schedule(step)) for step in (3, 900)]


# --- optimizer ---


def tf1_rmsprop(w: np.ndarray, gradients: list[np.ndarray], *, lr: float, l2: float) -> np.ndarray:
    """ApplyRMSProp: ms <- rho ms + (1 - rho) g^2; mom <- momentum mom + lr g / sqrt(ms + epsilon); w <- w - mom."""
    w, ms, mom = w.astype("float64"), np.ones(w.shape), np.zeros(w.shape)
    for gradient in gradients:
        g = gradient + l2 * w
        ms = 0.9 * ms + 0.1 * g * g
        mom = 0.9 * mom + lr * g / np.sqrt(ms + 1e-3)
        w = w - mom
    return w


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_rmsprop_matches_tensorflow_1(gradients: Any, l2: float) -> None:
    weights, rows = gradients
    expected = tf1_rmsprop(weights, rows, lr=0.05, l2=l2)
    assert steps(RMSpropTF1(0.05, l2=l2), weights, rows) == pytest.approx(expected, abs=1e-5)
    # Keras's RMSprop, whose mean of squares starts at zero, gives different weights.
    options = {"ema_overwrite_frequency": None}
    theirs = steps(keras.optimizers.RMSprop(0.05, 0.9, 0.9, 1e-3, **options), weights, rows)
    assert np.abs(theirs - expected).max() > 0.05


def test_rmsprop_matches_tensorflow_1s_kernel(gradients: Any) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    weights, rows = gradients
    var, ms, mom = (tf.Variable(v, dtype="float32") for v in (weights, np.ones((4, 3)), np.zeros((4, 3))))
    for gradient in rows:
        tf.raw_ops.ResourceApplyRMSProp(
            var=var.handle, ms=ms.handle, mom=mom.handle, lr=0.05, rho=0.9, momentum=0.9, epsilon=1e-3, grad=gradient
        )
    assert steps(RMSpropTF1(0.05), weights, rows) == pytest.approx(var.numpy(), abs=1e-6)


def test_nesterov_adds_weight_decay_to_the_gradient(gradients: Any) -> None:
    weights, rows = gradients
    w, velocity = weights.astype("float64"), np.zeros_like(weights)
    for gradient in rows:
        g = gradient + 0.1 * w
        velocity = 0.9 * velocity - 0.05 * g
        w = w + 0.9 * velocity - 0.05 * g
    assert steps(NesterovL2(0.05, l2=0.1), weights, rows) == pytest.approx(w, abs=1e-5)


def test_all_weights_decay_except_batch_normalisation(model: Any) -> None:
    built = model
    optimizer = RMSpropTF1(0.0001, l2=0.5, momentum=0.0)
    before = values(built.trainable_variables)
    zeros = [constant(np.zeros(value.shape, "float32")) for value in before]
    # Biases start at zero, where decay would not change them.
    for v, value in zip(built.trainable_variables, before, strict=True):
        v.assign(value + 1)
    optimizer.apply_gradients(zip(zeros, built.trainable_variables, strict=True))
    moved = {
        getattr(v, "path", v.name).split(":")[0]
        for v, old, new in zip(built.trainable_variables, before, values(built.trainable_variables), strict=True)
        if (old + 1 != new).any()
    }
    names = {getattr(v, "path", v.name).split(":")[0] for v in built.trainable_variables}
    batch_norm = {
        f"{layer.name}/{kind}"
        for layer in built.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for kind in ("gamma", "beta")
    }
    assert batch_norm < names
    assert moved == names - batch_norm


def test_automatic_layer_names_are_excluded_from_decay_too() -> None:
    inputs = keras.Input((4,))
    built = keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.BatchNormalization()(inputs)))
    optimizer = RMSpropTF1(0.1, l2=1.0)
    optimizer.build(built.trainable_variables)
    assert len(optimizer._excluded) == 4


def test_an_optimizer_can_be_serialised() -> None:
    optimizer = make_optimizer(RECIPES["imagenet"], learning_rate(RECIPES["imagenet"], 100))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.l2 == 1e-5
    assert again.get_config()["learning_rate"] == optimizer.get_config()["learning_rate"]


@pytest.mark.skipif(LEGACY, reason="tf_keras cannot accumulate gradients")
def test_accumulated_parts_give_the_same_update_as_the_whole_batch(gradients: Any) -> None:
    weights, rows = gradients
    recipe = replace(RECIPES["imagenet"], batch_size=32, accumulate=2)
    halves = [half for row in rows for half in (row - 0.3, row + 0.3)]
    parts = steps(make_optimizer(recipe, 0.05), weights, halves)
    assert parts == pytest.approx(tf1_rmsprop(weights, rows, lr=0.05, l2=1e-5), abs=1e-5)


@pytest.mark.skipif(not LEGACY, reason="Keras 3 accumulates gradients")
def test_accumulation_raises_under_tf_keras() -> None:
    with pytest.raises(ValueError, match="accumulate is 2 under tf_keras"):
        make_optimizer(replace(RECIPES["imagenet"], accumulate=2), 0.1)


def test_gradients_are_clipped_by_their_global_norm(gradients: Any) -> None:
    weights, rows = gradients
    recipe = replace(RECIPES["imagenet"], global_clipnorm=1.0, weight_decay=0.0)
    clipped = [row / max(1.0, np.linalg.norm(row)) for row in rows]
    expected = tf1_rmsprop(weights, clipped, lr=0.05, l2=0)
    assert steps(make_optimizer(recipe, 0.05), weights, rows) == pytest.approx(expected, abs=1e-5)


# --- moving average ---


def test_the_decay_starts_low_as_in_tensorflow_1() -> None:
    assert ramped(0.9999, 1) == pytest.approx(2 / 11)
    assert ramped(0.9999, 89_980) < 0.9999 == ramped(0.9999, 90_000)


def fitted(model: Any, ema: EMA, images: np.ndarray, labels: np.ndarray) -> list[list[np.ndarray]]:
    """The weights before and after each batch of two epochs."""
    seen = [values(model.weights)]
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(values(model.weights)))
    model.compile(RMSpropTF1(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, 4, 2, callbacks=[ema, watch], validation_data=(images, labels), verbose=0)
    return seen


@pytest.fixture
def small() -> Any:
    """A network with batch normalisation that trains within a second."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.layers.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, strides=4),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


@pytest.fixture
def photos() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 255, (12, 32, 32, 3)).astype("float32"), np.arange(12) % 3


def test_the_average_matches_arithmetic_and_includes_batch_statistics(small: Any, photos: Any) -> None:
    ema = EMA(0.75)
    seen = fitted(small, ema, *photos)
    expected = [value.astype("float64") for value in seen[0]]
    for n, weights in enumerate(seen[1:], start=1):
        d = min(0.75, (1 + n) / (10 + n))
        expected = [d * average + (1 - d) * weight for average, weight in zip(expected, weights, strict=True)]
    for average, value, weight in zip(values(ema.variables), expected, small.weights, strict=True):
        assert average == pytest.approx(value, rel=1e-6, abs=1e-5), weight.name
    statistics = [i for i, weight in enumerate(small.weights) if "moving_" in weight.name]
    assert statistics
    assert max(np.abs(expected[i] - seen[-1][i]).max() for i in statistics) > 1e-3


def test_validation_uses_the_average_and_training_the_weights(small: Any, photos: Any) -> None:
    ema = EMA(0.9)
    seen = fitted(small, ema, *photos)
    for old, new in zip(seen[-1], values(small.weights), strict=True):
        assert np.array_equal(old, new)
    reported = small.history.history["val_loss"][-1]
    with ema.applied():
        assert small.evaluate(*photos, verbose=0)[0] == pytest.approx(reported, rel=1e-6)
    assert small.evaluate(*photos, verbose=0)[0] != pytest.approx(reported, rel=1e-5)


def test_accumulated_batches_count_as_one_update(small: Any, photos: Any) -> None:
    ema = EMA(0.9, every=3)
    fitted(small, ema, *photos)
    assert ema.updates == 2


def test_a_compiled_update_gives_the_same_average(small: Any, photos: Any) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    compiled, plain = EMA(0.9, compile=tf.function), EMA(0.9)
    small.compile(RMSpropTF1(0.01), "sparse_categorical_crossentropy")
    small.fit(*photos, 4, 2, callbacks=[compiled, plain], verbose=0)
    for a, b in zip(values(compiled.variables), values(plain.variables), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


class Stop(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training after the first epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            raise InterruptedError


@pytest.mark.skipif(LEGACY, reason="tf_keras saves no attributes of a model")
@pytest.mark.parametrize("first", [True, False], ids=["before the backup", "after the backup"])
def test_the_average_survives_backup_and_restore(photos: Any, tmp_path: Path, first: bool) -> None:
    def fit(folder: Path, *stop: Any) -> tuple[Any, EMA]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "mse")
        ema, backup = EMA(0.9), keras.callbacks.BackupAndRestore(folder, save_freq="epoch")
        callbacks = [ema, backup] if first else [backup, ema]
        with contextlib.suppress(InterruptedError):
            model.fit(photos[0], np.eye(3)[photos[1]], 4, 2, shuffle=False, verbose=0, callbacks=[*callbacks, *stop])
        return model, ema

    model, whole = fit(tmp_path / "a")
    _, cut = fit(tmp_path / "b", Stop())
    again, resumed = fit(tmp_path / "b")
    assert (cut.batches, resumed.batches) == (3, whole.batches)
    for ours, expected in zip(values(resumed.variables), values(whole.variables), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(values(whole.variables), model.get_weights(), strict=True))
    assert not hasattr(again, "_keras_effnet_ema")  # files written after `fit` do not contain the average


@pytest.mark.skipif(LEGACY, reason="tf_keras saves no attributes of a model")
def test_a_checkpoint_with_an_average_loads_into_a_plain_model(small: Any, photos: Any, tmp_path: Path) -> None:
    small.compile("sgd", "sparse_categorical_crossentropy")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras")
    small.fit(*photos, 4, 1, callbacks=[EMA(0.9), saver], verbose=0)
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for ours, expected in zip(loaded.get_weights(), small.get_weights(), strict=True):
        assert np.array_equal(ours, expected)


def test_variables_without_decay_match_the_non_trainable_share_by_arithmetic() -> None:
    """Batch normalisation's share of the parameters that training changes, by arithmetic from the table."""
    built = create(VARIANTS["lite0"], classes=3)
    optimizer = RMSpropTF1(0.1, l2=1.0)
    optimizer.build(built.trainable_variables)
    sizes = {variable_key(optimizer, v): int(np.prod(v.shape)) for v in built.trainable_variables}
    cost = complexity(VARIANTS["lite0"], classes=3)
    assert sum(sizes[key] for key in optimizer._excluded) == cost.parameters - cost.trainable
