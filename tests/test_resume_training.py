"""Nothing lost: cut off at any step, by a full disk, a damaged file or a loss that is no number."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet import training
from keras_effnet._keras import LEGACY
from keras_effnet.recipes import RECIPES, Recipe
from keras_effnet.variants import tiny

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.saver import Saver
from keras_effnet.training import train

RECIPE = replace(
    RECIPES["imagenet"],
    epochs=2,
    batch_size=8,
    learning_rate=0.3,
    warmup_epochs=1,
    decay_epochs=100,
    holdout=0.25,
    ema_decay=0.8,
    # Accumulated gradients and the seeds of dropout and stochastic depth belong to what tf_keras cannot save.
    **({"drop_connect_rate": 0.0, "dropout_rate": 0.0} if LEGACY else {"accumulate": 2}),
)
# Batches of an epoch: of 28 photos three quarters are trained on, of which two are broken.
STEPS = 5 if not LEGACY else 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos of three colours, some of which are broken or odd."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(28):
        image = rng.integers(0, 90, (40, 40, 3)).astype("uint8")
        image[:, :, i % 3] += 150
        path = folder / "rgb"[i % 3] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).convert("CMYK" if i == 7 else "RGB").save(path)
        if i in (5, 9, 16):
            path.write_bytes(path.read_bytes()[:300])
    return folder


def run(data: Any, folder: Path, recipe: Recipe = RECIPE, **options: Any) -> training.Trained:
    return train(data, folder, model=tiny(), recipe=recipe, verbose=0, **options)


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def assert_same(ours: Path, theirs: Path, epochs: int = 2) -> None:
    """The same weights, average, optimizer, seeds and figures of each epoch."""
    name = f"state-{epochs:05}.npz"
    with np.load(ours / name) as a, np.load(theirs / name) as b:
        assert set(a.files) == set(b.files)
        for key in set(a.files) - {"notes"}:
            assert a[key] == pytest.approx(b[key], abs=1e-6), key
    for row, other in zip(history(ours), history(theirs), strict=True):
        assert row == pytest.approx(other, abs=1e-6)
    assert (ours / "best.weights.h5").stat().st_size == (theirs / "best.weights.h5").stat().st_size


class CutError(Exception):
    """Where a run is made to die."""


def cut(data: Any, folder: Path, recipe: Recipe = RECIPE, *, at: tuple[int, int], **options: Any) -> None:
    """Start a run that dies after a step, `at` epoch and step counted from one."""
    old = Saver.on_train_batch_end

    def die(self: Any, batch: int, logs: Any = None) -> None:
        old(self, batch, logs)
        if (self.progress.epoch + 1, self.progress.step) == at:
            raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "on_train_batch_end", die)
        with pytest.raises(CutError):
            run(data, folder, recipe, **options)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Trained:
    """A run that was never cut off."""
    return run(photos, tmp_path_factory.mktemp("whole") / "run")


def states(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("state-*"))


def test_cut_off_within_an_epoch_and_a_file_cut_short_it_ends_as_if_nothing_had_been(
    whole: training.Trained, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert whole.report["steps_per_epoch"] == STEPS
    cut(photos, folder, at=(2, 4), checkpoint_every=1)
    assert states(folder) == ["state-00001-00000003.npz", "state-00001-00000004.npz"]
    last = folder / "state-00001-00000004.npz"
    last.write_bytes(last.read_bytes()[:-100])
    (folder / "settings.json").write_text("{")
    (folder / "history.jsonl").write_text("")
    (folder / "best.weights.h5").write_bytes((folder / "best.weights.h5").read_bytes()[:-100])
    (folder / ".partial-x").mkdir()
    with pytest.raises(ValueError, match="other settings: seed 0 there, 1 now"):
        run(photos, folder, replace(RECIPE, seed=1))
    resumed = run(photos, folder, checkpoint_every=100)
    damaged, best = resumed.report["notes"][-2:]
    assert "state-00001-00000004.npz is damaged" in damaged
    assert "best.weights.h5 is damaged" in best
    assert "the weights of epoch 1 are lost" in best
    assert_same(folder, whole.folder)
    assert json.loads((folder / "settings.json").read_text())["seed"] == 0
    # Counted before the cut, and after it.
    assert resumed.report["odd_files"] == whole.report["odd_files"]
    assert not list(folder.glob(".*"))
