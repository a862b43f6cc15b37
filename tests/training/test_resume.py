"""Resuming after a kill at any step, a full disk, a damaged file or a loss that is not finite."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from PIL import Image
from short_runs import assert_same, cut, full_disk, history, states
from typer.testing import CliRunner

from keras_effnet._keras import LEGACY
from keras_effnet.artifacts import PREFIX
from keras_effnet.data import tf_batches as tf_pipeline
from keras_effnet.data import tf_sources
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.training import run as training
from keras_effnet.training.recipes import Recipe
from keras_effnet.training.state import Progress

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.training.checkpointing import DivergedError, Saver, Saving  # noqa: E402

# tf_keras cannot accumulate gradients.
RECIPE = short_runs.RECIPE if LEGACY else replace(short_runs.RECIPE, accumulate=2)
# Batches per epoch: three quarters of the 28 photos are for training, and two of those are broken.
STEPS = 5 if not LEGACY else 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos in three colours; three are broken and one is not RGB."""
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
    return short_runs.run(data, folder, recipe, **options)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> training.Trained:
    """An uninterrupted run."""
    return run(photos, tmp_path_factory.mktemp("whole") / "run")


def test_resume_mid_epoch_with_damaged_files_matches_the_uninterrupted_run(
    whole: training.Trained, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert whole.report["steps_per_epoch"] == STEPS
    cut(photos, folder, RECIPE, at=(2, 4), checkpoint_every=1)
    assert states(folder) == ["state-00001-00000003.npz", "state-00001-00000004.npz"]
    last = folder / "state-00001-00000004.npz"
    last.write_bytes(last.read_bytes()[:-100])
    (folder / "settings.json").write_text("{")
    (folder / "history.jsonl").write_text("")
    (folder / "best.weights.h5").write_bytes((folder / "best.weights.h5").read_bytes()[:-100])
    (folder / f"{PREFIX}x").mkdir()
    with pytest.raises(ValueError, match="other settings: seed 0 there, 1 now"):
        run(photos, folder, replace(RECIPE, seed=1))
    resumed = run(photos, folder, checkpoint_every=100)
    damaged, best = resumed.report["notes"][-2:]
    assert "state-00001-00000004.npz is damaged" in damaged
    assert "best.weights.h5 is damaged" in best
    assert "the weights of epoch 1 are lost" in best
    assert_same(folder, whole.folder, best=False)
    assert json.loads((folder / "settings.json").read_text())["seed"] == 0
    # They were counted partly before the interruption and partly after it.
    assert resumed.report["odd_files"] == whole.report["odd_files"]
    assert not list(folder.glob(".*"))


def test_a_full_disk_loses_only_the_checkpoints_that_do_not_fit(
    whole: training.Trained,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, save, full = tmp_path / "run", Saver._save, {1, 2}

    def saved(self: Any) -> None:
        if self.progress.epoch in full:
            with full_disk():
                save(self)
        else:
            save(self)

    monkeypatch.setattr(Saver, "_save", saved)
    # From the end of the first epoch to the very end.
    with pytest.raises(
        OSError, match=r"cannot be written to .*File too large.*Expected enough disk space.*resumes from"
    ):
        run(photos, folder, checkpoint_every=3)
    assert [
        row.message.split(":")[0] for row in caplog.records if row.name == "keras_effnet.training.checkpointing"
    ] == [
        "The checkpoint after epoch 1 could not be written",
        "The checkpoint after epoch 2 could not be written",
        "The checkpoint after epoch 2 could not be written",
    ]
    assert {path.name for path in folder.iterdir()} == {"state-00000-00000003.npz", "history.jsonl", "settings.json"}
    # Only at the end of the first epoch: the best weights are written with the next checkpoint.
    full -= {2}
    resumed = run(photos, folder)
    assert_same(folder, whole.folder)
    lost, again = resumed.report["notes"][-2:]
    assert lost.startswith("The checkpoint after epoch 1 could not be written: [Errno 27] File too large")
    assert again == "Checkpoints could be written again from epoch 2 on."
    assert resumed.report["best_epoch"] == whole.report["best_epoch"]
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=1e-6)


def test_a_model_that_did_not_fit_on_the_disk_is_written_by_the_next_run(
    whole: training.Trained, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = tmp_path / "run", training._write
    shutil.copytree(whole.folder, folder)
    (folder / "report.json").write_text("{")
    (folder / "model.keras").unlink()

    def without_room(*arguments: Any) -> None:
        with full_disk():
            write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_write", without_room)
        with pytest.raises(OSError, match="The results cannot be written to"):
            run(photos, folder)
    assert not (folder / "model.keras").exists()
    # The last checkpoint still has the weights of the last epoch, the best that remain.
    (folder / "best.weights.h5").write_bytes(b"")
    again = run(photos, folder)
    kept = history(folder)
    assert again.report["val_accuracy"] == kept[-1]["val_accuracy"]
    assert again.report["odd_files"] == whole.report["odd_files"]
    assert (folder / "model.keras").is_file()


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a photo whose pixels become NaN."""
    name, crop = "19.jpg", tf_pipeline.crop

    def poison(element: Any, *arguments: Any, **options: Any) -> Any:
        image, valid = crop(element, *arguments, **options)
        found = tf.strings.regex_full_match(element.name, f".*{name}")
        return tf.where(found, image * np.nan, image), valid

    monkeypatch.setattr(tf_pipeline, "crop", poison)
    return name


def test_a_nan_loss_reports_the_step_and_the_files_of_the_batch(photos: Path, tmp_path: Path, poisoned: str) -> None:
    files = sorted(photos.glob("*/*"))
    order = training.open_training_data(photos, holdout=0.25).train
    # With a different label for every photo, the labels identify the photos of a batch.
    names = [name.decode() for name, _, _ in order.read(None).as_numpy_iterator()]
    told = tf_sources.from_rows(names, names, np.arange(len(names)), is_path=True)
    size = RECIPE.batch_size // RECIPE.accumulate
    batches = tf_pipeline.Batches(size, 32, len(names))
    expected: list[str] = []
    for step, (images, labels) in enumerate(  # noqa: B007
        tf_pipeline.training_batches(told, batches, steps=STEPS, odd=OddFiles(len(files)))
        .take(STEPS)
        .as_numpy_iterator(),
        1,
    ):
        expected = [names[label] for label in labels.argmax(1)]
        if not np.isfinite(images).all():
            break
    assert any(name.endswith(poisoned) for name in expected)
    assert 1 < step <= STEPS
    for _ in range(2):  # from the beginning, then resumed from the step before
        with pytest.raises(ValueError, match="The loss is nan in epoch 1") as error:
            run(photos, tmp_path / "run", checkpoint_every=1)
        message = str(error.value)
        assert f"epoch 1, step {step}. The batch: {', '.join(map(repr, expected))}. The pixels or labels of" in message
        assert f"{poisoned}' are not finite. Expected a finite loss." in message
        assert states(tmp_path / "run")[-1] == f"state-00000-{step - 1:08}.npz"


def test_nan_weights_are_not_saved(whole: training.Trained, tmp_path: Path) -> None:
    kept = whole.model.get_weights()
    odd = OddFiles(1), OddFiles(1)
    saver = Saver(tmp_path, Progress(1, 5), Saving(5, 4), ema=None, odd=odd)
    saver.set_model(whole.model)
    whole.model.set_weights([array * np.float32("nan") if array.ndim == 4 else array for array in kept])
    try:
        with pytest.raises(DivergedError, match="weights are not finite in epoch 2, step 5"):
            saver.on_epoch_end(1, {"val_accuracy": 1.0})
    finally:
        whole.model.set_weights(kept)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_prints_how_to_resume_in_one_line(
    monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    from keras_effnet.cli import app

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    done = CliRunner().invoke(app, ["train", "--data", str(photos), "--out", str(tmp_path / "run")])
    assert done.exit_code == 130
    advice = "Repeat the same command to resume from the last checkpoint."
    assert done.stderr.splitlines() == [f"keras-effnet: Interrupted. {advice}"]


# --- slow ---

VARIATIONS = {
    "alone": {"accumulate": 1, "ema_decay": None, "optimizer": "sgd", "global_clipnorm": 1.0},
    "bfloat16": {"precision": "mixed_bfloat16", "augment": "randaugment"},
    "float16": {"precision": "mixed_float16", "learning_rate": 0.01},
}


@pytest.mark.slow
@pytest.mark.skipif(LEGACY, reason="tf_keras cannot save the seeds of dropout and stochastic depth")
@pytest.mark.parametrize("name", VARIATIONS)
def test_every_recipe_resumes_mid_epoch(photos: Path, tmp_path: Path, name: str) -> None:
    recipe = replace(RECIPE, **VARIATIONS[name])
    steps = run(photos, tmp_path / "whole", recipe).report["steps_per_epoch"]
    cut(photos, tmp_path / "cut", recipe, at=(2, steps), checkpoint_every=1)
    run(photos, tmp_path / "cut", recipe)
    assert_same(tmp_path / "cut", tmp_path / "whole")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from training.test_resume import run
run(Path({photos!r}), Path({folder!r}), checkpoint_every={every})
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_resume_after_kill_9_at_random_steps_matches_the_uninterrupted_run(
    whole: training.Trained, photos: Path, tmp_path: Path, seed: int
) -> None:
    draw, folder, killed = random.Random(seed), tmp_path / "run", 0
    for _ in range(2):
        options = {"tests": str(Path(__file__).parents[1]), "photos": str(photos), "folder": str(folder)}
        script = SCRIPT.format(every=draw.choice([1, 2]), **options)
        before = states(folder)
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            while process.poll() is None and states(folder) == before:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
    assert killed
    run(photos, folder)
    assert_same(folder, whole.folder)


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_a_one_line_message(photos: Path, tmp_path: Path) -> None:
    options = ["--model", "lite0", "--recipe", "baseline", "--epochs", "50", "--batch-size", "4", "--size", "32"]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "keras_effnet", "train", "--data", str(photos), "--out", str(folder), *options]
    with subprocess.Popen([*command, "--checkpoint-every", "1"], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not states(folder):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "keras-effnet: Interrupted. Repeat the same command" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not list(folder.glob(".*"))
