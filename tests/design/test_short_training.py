"""Short training on small sets of photos, the score of searches and studies."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import keras
from keras_effnet.design.photo_arrays import PhotoArrays, load_split, square
from keras_effnet.design.short_training import ShortTraining, accuracies, accuracy
from keras_effnet.variants import tiny


@pytest.fixture(scope="module")
def stripes() -> PhotoArrays:
    """Noisy stripes, vertical or horizontal, which no single pixel can distinguish."""
    rng, count = np.random.default_rng(0), 96
    labels = np.arange(count) % 2
    waves = 60 * np.sin(np.arange(32) * 1.5 + rng.uniform(0, 6, (count, 1)))
    images = np.where(labels[:, None, None] == 0, waves[:, :, None], waves[:, None, :])
    pixels = 128 + images[..., None] + rng.normal(0, 20, (count, 32, 32, 3))
    return PhotoArrays(pixels.clip(0, 255).astype("uint8"), labels, ("horizontal", "vertical"))


def test_folds_hold_out_each_photo_once_and_equal_parts_of_each_class(stripes: PhotoArrays):
    numbered = PhotoArrays(np.arange(96, dtype="uint8").reshape(96, 1, 1, 1), stripes.labels, stripes.classes)
    folds = [numbered.fold(i, 3) for i in range(3)]
    assert sorted(np.concatenate([fold.held_out.images.ravel() for fold in folds])) == list(range(96))
    for fold in folds:
        assert not set(fold.training.images.ravel()) & set(fold.held_out.images.ravel())
        assert np.bincount(fold.held_out.labels).tolist() == [16, 16]
    assert (numbered.fold(0, 3, seed=1).held_out.images != folds[0].held_out.images).any()


@pytest.mark.parametrize(("index", "folds"), [(3, 3), (-1, 3), (0, 1), (0, 49)])
def test_an_impossible_fold_is_rejected(stripes: PhotoArrays, index: int, folds: int):
    with pytest.raises(
        ValueError, match=f"index is {index} and folds is {folds}, and the smallest class has 48 photos"
    ):
        stripes.fold(index, folds)


def test_photos_are_read_as_their_central_squares(tmp_path: Path):
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        image = np.zeros((30, 50, 3), "uint8")
        image[:, 10:40] = 200
        Image.fromarray(image).save(tmp_path / part / name / "1.png")
    split = load_split(tmp_path, 16)
    assert split.training.classes == ("a", "b")
    assert split.together().labels.tolist() == [0, 1, 0, 1]
    assert (split.training.images == 200).all()
    (tmp_path / "train" / "a" / "2.png").write_bytes(b"no photo")
    with pytest.raises(ValueError, match="1 of 3 photos cannot be read. The first: .*2.png"):
        load_split(tmp_path, 16)


def test_a_square_equals_a_crop_and_resize_with_pillow():
    image = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype="uint8")
    theirs = Image.fromarray(image).crop((10, 0, 50, 40)).resize((20, 20), Image.Resampling.BICUBIC)
    assert (square(image, 20) == np.asarray(theirs)).all()


def test_a_network_learns_and_the_next_seed_in_the_same_graph_starts_afresh(stripes: PhotoArrays):
    splits, training = [stripes.fold(i, 2) for i in range(2)], ShortTraining(epochs=6, batch_size=16, seed=1)
    together = accuracies(tiny(), splits, training, seeds=[0, 1])
    assert min(together) > 0.8
    # The second alone gives the same: no state of the first remains in weights, Adam or batch normalisation.
    assert accuracy(tiny(), splits[1], training) == together[1]


def test_fewer_photos_than_a_batch_are_rejected(stripes: PhotoArrays):
    with pytest.raises(ValueError, match="There are 48 photos .* batches of 64. Expected at least one epoch"):
        accuracy(tiny(), stripes.fold(0, 2), ShortTraining(batch_size=64))


def test_the_callers_models_layer_names_and_random_numbers_are_left_alone(stripes: PhotoArrays):
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    scores, draws = model.predict(np.ones((4, 3)), verbose=0), []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        accuracy(tiny(), stripes.fold(0, 2), ShortTraining(epochs=1, batch_size=16))
        noise = np.asarray(keras.initializers.RandomNormal()((2,)))
        draws.append((random.random(), np.random.rand(), noise[0]))
    # Equal numbers under different seeds would mean that the training had seeded them itself.
    assert all(first != second for first, second in zip(*draws, strict=True))
    # Keras numbers the names of new layers; after clear_session it would begin with "dense" again.
    assert keras.layers.Dense(1).name not in {layer.name for layer in model.layers}
    np.testing.assert_array_equal(model.predict(np.ones((4, 3)), verbose=0), scores)
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
