"""Fine-tuning keeps what a model does to its pixels before its network."""

from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.finetuning.pixels import with_same_pixels
from keras_effnet.finetuning.transfer import replace_head
from keras_effnet.imagenet import normalizes_inside
from keras_effnet.inference.classifier import as_classifier
from keras_effnet.models import create
from keras_effnet.variants import tiny

layers = keras.layers
SIZE = 32


def bare(*, normalizes: bool) -> Any:
    return create(
        tiny(), weights=None, include_top=False, include_preprocessing=normalizes, input_shape=(SIZE, SIZE, 3)
    )


def outer(network: Any, *before: Any) -> Any:
    after = (layers.GlobalAveragePooling2D(), layers.Dense(2, "softmax"))
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *before, network, *after])


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize(
    ("before", "scale", "offset"),
    [
        ([lambda: layers.Rescaling(1 / 127, -1)], 1 / 127, -1),
        ([lambda: layers.RandomFlip(), lambda: layers.Rescaling(2.0), lambda: layers.Resizing(SIZE, SIZE)], 2, 0),
    ],
    ids=["rescaling", "augmentation"],
)
def test_a_rescaling_in_front_of_the_network_is_kept(
    before: Any, scale: float, offset: float, normalizes: bool
) -> None:
    network = bare(normalizes=normalizes)
    model = outer(network, *(make() for make in before))
    ours = with_same_pixels(replace_head(model, 3), as_classifier(model))
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    seen = keras.Model(ours.input, ours.get_layer("top_activation").output).predict(images, verbose=0)
    np.testing.assert_allclose(seen, network.predict(images * scale + offset, verbose=0), rtol=1e-3, atol=1e-4)
    assert ours.output_shape == (None, 3)
    assert normalizes_inside(ours)


def test_a_network_that_normalises_is_not_copied() -> None:
    network = create(tiny(), weights=None, classes=4, input_shape=(SIZE, SIZE, 3))
    replaced = replace_head(network, 3)
    assert with_same_pixels(replaced, as_classifier(network)) is replaced


def test_a_published_network_without_normalisation_gets_its_own() -> None:
    network = bare(normalizes=False)
    network.name = "efficientnetlite0"
    model = keras.Model(network.input, layers.GlobalAveragePooling2D()(network.output), name="efficientnetlite0")
    ours = with_same_pixels(replace_head(model, 3), as_classifier(model))
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    seen = keras.Model(ours.input, ours.get_layer("top_activation").output).predict(images, verbose=0)
    np.testing.assert_allclose(seen, network.predict((images - 127) / 128, verbose=0), rtol=1e-3, atol=1e-4)


def test_other_changes_of_the_pixels_are_refused() -> None:
    model = outer(bare(normalizes=True), layers.Conv2D(3, 1, activation="relu"))
    with pytest.raises(ValueError, match="by more than a scale and an offset for each channel"):
        with_same_pixels(replace_head(model, 3), as_classifier(model))
