"""Crops and batches of photos for fine-tuning."""

from pathlib import Path

import numpy as np
import pytest
from colour_photos import colour_photos
from PIL import Image

from keras_effnet.data.photo_batches import center_view, random_view, read_photos, shrink, training_batches
from keras_effnet.data.training_photos import open_training_photos
from keras_effnet.images import load_image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("photos") / "colours", each=10)


def test_a_center_crop_matches_pillows_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    view = center_view(image, 32, mirrored=False)  # the central half
    box = (16, 16, 48, 48)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC, box))
    assert np.array_equal(view, expected)
    assert np.array_equal(center_view(image, 32, mirrored=True), expected[:, ::-1])


def test_random_crops_have_the_minimum_area_and_stay_inside() -> None:
    rows, columns = np.mgrid[0:100, 0:120]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")
    spans = []
    for seed in range(200):
        view = random_view(image, 50, np.random.default_rng(seed), smallest=0.5, mirror=False)
        assert view[..., 0].max() <= 99
        assert view[..., 1].max() <= 119
        spans.append([np.ptp(view[:, 0, 0]), np.ptp(view[0, :, 1])])
    areas = np.prod(spans, axis=1) / (100 * 120)
    # A crop whose aspect ratio does not fit into the photo is a little smaller.
    assert 0.4 < areas.min() < 0.55
    assert 0.85 < areas.max() <= 1


def test_half_of_the_crops_are_mirrored_unless_mirroring_is_off() -> None:
    image = np.tile(np.arange(64, dtype="uint8")[None, :, None], (64, 1, 3))
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    mirrored = [random_view(image, 32, rng, smallest=0.5, mirror=True)[0, 0, 0] > 31 for rng in rngs]
    assert 150 < sum(mirrored) < 250
    assert all(random_view(image, 32, rng, smallest=0.9, mirror=False)[0, 0, 0] < 31 for rng in rngs)


def test_large_photos_are_shrunk_and_small_ones_are_unchanged() -> None:
    large, small = np.zeros((600, 900, 3), "uint8"), np.zeros((200, 300, 3), "uint8")
    assert shrink(large, 224).shape == (256, 384, 3)
    assert shrink(small, 224) is small


def test_each_photo_occurs_once_per_epoch_and_batches_depend_on_the_seed(photos: Path) -> None:
    rows = open_training_photos(photos).train
    read, errors = read_photos(rows, lambda image: image, memory=10**9)
    assert not errors

    def epochs(seed: int) -> list[np.ndarray]:
        batches = training_batches(
            read, lambda image, rng: image[:1, :1] + rng.random(), classes=3, batch_size=8, seed=seed
        )
        return [next(batches) for _ in range(6)]

    first, again, other = epochs(0), epochs(0), epochs(1)
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][0], other[0][0])
    for epoch in (first[:3], first[3:]):
        labels = np.concatenate([batch[1] for batch in epoch])
        assert labels.sum(axis=0).tolist() == [8, 8, 8]
        seen = sorted(np.floor(np.concatenate([batch[0] for batch in epoch])[:, 0, 0, 0]).astype(int))
        pixels = sorted(int(load_image(row.photo)[0, 0, 0]) for row in rows)
        assert seen == pixels
    assert not np.array_equal(first[0][1], first[3][1]) or not np.array_equal(first[1][1], first[4][1])


def test_photos_beyond_the_memory_limit_are_read_again(photos: Path) -> None:
    rows = open_training_photos(photos).train
    size = 40 * 48 * 3
    some, _ = read_photos(rows, lambda image: image, memory=5 * size)
    assert [kept is not None for kept in some.kept] == [True] * 5 + [False] * (len(rows) - 5)
    assert all(np.array_equal(some.pixels(i), load_image(row.photo)) for i, row in enumerate(rows))
