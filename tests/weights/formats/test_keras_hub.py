"""Files of KerasHub: of its own networks where it is installed, and of networks with its published layer names."""

import json
import logging

import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.models import create
from keras_effnet.normalization import MINUS_ONE_TO_ONE, PYTORCH, Framework
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.keras_hub import normalization_of_hub
from keras_effnet.weights.opening import open_weights

SHAPE = (33, 33, 3)  # odd, so that padding matters
CONFIG = {"registered_name": "keras_hub>EfficientNetBackbone", "config": {"batch_norm_epsilon": 1e-5}}
CONVERTER = {"class_name": "EfficientNetImageConverter", "config": {"scale": [1 / 127.5] * 3, "offset": [-1.0] * 3}}

pytestmark = pytest.mark.skipif(LEGACY, reason="KerasHub needs Keras 3")


def name_in_hub(layer):
    if layer.endswith("project_conv"):
        return layer.removesuffix("_conv")
    block, _, last = layer.rpartition("_")
    return f"{block}_dwconv_bn" if last == "bn" and block.startswith("block") and block[-1].islower() else layer


def rename(layer):
    config = layer.get_config()
    return layer.__class__.from_config({**config, "name": name_in_hub(layer.name) if layer.weights else layer.name})


@pytest.fixture(scope="module")
def networks(randomise):
    """A network of ours, and its backbone and the whole of it with the names of KerasHub."""
    ours = create(tiny(), classes=5, input_shape=SHAPE, include_preprocessing=False, framework="pytorch")
    randomise(ours)
    copy = keras.models.clone_model(ours, clone_function=rename)
    copy.set_weights(ours.get_weights())
    assert copy.get_layer("block1a_dwconv_bn") and copy.get_layer("block2a_project")  # noqa: PT018
    backbone = keras.Model(copy.input, copy.get_layer("top_bn").output, name="efficient_net_backbone")
    head = keras.layers.Dense(5, name="predictions")
    task = keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D(), head])
    task.build((None, *SHAPE))
    head.set_weights(ours.get_layer("predictions").get_weights())
    return ours, backbone, task


def write_preset(folder, backbone, head, *, converter=CONVERTER, config=CONFIG):
    folder.mkdir()
    backbone.save_weights(folder / "model.weights.h5")
    keras.Sequential([keras.Input(head.input.shape[1:]), head]).save_weights(folder / "task.weights.h5")
    (folder / "config.json").write_text(json.dumps(config))
    if converter:
        (folder / "preprocessor.json").write_text(json.dumps({"config": {"image_converter": converter}}))
    return folder


def assert_same(state, model, arrays, *, but=()):
    expected = {name: array for name, array in arrays(model).items() if not name.startswith(but or ("\0",))}
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)


def test_preset_gives_weights_normalisation_and_framework(networks, arrays, tmp_path):
    ours, backbone, task = networks
    folder = write_preset(tmp_path / "preset", backbone, task.layers[-1])
    for path in (folder, folder / "model.weights.h5", folder / "task.weights.h5"):
        found = open_weights(tiny(), path)
        assert_same(found.state, ours, arrays)
        assert found.normalization.close_to(MINUS_ONE_TO_ONE)
        assert found.framework == PYTORCH


def test_weights_of_backbones_and_tasks_are_read(networks, arrays, tmp_path, caplog):
    ours, backbone, task = networks
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    task.save_weights(tmp_path / "task.weights.h5")
    found = read_checkpoint(tmp_path / "backbone.weights.h5", tiny())
    assert (found.layout, found.framework, found.normalization) == ("keras-hub", PYTORCH, None)
    assert_same(found.state, ours, arrays, but=("predictions",))
    with caplog.at_level(logging.WARNING):
        assert_same(open_weights(tiny(), tmp_path / "task.weights.h5").state, ours, arrays)
    assert "Pass the preset folder with its preprocessor.json or image_converter.json" in caplog.text


def test_epsilon_and_converter_come_from_the_configuration(networks, tmp_path):
    _, backbone, task = networks
    config = {**CONFIG, "config": {"batch_norm_epsilon": 1e-3}}
    folder = write_preset(tmp_path / "preset", backbone, task.layers[-1], config=config, converter=None)
    assert read_checkpoint(folder, tiny()).normalization is None
    (folder / "image_converter.json").write_text(json.dumps(CONVERTER))
    found = read_checkpoint(folder, tiny())
    assert found.framework == Framework("pytorch", "symmetric", 1e-3)
    assert found.normalization.close_to(MINUS_ONE_TO_ONE)


@pytest.mark.parametrize("scale", [0, [1, -1, 1], float("nan")])
def test_impossible_converter_is_rejected(scale):
    with pytest.raises(WeightsError, match="The image converter has the scale"):
        normalization_of_hub({"config": {**CONVERTER, "config": {"scale": scale}}})


def test_converter_without_numbers_does_not_change_pixels():
    found = normalization_of_hub({"class_name": "ImageConverter", "config": {"scale": None, "offset": None}})
    assert (found.mean, found.std) == ((0.0,) * 3, (1.0,) * 3)


@pytest.mark.filterwarnings("ignore")
def test_network_of_keras_hub_gives_equal_logits(randomise, run, tmp_path):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")
    stages = tiny().stages
    backbone = hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * len(stages),
        stackwise_depth_coefficients=[1.0] * len(stages),
        stackwise_kernel_sizes=[stage.kernel_size for stage in stages],
        stackwise_num_repeats=[stage.repeats for stage in stages],
        stackwise_input_filters=[8, *(stage.filters for stage in stages[:-1])],
        stackwise_output_filters=[stage.filters for stage in stages],
        stackwise_expansion_ratios=[stage.expand_ratio for stage in stages],
        stackwise_strides=[stage.strides for stage in stages],
        stackwise_squeeze_and_excite_ratios=[0.25] * len(stages),
        stackwise_block_types=["v1"] * len(stages),
        stackwise_force_input_filters=[0] * len(stages),
        dropout=0,
        num_features=32,
    )
    randomise(backbone)
    task = hub.models.EfficientNetImageClassifier(
        backbone=backbone,
        num_classes=5,
        preprocessor=hub.models.EfficientNetImageClassifierPreprocessor(
            image_converter=hub.layers.EfficientNetImageConverter(scale=[1 / 127.5] * 3, offset=[-1.0] * 3)
        ),
    )
    task.save_to_preset(str(tmp_path / "preset"))
    task.save(tmp_path / "task.keras")
    images = np.random.default_rng(0).uniform(-1, 1, (2, *SHAPE)).astype("float32")
    for path in (tmp_path / "preset", tmp_path / "task.keras"):
        options = {"classes": 5, "classifier_activation": None, "input_shape": SHAPE, "weights": path}
        ours = create(tiny(), include_preprocessing=False, **options)
        np.testing.assert_allclose(run(ours, images), run(task, images), rtol=1e-5, atol=1e-5)
        assert open_weights(tiny(), path).normalization.close_to(MINUS_ONE_TO_ONE)
