"""What the tests of the commands share."""

from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import keras


@pytest.fixture(scope="session")
def colours() -> Any:
    """A network of one dense layer that tells red, green and blue apart."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    network = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    network.layers[-1].set_weights([5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return network
