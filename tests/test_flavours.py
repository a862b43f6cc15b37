"""Exchange of weights between Keras 3 and tf_keras as .weights.h5; each runs in its own process."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.builders

CODE = """
import sys
import numpy as np
import keras_effnet
from keras_effnet._keras import LEGACY, keras

action, path, images, answer = sys.argv[1:]
keras.utils.set_random_seed(1)
model = keras_effnet.EfficientNetB0(weights=path if action == "by path" else None)
if action == "write":
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    model.save_weights(path)
if action == "by Keras":
    model.load_weights(path)
np.savez(answer, model.predict_on_batch(np.load(images)), *model.get_weights())
print("tf_keras" if LEGACY else "keras")
"""


def python(flavour, *arguments):
    env = {**os.environ, "TF_USE_LEGACY_KERAS": "1" if flavour == "tf_keras" else "0", "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == flavour


@pytest.mark.parametrize(("writer", "reader"), [("keras", "tf_keras"), ("tf_keras", "keras")])
def test_weights_h5_is_exchanged_between_keras_3_and_tf_keras(writer, reader, tmp_path, photo):
    for package in ("tensorflow", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path, images = tmp_path / "b0.weights.h5", tmp_path / "images.npy"
    np.save(images, photo(224))
    python(writer, "write", path, images, tmp_path / "there.npz")
    scores, *weights = np.load(tmp_path / "there.npz").values()
    for way in ("by path", "by Keras"):
        python(reader, way, path, images, tmp_path / "here.npz")
        crossed, *arrived = np.load(tmp_path / "here.npz").values()
        assert all(np.array_equal(a, b) for a, b in zip(arrived, weights, strict=True))
        assert np.abs(crossed - scores).max() <= 1e-6
        assert np.abs(np.log(crossed / scores)).max() <= 1e-4  # the two compile different graphs
