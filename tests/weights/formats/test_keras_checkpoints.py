"""TensorFlow checkpoints and SavedModels of Keras's models, written by the installed Keras and TensorFlow."""

import logging

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.models import create
from keras_effnet.normalization import LITE
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.keras_checkpoints import ObjectGraph
from keras_effnet.weights.loading import load_weights
from keras_effnet.weights.opening import open_weights

SHAPE = (32, 32, 3)

pytestmark = pytest.mark.builders


@pytest.fixture(scope="module")
def tf():
    if not LEGACY and keras.backend.backend() != "tensorflow":
        pytest.skip("Keras does not run on TensorFlow")
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def flat(tf, randomise):
    """A network whose optimizer has two copies of every variable."""
    model = create(tiny(), classes=5, input_shape=SHAPE, include_preprocessing=True)
    randomise(model)
    model.compile("adam", "mse", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def nested(tf, randomise):
    """A network under layers of one's own."""
    inner = create(tiny(), include_top=False, pooling="avg", input_shape=SHAPE)
    randomise(inner)
    layers = [keras.Input(SHAPE), keras.layers.RandomFlip(), inner, keras.layers.Dense(3, name="mine")]
    return keras.Sequential(layers), inner


def write_checkpoint(tf, model, folder):
    return tf.train.Checkpoint(model=model).write(str(folder / "ck"))


def save_checkpoint(tf, model, folder):
    counter = tf.Variable(7, dtype="int64")
    tf.train.Checkpoint(net=model, opt=getattr(model, "optimizer", None) or tf.Module(), step=counter).save(
        str(folder / "ck")
    )
    return folder


def save_weights(tf, model, folder):
    if not LEGACY:
        pytest.skip("only Keras 2 writes checkpoints with save_weights")
    model.save_weights(str(folder / "ck"))
    return folder


def saved_model(tf, model, folder):
    if LEGACY:
        model.save(str(folder / "sm"), save_format="tf")
    else:
        model.export(str(folder / "sm"), verbose=False)
    return folder / "sm"


WRITERS = [write_checkpoint, save_checkpoint, save_weights, *([saved_model] if LEGACY else [])]


@pytest.mark.parametrize("write", WRITERS)
def test_a_network_is_read(tf, flat, arrays, tmp_path, write):
    checkpoint = read_checkpoint(write(tf, flat, tmp_path), tiny())
    expected = arrays(flat)
    assert checkpoint.layout == "keras-checkpoint"
    assert checkpoint.state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint.state[name], array)


@pytest.mark.parametrize("write", [write_checkpoint, save_weights, saved_model])
def test_a_nested_network_is_read_without_the_layers_around_it(tf, nested, arrays, tmp_path, write, caplog):
    model, inner = nested
    state = read_checkpoint(write(tf, model, tmp_path), tiny()).state
    expected = arrays(inner)
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)
    assert "Ignored 2 arrays outside the network" in caplog.text
    assert "mine/kernel" in caplog.text


def test_any_file_of_a_checkpoint_can_be_given(tf, flat, arrays, tmp_path):
    write_checkpoint(tf, flat, tmp_path)
    other = create(tiny(), classes=5, input_shape=SHAPE, include_preprocessing=True)
    for name in ("ck", "ck.index", "ck.data-00000-of-00001", ""):
        load_weights(other, tmp_path / name)
        np.testing.assert_array_equal(arrays(other)["predictions/kernel"], arrays(flat)["predictions/kernel"])


def test_pixels_are_normalised_as_the_file_specifies_or_a_warning_names_the_guess(tf, tmp_path, caplog):
    network = create(tiny(), classes=2, input_shape=SHAPE, include_preprocessing=False)
    image = keras.Input(SHAPE)
    model = keras.Model(image, network(keras.layers.Rescaling(1 / 128, offset=-127 / 128)(image)))
    with caplog.at_level(logging.WARNING):
        open_weights(tiny(), write_checkpoint(tf, model, tmp_path))
    assert "does not specify how its pixels are normalised. Assumed mean 123.675" in caplog.text
    assert "Save the whole model with Keras" in caplog.text
    if LEGACY:  # only Keras 2 stores the configuration in a SavedModel
        folder = saved_model(tf, model, tmp_path)
        for path in (folder, folder / "saved_model.pb"):
            caplog.clear()
            assert open_weights(tiny(), path).normalization == LITE
            assert not caplog.records


def test_normalization_layer_of_keras_applications_is_read(tf, tmp_path):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), keras.layers.Normalization()])
    model.layers[-1].set_weights([np.float32([0.2, 0.3, 0.4]), np.float32([0.04, 0.09, 0.16]), np.array(0)])
    network = create(tiny(), classes=2, input_shape=SHAPE, include_preprocessing=False)
    whole = keras.Model(model.inputs, network(model.outputs[0]))
    found = open_weights(tiny(), write_checkpoint(tf, whole, tmp_path)).normalization
    np.testing.assert_allclose([found.mean, found.std], 255 * np.array([[0.2, 0.3, 0.4]] * 2), rtol=1e-5)


def test_two_networks_with_the_same_names_are_rejected(tf, flat, randomise, tmp_path):
    average = keras.models.clone_model(flat)
    randomise(average, seed=1)
    tf.train.Checkpoint(model=flat, average=average).write(str(tmp_path / "ck"))
    with pytest.raises(WeightsError, match=r"two variables '\w+/\w+': \w+/.* and \w+/.*Save the one that you want"):
        read_checkpoint(tmp_path / "ck", tiny())


def test_another_network_is_rejected(tf, flat, tmp_path):
    with pytest.raises(WeightsError, match="do not belong to tiny .*block1a_se_reduce/kernel"):
        read_checkpoint(write_checkpoint(tf, flat, tmp_path), tiny(se_ratio=0.0))


def test_variables_without_known_names_are_named_with_a_way_out(tf, tmp_path):
    tf.train.Checkpoint(kernel=tf.Variable([1.0], name="mine")).write(str(tmp_path / "ck"))
    for path in (tmp_path, tmp_path / "ck"):
        with pytest.raises(WeightsError, match=r"a checkpoint of TensorFlow whose variables .*: mine.*weights\.h5"):
            read_checkpoint(path, tiny())
    module = tf.Module()
    module.kernel = tf.Variable([1.0], name="mine")
    tf.saved_model.save(module, str(tmp_path / "sm"))
    for path in (tmp_path / "sm", tmp_path / "sm" / "variables" / "variables"):
        with pytest.raises(WeightsError, match=r"a SavedModel of TensorFlow whose variables .*: mine.*tf_keras"):
            read_checkpoint(path, tiny())
    tf.saved_model.save(tf.Module(), str(tmp_path / "constant"))
    with pytest.raises(WeightsError, match=r"a SavedModel of TensorFlow .*none \(its weights may be constants"):
        read_checkpoint(tmp_path / "constant", tiny())


def test_names_of_variables_are_those_of_keras(tf, flat, tmp_path):
    from keras_effnet.weights.formats.checkpoint_bundle import Bundle

    write_checkpoint(tf, flat, tmp_path)
    names = set(ObjectGraph(Bundle(tmp_path / "ck")).datasets)
    assert {"stem_conv/kernel", "stem_bn/moving_mean", "predictions/bias"} <= names
    assert not any("adam" in name.lower() for name in names)
