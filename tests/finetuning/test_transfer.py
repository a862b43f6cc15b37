"""A new head, frozen and trained blocks, and frozen batch normalisation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.finetuning.transfer import blocks_of, replace_head, split, unfreeze, with_frozen_trunk
from keras_effnet.introspection import find_network
from keras_effnet.models import create
from keras_effnet.variants import tiny

BLOCKS = ("stem", "block1a", "block2a", "block2b", "block3a", "top")


@pytest.fixture
def model(randomise: Any) -> Any:
    network = create(tiny(), classes=3, dropout_rate=0.0, drop_connect_rate=0.0)
    randomise(network)
    return network


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)).astype("float32")


def test_blocks_are_listed_from_input_to_output(model: Any) -> None:
    assert blocks_of(model) == BLOCKS


def test_a_new_head_uses_the_same_features(model: Any, images: np.ndarray, run: Any) -> None:
    replaced = replace_head(model, 5)
    kernel = np.random.default_rng(1).normal(size=(32, 5)).astype("float32")
    replaced.get_layer("predictions").set_weights([kernel, np.zeros(5, "float32")])
    features = run(keras.Model(model.input, model.get_layer("avg_pool").output), images)
    logits = features @ kernel
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(run(replaced, images), powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    assert replaced.get_layer("stem_conv") is model.get_layer("stem_conv")


def test_networks_without_a_head_and_nested_ones_get_a_head() -> None:
    bare = create(tiny(), include_top=False, input_shape=(32, 32, 3))
    image = keras.Input((32, 32, 3))
    nested = keras.Model(image, bare(image))
    assert replace_head(bare, 4).output_shape == replace_head(nested, 4).output_shape == (None, 4)


@pytest.mark.parametrize(("outputs", "start"), [(1, 41.5), (2, [41.5, -20.0]), (3, 7)])
def test_a_regression_starts_at_the_mean_of_its_targets(
    model: Any, images: np.ndarray, run: Any, outputs: int, start: Any
) -> None:
    found = run(replace_head(model, outputs, activation=None, start=start), images)
    assert np.allclose(found, np.broadcast_to(start, (len(images), outputs)), rtol=1e-3)


@pytest.mark.parametrize(("activation", "start"), [("softmax", 1.0), (None, [1.0, 2.0, 3.0])])
def test_a_start_that_does_not_fit_the_outputs_is_refused(model: Any, activation: Any, start: Any) -> None:
    with pytest.raises(ValueError, match="Expected one number, or one for each output, and activation=None"):
        replace_head(model, 2, activation=activation, start=start)


def test_a_model_with_feature_maps_gets_no_head() -> None:
    with pytest.raises(ValueError, match="ends in feature maps"):
        replace_head(create(tiny(), features=True), 4)


@pytest.mark.parametrize(
    ("stages", "first"),
    [(0, None), (1, "block3a"), (2, "block2a"), (3, "block1a"), ("block2b", "block2b"), ("top", "top")],
)
def test_everything_before_the_first_trained_block_is_frozen(model: Any, stages: int | str, first: str | None) -> None:
    unfreeze(model, stages)
    trained = {*(BLOCKS[BLOCKS.index(first) :] if first else ()), "predictions"}
    expected = {
        layer.name
        for layer in model.layers
        if layer.weights and layer.name.split("_")[0] in trained and not layer.name.endswith("_bn")
    }
    assert {layer.name for layer in model.layers if layer.trainable_weights} == expected


def flat_model() -> Any:
    return create(tiny(), classes=3)


def nested_model() -> Any:
    base = create(tiny(), include_top=False, pooling="avg", input_shape=(32, 32, 3))
    return keras.Sequential([keras.Input((32, 32, 3)), base, keras.layers.Dense(3, "softmax", name="predictions")])


def freeze_all(model: Any) -> None:
    model.trainable = False


def freeze_the_network(model: Any) -> None:
    model.layers[0].trainable = False


def train_all(model: Any) -> None:
    unfreeze(model, "stem")


@pytest.mark.parametrize("build", [flat_model, nested_model])
@pytest.mark.parametrize("before", [freeze_all, freeze_the_network, train_all])
def test_flags_set_earlier_do_not_matter(build: Any, before: Any, images: np.ndarray, tmp_path: Path) -> None:
    model = build()
    before(model)
    unfreeze(model, 1)
    # One kernel each: expand, depthwise, projection, last convolution; two each with bias: squeeze, excite, head.
    assert len(model.trainable_weights) == 10
    assert {tuple(weight.shape) for weight in model.trainable_weights} >= {(1, 1, 16, 32), (32, 3), (3,)}
    for name in ("model.keras",) if LEGACY else ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        assert len(keras.models.load_model(tmp_path / name, compile=False).trainable_weights) == 10
    network = find_network(model)
    old = {name: network.get_layer(name).get_weights()[0] for name in ("block3a_project_conv", "block2b_project_conv")}
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    model.fit(images, np.array([0, 1, 2, 0, 1, 2]), verbose=0)
    new = {name: network.get_layer(name).get_weights()[0] for name in old}
    assert [name for name in old if not np.array_equal(new[name], old[name])] == ["block3a_project_conv"]


def test_batch_normalisation_outside_the_network_is_trained() -> None:
    network = create(tiny(), include_top=False, pooling="avg", input_shape=(32, 32, 3))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(network.input, keras.layers.Dense(2)(norm(network.output)))
    unfreeze(model, 0)
    assert norm.trainable
    assert len(model.trainable_weights) == 4


@pytest.mark.parametrize("stages", [-1, 4, "block9a", "head"])
def test_unknown_blocks_are_rejected(model: Any, stages: int | str) -> None:
    with pytest.raises(ValueError, match=r"stages from 0 to 3.*block1a, block2a, block2b, block3a, top"):
        unfreeze(model, stages)


def test_training_changes_only_the_last_blocks_and_no_batch_normalisation(
    model: Any, images: np.ndarray, arrays: Any
) -> None:
    unfreeze(model, "block2b")
    before = arrays(model)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.fit(images, np.array([0, 1, 2, 0, 1, 2]), epochs=2, verbose=0)
    changed = {name for name, value in arrays(model).items() if not np.array_equal(value, before[name])}
    convolutions = ("block2b", "block3a", "top", "predictions")
    assert changed == {name for name in before if name.startswith(convolutions) and "_bn/" not in name}


@pytest.mark.parametrize("block", ["block1a", "block2b", "top"])
def test_the_two_parts_of_a_split_network_equal_the_network(
    model: Any, images: np.ndarray, run: Any, block: str
) -> None:
    trunk, tail = split(model, block)
    assert np.array_equal(run(tail, run(trunk, images)), run(model, images))


def test_a_frozen_trunk_has_no_stochastic_depth_in_training(images: np.ndarray, randomise: Any) -> None:
    model = create(tiny(), classes=3, dropout_rate=0.0, drop_connect_rate=0.9)
    randomise(model)
    still = np.asarray(model(images))
    unfreeze(model, "top")
    assert np.allclose(np.asarray(with_frozen_trunk(model, "top").whole(images, training=True)), still, atol=1e-5)
    assert not np.allclose(np.asarray(model(images, training=True)), still, atol=1e-4)
