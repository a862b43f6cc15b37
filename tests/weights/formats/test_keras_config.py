"""Normalisation that is stored only in the configuration of a saved model; the models are built and saved by Keras."""

import json
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.models import create
from keras_effnet.normalization import LITE, MINUS_ONE_TO_ONE, TENSORFLOW, ZERO_TO_ONE, Normalization
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.keras_config import framework_in, normalization_in

SIZE = 64
OWN = Normalization((10.0, 20.0, 30.0), (2.0, 3.0, 4.0))

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


@pytest.fixture
def network(randomise):
    """A network without normalisation; layers in front of it normalise the pixels."""
    model = create(tiny(), classes=10, input_shape=(SIZE, SIZE, 3), include_preprocessing=False, name="inside")
    randomise(model)
    return model


def behind(network, *layers):
    image = x = keras.Input((SIZE, SIZE, 3))
    for layer in layers:
        x = layer(x)
    return keras.Model(image, network(x))


def adapted():
    layer = keras.layers.Normalization(axis=-1)
    layer.adapt(np.random.default_rng(0).normal([10, 20, 30], [2, 3, 4], (2, 50, 50, 3)).astype("float32"))
    return layer


BEFORE = {
    "Rescaling": lambda: [keras.layers.Rescaling(1 / 128, offset=-127 / 128)],
    "two Rescalings": lambda: [keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(2.0, offset=-1.0)],
    "one constant per channel": lambda: [keras.layers.Rescaling([1 / 2, 1 / 3, 1 / 4], offset=[-5, -20 / 3, -7.5])],
    "Normalization with constants": lambda: [keras.layers.Normalization(mean=[10, 20, 30], variance=[4, 9, 16])],
    "adapted Normalization": lambda: [adapted()],
    "both": lambda: [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Normalization(mean=[0.485, 0.456, 0.406], variance=np.square([0.229, 0.224, 0.225]).tolist()),
    ],
    "augmentation before": lambda: [keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)],
    "augmentation in a nested model": lambda: [
        keras.Sequential([keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)]),
    ],
}


@pytest.mark.parametrize(("kind", "suffix"), [*((kind, ".keras") for kind in BEFORE), ("both", ".h5")])
def test_normalization_of_a_saved_model_is_reproduced(kind, suffix, network, photo, run, tmp_path):
    theirs = behind(network, *BEFORE[kind]())
    theirs.save(tmp_path / f"file{suffix}")
    ours = create(tiny(), classes=10, weights=tmp_path / f"file{suffix}", input_shape=(SIZE, SIZE, 3))
    expected = run(partial(theirs, training=False), photo(SIZE))  # otherwise augmentation is active
    assert np.abs(run(ours, photo(SIZE)) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.skipif(LEGACY, reason="tf_keras saves operators as TensorFlow functions")
@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [
        (lambda x: x / 255, ZERO_TO_ONE),
        (lambda x: x / 127.5 - 1, MINUS_ONE_TO_ONE),
        (lambda x: (x + -127) * (1 / 128), LITE),
    ],
)
def test_arithmetic_operators_are_read(arithmetic, expected, network, tmp_path):
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, network(arithmetic(image))).save(tmp_path / "file.keras")
    assert read_checkpoint(tmp_path / "file.keras", tiny()).normalization == expected


@pytest.mark.parametrize("normalization", [LITE, OWN])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_our_own_saved_models_keep_their_normalization(normalization, suffix, tmp_path):
    create(replace(tiny(), normalization=normalization)).save(tmp_path / f"file{suffix}")
    assert read_checkpoint(tmp_path / f"file{suffix}", tiny()).normalization.close_to(normalization)


@pytest.mark.parametrize("inside", [False, True])
def test_nested_sequential_models_are_read(inside, network, tmp_path):
    layers = [keras.Input((SIZE, SIZE, 3)), keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 128, -127 / 128)]
    model = keras.Sequential([*layers, network])
    if inside:
        model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), model])
    model.save(tmp_path / "file.keras")
    assert read_checkpoint(tmp_path / "file.keras", tiny()).normalization == LITE


def test_model_without_normalization_gives_none(network, tmp_path):
    network.save(tmp_path / "file.keras")
    assert read_checkpoint(tmp_path / "file.keras", tiny()).normalization is None


def square(x):
    return x * x


class Squaring(keras.layers.Layer):
    """A custom layer, whose effect is not stored in a file."""

    def call(self, x):
        return x * x


REFUSED = {
    "code": (lambda image: keras.layers.Lambda(square)(image), "a layer 'Lambda'"),
    "a custom class": (lambda image: Squaring()(image), "a layer 'Squaring'"),
    "two branches": (
        lambda image: keras.layers.Average()([keras.layers.Rescaling(2.0)(image), image]),
        "the output of more than one",
    ),
    "a negative": (lambda image: keras.layers.Rescaling(-1.0)(image), r"the operation pixels \* \[-1\.\]"),
}


@pytest.mark.parametrize(("kind", "suffix"), [*((kind, ".keras") for kind in REFUSED), ("code", ".h5")])
def test_unsupported_preprocessing_is_rejected(kind, suffix, network, tmp_path):
    layer, message = REFUSED[kind]
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, network(layer(image))).save(tmp_path / f"file{suffix}")
    with pytest.raises(WeightsError, match=f"The model in the file has {message}.*between the image and"):
        read_checkpoint(tmp_path / f"file{suffix}", tiny())


def test_network_under_a_custom_head_is_read_without_the_head(network, tmp_path, caplog):
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), network, keras.layers.Dense(3, name="mine")])
    model.save(tmp_path / "file.keras")
    network.save_weights(tmp_path / "alone.weights.h5")
    state = read_checkpoint(tmp_path / "file.keras", tiny()).state
    alone = read_checkpoint(tmp_path / "alone.weights.h5", tiny()).state
    assert state.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(state[name], array)
    assert any("Ignored 2 arrays outside the network" in message for message in caplog.messages)


def test_division_by_a_list_in_a_model_of_keras_2_is_read():
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input_1"}, "inbound_nodes": []},
        {
            "class_name": "Rescaling",
            "config": {"name": "rescaling", "scale": 1 / 255, "offset": 0.0},
            "inbound_nodes": [[["input_1", 0, 0, {}]]],
        },
        {
            "class_name": "TFOpLambda",
            "config": {"name": "tf.math.truediv", "function": "math.truediv"},
            "inbound_nodes": [["rescaling", 0, 0, {"y": [[[[0.1, 0.2, 0.4]]]], "name": None}]],
        },
        {
            "class_name": "Conv2D",
            "config": {"name": "stem_conv"},
            "inbound_nodes": [[["tf.math.truediv", 0, 0, {}]]],
        },
    ]
    found = normalization_in({"class_name": "Functional", "config": {"layers": layers}}, None)
    assert found.close_to(Normalization((0.0, 0.0, 0.0), (25.5, 51.0, 102.0)))
    layers[2]["config"]["function"] = "math.pow"
    with pytest.raises(WeightsError, match="a layer 'TFOpLambda'"):
        normalization_in({"class_name": "Functional", "config": {"layers": layers}}, None)


@pytest.mark.parametrize(
    "config",
    [
        '{"class_name": "Functional", "config": {"layers": [{"class_name": "Conv2D"}]}}',
        '{"class_name": "Functional", "config": {"layers": 3}}',
        '{"class_name": "Sequential", "config": {"layers": [{"class_name": "Rescaling"}, {"class_name": "Conv2D"}]}}',
        "[" * 100_000,
        "{",
    ],
)
def test_malformed_configuration_raises_weights_error(config, network, tmp_path):
    network.save(tmp_path / "file.keras")
    with (
        zipfile.ZipFile(tmp_path / "file.keras") as sound,
        zipfile.ZipFile(tmp_path / "altered", "w") as altered,
    ):
        altered.writestr("model.weights.h5", sound.read("model.weights.h5"))
        altered.writestr("config.json", config)
    with pytest.raises(WeightsError, match="Expected"):
        read_checkpoint(tmp_path / "altered", tiny())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_whole_saved_model_keeps_its_padding_and_epsilon(suffix, randomise, photo, run, tmp_path):
    theirs = create(tiny(), classes=10, framework="pytorch", input_shape=(None, None, 3))
    randomise(theirs)
    theirs.save(tmp_path / f"file{suffix}")
    ours = create(tiny(), classes=10, weights=tmp_path / f"file{suffix}", input_shape=(None, None, 3))
    for size in (64, 65):
        expected = run(theirs, photo(size))
        assert np.abs(run(ours, photo(size)) - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(WeightsError, match="framework is 'tensorflow', but"):
        create(tiny(), classes=10, weights=tmp_path / f"file{suffix}", framework="tensorflow")


@pytest.mark.parametrize("size", [None, 32, 65])
def test_keras_applications_is_read_as_tensorflow_padding_at_any_size(size, tmp_path):
    model = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(size, size, 3))
    config = {"class_name": "Functional", "config": json.loads(model.to_json())["config"]}
    assert framework_in(config) == TENSORFLOW


def test_cyclic_layers_are_rejected(tmp_path):
    def layer(kind, name, before):
        history = {"class_name": "__keras_tensor__", "config": {"keras_history": [before, 0, 0]}}
        return {"class_name": kind, "config": {"name": name}, "inbound_nodes": [{"args": [history], "kwargs": {}}]}

    layers = [layer("Rescaling", "a", "b"), layer("Rescaling", "b", "a"), layer("Conv2D", "stem_conv", "a")]
    with pytest.raises(WeightsError, match="between the image and the first convolution"):
        normalization_in(json.loads(json.dumps({"class_name": "Functional", "config": {"layers": layers}})), None)
