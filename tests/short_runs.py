"""Training runs of a few seconds, for several tests and for `distributed_run.py`."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keras_effnet._keras import LEGACY
from keras_effnet.training import run as training
from keras_effnet.training.checkpointing import Saver
from keras_effnet.training.recipes import RECIPES, Recipe
from keras_effnet.training.state import BEST
from keras_effnet.variants import tiny

RECIPE = replace(
    RECIPES["imagenet"],
    epochs=2,
    batch_size=8,
    learning_rate=0.3,
    warmup_epochs=1,
    decay_epochs=100,
    holdout=0.25,
    ema_decay=0.8,
    augment=None,
    # Stochastic depth and dropout have their own seeds, which tf_keras cannot save.
    **({"drop_connect_rate": 0.0, "dropout_rate": 0.0} if LEGACY else {}),
)


def coloured(count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Noise images in three colours, and their labels."""
    labels = np.arange(count) % 3
    images = np.random.default_rng(0).integers(0, 90, (count, 32, 32, 3)).astype("uint8")
    for target in range(3):
        images[labels == target, :, :, target] += 150
    return images, labels


def run(data: Any, folder: Path, recipe: Recipe = RECIPE, **options: Any) -> training.Trained:
    # The checkpoint is what the tests compare.
    options = {"keep_checkpoint": True, "verbose": 0} | options
    return training.train(data, folder, model=tiny(), recipe=recipe, **options)


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("state-*"))


def cut(data: Any, folder: Path, recipe: Recipe, *, at: tuple[int, int], **options: Any) -> None:
    """Start a run that is interrupted after a step; `at` is its epoch and step, counted from one."""
    old = Saver.on_train_batch_end

    def die(self: Any, batch: int, logs: Any = None) -> None:
        old(self, batch, logs)
        if (self.progress.epoch + 1, self.progress.step) == at:
            raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "on_train_batch_end", die)
        with pytest.raises(CutError):
            run(data, folder, recipe, **options)


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit files to 100 kB, so that writing more fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class CutError(Exception):
    """Interrupts a run."""


def assert_same(ours: Path, theirs: Path, *, within: float = 1e-6, best: bool = True) -> None:
    """Compare weights, average, optimizer, seeds and metrics; also the `best` weights, unless they were lost."""
    assert states(ours)[-1] == states(theirs)[-1]
    with np.load(ours / states(ours)[-1]) as a, np.load(theirs / states(theirs)[-1]) as b:
        assert set(a.files) == set(b.files)
        for key in set(a.files) - {"notes"}:
            assert a[key] == pytest.approx(b[key], abs=within), key
    for row, other in zip(history(ours), history(theirs), strict=True):
        assert row == pytest.approx(other, abs=within)
    if best:
        mine, others = _best_weights(ours), _best_weights(theirs)
        assert mine.keys() == others.keys()
        for name, array in mine.items():
            assert array == pytest.approx(others[name], abs=within), name


def _best_weights(folder: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(folder / BEST) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found
