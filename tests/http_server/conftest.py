"""Fixtures of the HTTP server: a network of one dense layer, and a server that runs for all tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason="the extra `serve` is not installed")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved network of one dense layer: red, green and blue images are its classes."""
    from keras_effnet._keras import keras

    folder = tmp_path_factory.mktemp("colours")
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(3, 1, use_bias=False)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    network.layers[2].set_weights([np.eye(3, dtype=np.float32)[None, None]])
    network.layers[-1].set_weights([5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    network.save(folder / "colours.keras")
    (folder / "labels.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    return str(folder / "colours.keras")


@pytest.fixture(scope="session")
def site(colours: str) -> Iterator[Any]:
    """The server of most tests."""
    from http_server_run import running

    from keras_effnet.http_server.settings import Settings

    with running(Settings(model=colours, engine="keras", port=0)) as server:
        yield server


@pytest.fixture(scope="session")
def exported(colours: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as a .tflite file, which new processes load in a second."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    from keras_effnet.inference.classifier import load_classifier
    from keras_effnet.serving.exporting import export

    path = tmp_path_factory.mktemp("export") / "colours.tflite"
    export(load_classifier(colours), path)
    return path
