"""The networks of Table 3, compared with `keras.applications` and with the FLOPS in the paper."""

from pathlib import Path

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.design import rivals
from keras_effnet.design.rival_tables import RIVALS, mobilenet, mobilenet_v2, resnet50, rival_layers, rival_macs

PEERS = {"MobileNetV1": "MobileNet", "MobileNetV2": "MobileNetV2", "ResNet50": "ResNet50"}
# `model.count_params()` of keras.applications 3.15.
PARAMETERS = {"MobileNetV1": 4_253_864, "MobileNetV2": 3_538_984, "ResNet-50": 25_636_712}
# arXiv:1905.11946, Table 3: depth, width, resolution, FLOPS in units of 1e9.
TABLE_3 = [
    ("MobileNetV1", 1, 2, 1, 2.2),
    ("MobileNetV1", 1, 1, 2, 2.2),
    ("MobileNetV1", 1.4, 1.2, 1.3, 2.3),
    ("MobileNetV2", 1, 1, 1, 0.3),
    ("MobileNetV2", 4, 1, 1, 1.2),
    ("MobileNetV2", 1, 2, 1, 1.1),
    ("MobileNetV2", 1, 1, 2, 1.2),
    ("MobileNetV2", 1.4, 1.2, 1.3, 1.3),
]


@pytest.mark.parametrize("name", PEERS)
def test_logits_match_keras_applications_with_its_weights(name, randomise, run, tmp_path: Path):
    theirs = getattr(keras.applications, PEERS[name])(weights=None, classifier_activation=None)
    randomise(theirs)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    ours = getattr(rivals, name)(weights=tmp_path / "theirs.weights.h5", classifier_activation=None)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype("float32")
    expected = run(theirs, images)
    assert np.abs(run(ours, images) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", PEERS)
def test_layers_with_weights_have_the_names_of_keras_applications(name):
    theirs = getattr(keras.applications, PEERS[name])(weights=None)
    ours = getattr(rivals, name)()
    assert [layer.name for layer in ours.layers if layer.weights] == [
        layer.name for layer in theirs.layers if layer.weights
    ]


def test_the_published_weights_are_copied_by_name(randomise, monkeypatch):
    theirs = keras.applications.MobileNetV2(weights=None)
    randomise(theirs)
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda weights: theirs)
    ours = rivals.MobileNetV2(weights="imagenet")
    np.testing.assert_array_equal(ours.get_layer("block_7_project").kernel, theirs.get_layer("block_7_project").kernel)


def test_published_weights_for_a_scaled_network_are_rejected(monkeypatch):
    theirs = keras.applications.MobileNetV2(weights=None)
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda weights: theirs)
    with pytest.raises(ValueError, match=r"do not fit .*Leave depth, width and resolution at 1.0"):
        rivals.MobileNetV2(width=0.5, weights="imagenet")
    with pytest.raises(ValueError, match="classes is 10 with weights='imagenet'"):
        rivals.MobileNetV2(classes=10, weights="imagenet")


@pytest.mark.parametrize("name", PARAMETERS)
def test_computed_parameters_match_keras_applications(name):
    assert sum(layer.parameters for layer in rival_layers(RIVALS[name]())) == PARAMETERS[name]


@pytest.mark.parametrize("row", TABLE_3, ids=str)
def test_multiply_adds_are_within_five_percent_of_table_3(row):
    name, depth, width, resolution, flops = row
    assert rival_macs(RIVALS[name](depth, width, resolution)) / 1e9 == pytest.approx(flops, rel=0.05)


def test_multiply_adds_match_the_original_papers():
    assert round(rival_macs(mobilenet()) / 1e6) == 569  # arXiv:1704.04861, Table 4
    assert round(rival_macs(mobilenet_v2()) / 1e6) == 301  # arXiv:1801.04381, Table 4: 300M
    assert rival_macs(resnet50()) / 1e9 == pytest.approx(3.8, rel=0.02)  # arXiv:1512.03385, Table 1
    assert rival_macs(resnet50(strides_in="middle")) / 1e9 == pytest.approx(4.1, rel=0.01)


@pytest.mark.parametrize("scaled", [mobilenet, mobilenet_v2, resnet50])
def test_the_graph_has_the_computed_parameters_and_sizes(scaled):
    builder = {mobilenet: rivals.MobileNetV1, mobilenet_v2: rivals.MobileNetV2, resnet50: rivals.ResNet50}[scaled]
    rival = scaled(1.4, 0.3, 0.4)
    model = builder(1.4, 0.3, 0.4, classes=10)
    rows = list(rival_layers(rival, classes=10))
    assert model.count_params() == sum(row.parameters for row in rows)
    for row in rows[:-1]:
        assert tuple(model.get_layer(row.name).output.shape[1:]) == (row.output_size, row.output_size, row.filters)


def test_depth_adds_blocks_without_strides():
    shapes = [layer.output_size for layer in rival_layers(mobilenet_v2(4.0))]
    assert shapes[-2] == 7
    assert sum(name.endswith("_depthwise") for name in (row.name for row in rival_layers(mobilenet_v2(4.0)))) == 4 * 17


def test_another_place_for_the_strides_of_resnet_is_rejected():
    with pytest.raises(ValueError, match="strides_in is 'last'. Expected 'first' or 'middle'"):
        resnet50(strides_in="last")
