"""MixUp and CutMix: labels are mixed in the proportion of the pixels."""

from collections.abc import Callable

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.data import mixing  # noqa: E402
from keras_effnet.data.image_audit import OddFiles  # noqa: E402
from keras_effnet.data.sharding import Position  # noqa: E402
from keras_effnet.data.tf_batches import Batches, training_batches  # noqa: E402
from keras_effnet.data.tf_mixing import beta, mix  # noqa: E402
from keras_effnet.data.tf_sources import from_rows  # noqa: E402

COUNT, SIZE = 64, 20
Mixed = Callable[..., tuple[np.ndarray, np.ndarray]]


def in_tensorflow(images: np.ndarray, labels: np.ndarray, seed: int, **alphas: float) -> tuple[np.ndarray, np.ndarray]:
    mixed, targets = mix(images, labels, seed=[seed, 1], **alphas)
    return mixed.numpy(), targets.numpy()


def in_numpy(images: np.ndarray, labels: np.ndarray, seed: int, **alphas: float) -> tuple[np.ndarray, np.ndarray]:
    return mixing.mix(images, labels, rng=np.random.default_rng(seed), **alphas)


both = pytest.mark.parametrize("mixed_in", [in_tensorflow, in_numpy])


def flat(count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Images of one value each, a different one, and the label of each: its number."""
    values = np.arange(count, dtype=np.float32) + 1
    return np.tile(values[:, None, None, None], (1, SIZE, SIZE, 3)), np.eye(count, dtype=np.float32)


@both
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 0.5), (0.5, 0.5), (1.0, 1.0)])
def test_a_label_is_mixed_in_the_proportion_of_the_pixels(mixed_in: Mixed, mixup: float, cutmix: float) -> None:
    images, labels = flat()
    mixed, targets = mixed_in(images, labels, 1, mixup=mixup, cutmix=cutmix)
    assert mixed.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    # The mean of an image is the mean of its own value and its partner's, weighted by the label.
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), targets @ images[:, 0, 0, 0], rtol=1e-4)
    changed = (np.abs(targets - labels).max(axis=1) > 0.01).mean()
    assert 0.1 < changed <= 1


@both
def test_mixup_blends_and_keeps_the_larger_part(mixed_in: Mixed) -> None:
    images, labels = flat()
    mixed, targets = mixed_in(images, labels, 3, mixup=1.0, cutmix=0.0)
    assert np.ptp(mixed, axis=(1, 2, 3)).max() < 1e-4
    own = targets[np.arange(COUNT), np.arange(COUNT)]
    assert own.min() >= 0.5
    np.testing.assert_allclose(targets[np.arange(COUNT), COUNT - 1 - np.arange(COUNT)], 1 - own, atol=1e-6)


@both
def test_cutmix_pastes_a_rectangle_of_the_partner(mixed_in: Mixed) -> None:
    images, labels = flat()
    mixed, targets = mixed_in(images, labels, 3, mixup=0.0, cutmix=1.0)
    for i, image in enumerate(mixed[..., 0]):
        pasted = image != images[i, 0, 0, 0]
        assert set(np.unique(image[pasted])) <= {images[COUNT - 1 - i, 0, 0, 0]}
        rows, columns = pasted.any(axis=1), pasted.any(axis=0)
        assert (pasted == rows[:, None] & columns[None]).all()
        assert targets[i, i] == pytest.approx(1 - pasted.mean(), abs=1e-6)


@both
def test_with_both_each_half_of_the_batch_gets_one(mixed_in: Mixed) -> None:
    images, labels = flat()
    mixed, targets = mixed_in(images, labels, 5, mixup=1.0, cutmix=1.0)
    half = COUNT // 2
    assert np.ptp(mixed[:half], axis=(1, 2, 3)).max() < 1e-4
    assert set(np.unique(mixed[half:])) <= set(images[half:, 0, 0, 0])
    assert targets[:half, half:].max() == targets[half:, :half].max() == 0


@pytest.mark.parametrize("alpha", [0.067, 0.2, 1.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    draws = beta(alpha, 20_000, [1, 2]).numpy()
    assert np.isfinite(draws).all()
    assert draws.mean() == pytest.approx(0.5, abs=0.02)
    assert draws.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.05)


def test_a_batch_is_mixed_alike_wherever_its_epoch_is_resumed() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
    source = from_rows([str(i) for i in range(20)], images, np.arange(20) % 3)
    batches = Batches(4, 16, 3, seed=1, mixup=0.5, cutmix=0.5)

    def made(start: Position, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        found = training_batches(source, batches, steps=5, odd=OddFiles(20), start=start)
        return list(found.take(count).as_numpy_iterator())

    whole = made(Position(), 7)
    assert not np.array_equal(whole[0][1], whole[5][1])
    for start in (Position(0, 3, 12), Position(0, 3, None), Position(1, 0)):
        rest = whole[5 * start.epoch + start.step :]
        for ours, theirs in zip(made(start, len(rest)), rest, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])
    assert any(0 < share < 1 for _, labels in whole for share in labels.ravel())
