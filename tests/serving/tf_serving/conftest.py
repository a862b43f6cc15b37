"""Fixtures of the serving tests: a small model with known answers, and a service for it in its own process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import keras
from keras_effnet.images import center_crop_and_resize, load_image
from keras_effnet.inference.fusion import fuse
from keras_effnet.models import create
from keras_effnet.serving.tf_saved_model import write_saved_model
from keras_effnet.variants import tiny

SIZE = 32
CLASSES = tuple((None, f"class {i}") for i in range(10))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model with two versions, four files, one of them not an image, and the predictions of Keras for the others."""
    keras.utils.set_random_seed(1)
    model = create(tiny(), classes=10, input_shape=(SIZE, SIZE, 3))
    kernel, bias = model.layers[-1].get_weights()
    kernel = np.random.default_rng(0).uniform(-16, 16, kernel.shape)  # the scores of a new network are all equal
    model.layers[-1].set_weights([kernel, bias])
    base = tmp_path_factory.mktemp("models") / "tiny"
    write_saved_model(fuse(model), base / "2", classes=CLASSES, size=SIZE, name="tiny")
    shutil.copytree(base / "2", base / "10")  # versions are numbers: 10 comes after 2

    rng = np.random.default_rng(1)
    files, photos = [], [rng.integers(0, 256, (5, 6, 3), dtype="uint8") for _ in range(3)]
    for i, (photo, suffix) in enumerate(zip(photos, ("png", "jpg", "png"), strict=True)):
        files.append(base.parent / f"{i}.{suffix}")
        Image.fromarray(photo).resize((64, 50)).save(files[-1])
    pixels = np.stack([center_crop_and_resize(load_image(file), SIZE) for file in files])
    probabilities = np.asarray(model.predict_on_batch(pixels))
    files.insert(1, base.parent / "none.jpg")
    files[1].write_bytes(b"no image")
    probabilities = np.insert(probabilities, 1, 0, axis=0)
    assert np.ptp(probabilities, axis=0).max() > 0.01
    return SimpleNamespace(model=model, base=base, files=files, probabilities=probabilities)


@pytest.fixture(scope="module")
def service(served, tmp_path_factory):
    """A PredictionService for the model, over gRPC on the loopback interface."""
    pytest.importorskip("grpc", reason="grpcio is not installed")
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    command = [sys.executable, str(Path(__file__).parent / "prediction_service.py"), str(served.base)]
    log = tmp_path_factory.mktemp("service") / "log.txt"
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("w") as errors, subprocess.Popen(command, stdout=-1, stderr=errors, text=True, env=quiet) as process:
        printed = process.stdout.readline()
        assert printed, log.read_text()[-3000:]
        yield SimpleNamespace(process=process, target=f"127.0.0.1:{int(printed)}", log=log)
        process.terminate()


@pytest.fixture(scope="session")
def message():
    """A function that builds a PredictRequest from named arrays."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    def make(inputs, signature="image_bytes", name="tiny"):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = name, signature
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        return request

    return make
