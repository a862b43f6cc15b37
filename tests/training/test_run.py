"""`train`: it learns, resumes to the same result after an interruption, and reports what it did."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import short_runs
from PIL import Image
from short_runs import assert_same, coloured, cut, history
from typer.testing import CliRunner

from keras_effnet._keras import LEGACY, array_of, keras
from keras_effnet.errors import WeightsError
from keras_effnet.models import create
from keras_effnet.training import run as training
from keras_effnet.training.optimizers import RMSpropTF1
from keras_effnet.training.recipes import RECIPES, Recipe
from keras_effnet.training.state import claim_settings, state_of
from keras_effnet.variants import tiny

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.data.training_data import open_training_data  # noqa: E402

RECIPE = replace(short_runs.RECIPE, epochs=3, batch_size=16)


def run(folder: Path, recipe: Recipe = RECIPE, **options: Any) -> training.Trained:
    return short_runs.run(coloured(), folder, recipe, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> training.Trained:
    """An uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole") / "run")


FILES = {
    *("README.md", "best.weights.h5", "history.jsonl", "labels.txt", "model.keras", "progress.json", "report.json"),
    "settings.json",
}


def test_training_learns_and_writes_its_files(whole: training.Trained) -> None:
    rows = history(whole.folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < np.log(3) - 0.03  # a new classifier starts at ln(3)
    assert {path.name for path in whole.folder.iterdir()} == FILES | {"state-00003.npz"}
    report = json.loads((whole.folder / "report.json").read_text())
    assert report == whole.report
    assert report["val_accuracy"] == max(row["val_accuracy"] for row in rows)
    assert report["images"] == {"train": 48, "held_out": 16}
    assert report["odd_files"] == {"train": {}, "held_out": {}}


def test_the_saved_weights_are_the_average_of_the_best_epoch(whole: training.Trained) -> None:
    images, labels = coloured()
    held_out = open_training_data((images, labels), holdout=0.25).held_out
    places = [int(name[1:]) for name, _, _ in held_out.read(None).map(lambda n, d, y: (n, d, y)).as_numpy_iterator()]
    from keras_effnet.images import center_crop_and_resize

    crops = np.stack([center_crop_and_resize(images[i], 32) for i in places])
    right = (whole.model.predict(crops, verbose=0).argmax(1) == labels[places]).mean()
    assert right == pytest.approx(whole.report["val_accuracy"], abs=1e-6)


def test_the_saved_model_loads_as_a_classifier(whole: training.Trained) -> None:
    from keras_effnet.inference.classifier import load_classifier

    classifier = load_classifier(whole.folder / "model.keras")
    assert [label for _, label in classifier.classes] == ["0", "1", "2"]
    images = coloured()[0][:4].astype("float32")
    assert classifier.scores(images) == pytest.approx(whole.model.predict(images, verbose=0), abs=1e-5)


@pytest.mark.parametrize("at", [(1, 2), (3, 2)])
def test_a_resumed_run_matches_the_uninterrupted_run(
    whole: training.Trained, tmp_path: Path, at: tuple[int, int]
) -> None:
    cut(coloured(), tmp_path / "run", RECIPE, at=at)
    run(tmp_path / "run")
    assert_same(tmp_path / "run", whole.folder)


def test_a_truncated_checkpoint_is_skipped_and_reported(whole: training.Trained, tmp_path: Path) -> None:
    cut(coloured(), tmp_path / "run", RECIPE, at=(3, 1))
    last = tmp_path / "run" / "state-00002.npz"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    resumed = run(tmp_path / "run")
    assert "state-00002.npz is damaged" in resumed.report["notes"][0]
    assert_same(resumed.folder, whole.folder)


def test_a_changed_byte_in_a_checkpoint_is_detected(whole: training.Trained, tmp_path: Path) -> None:
    data = bytearray((whole.folder / "state-00003.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "state-00003.npz").write_bytes(data)
    from keras_effnet.training.state import restore_state

    progress, notes = restore_state(tmp_path, whole.model, None)
    assert (progress.epoch, len(notes)) == (0, 1)
    assert zipfile.ZipFile(whole.folder / "state-00003.npz").testzip() is None


def test_a_finished_run_is_only_reported(whole: training.Trained) -> None:
    before = (whole.folder / "state-00003.npz").stat().st_mtime_ns
    again = run(whole.folder)
    assert again.report == whole.report
    assert (whole.folder / "state-00003.npz").stat().st_mtime_ns == before


def test_a_finished_run_rewrites_a_damaged_model_file(tmp_path: Path) -> None:
    first = run(tmp_path / "run")
    model = first.folder / "model.keras"
    for damage in (lambda: model.write_bytes(model.read_bytes()[:1000]), model.unlink):
        damage()
        assert run(first.folder).report == first.report
        for ours, theirs in zip(keras.models.load_model(model).get_weights(), first.model.get_weights(), strict=True):
            assert np.array_equal(ours, theirs)


def test_the_saved_model_loads_without_this_package(whole: training.Trained) -> None:
    """It contains only Keras's classes; our optimizer would prevent loading it."""
    with zipfile.ZipFile(whole.folder / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "keras_effnet" not in config
    assert not json.loads(config).get("compile_config")


def test_a_finished_run_keeps_no_checkpoint_and_continues_with_more_epochs(tmp_path: Path) -> None:
    folder, short = tmp_path / "run", replace(RECIPE, epochs=2.0)
    first = run(folder, short, keep_checkpoint=False)
    assert {path.name for path in folder.iterdir()} == FILES
    # Nothing is trained anew.
    again = run(folder, short, keep_checkpoint=False)
    assert (again.report, again.new_epochs) == (first.report, 0)
    assert all(map(np.array_equal, again.model.get_weights(), first.model.get_weights()))
    more = run(folder, replace(RECIPE, epochs=4.0), keep_checkpoint=False)
    assert (more.report["epochs"], more.new_epochs) == (4, 2)
    assert [row["epoch"] for row in history(folder)] == [1, 2, 3, 4]
    assert "continued after epoch 2" in more.report["notes"][-1]
    assert "best weights with a new optimizer" in more.report["notes"][-1]
    assert {path.name for path in folder.iterdir()} == FILES
    with pytest.raises(ValueError, match="other settings: epochs 4 there, 3 now.*or more epochs"):
        run(folder, replace(RECIPE, epochs=3.0))


def test_with_its_checkpoint_a_finished_run_continues_as_if_planned_longer(
    whole: training.Trained, tmp_path: Path
) -> None:
    run(tmp_path / "run", replace(RECIPE, epochs=2.0))
    assert "optimizer" not in run(tmp_path / "run").report["notes"][-1]
    assert_same(tmp_path / "run", whole.folder)


def test_the_counters_of_a_finished_run_are_restored(tmp_path: Path) -> None:
    """The learning rate continues at the same step of its schedule."""
    seen = []

    class Steps(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen.append(int(array_of(self.model.optimizer.iterations)))

    for epochs in (1.0, 2.0):
        run(tmp_path / "run", replace(RECIPE, epochs=epochs), keep_checkpoint=False, callbacks=[Steps()])
    assert seen == list(range(len(seen)))
    assert len(seen) == 6


def test_a_batch_larger_than_the_training_set_raises(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="A batch has 64 images, but there are only 48 training images.*a smaller batch size"
    ):
        run(tmp_path / "run", replace(RECIPE, batch_size=64))


def test_a_run_with_other_settings_is_not_resumed(whole: training.Trained, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other settings: batch_size 16 there, 8 now; seed 0 there, 1 now"):
        run(whole.folder, replace(RECIPE, batch_size=8, seed=1))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="contains files that are not part of a run"):
        run(tmp_path)


def test_a_run_with_other_data_of_the_same_size_is_not_resumed(whole: training.Trained) -> None:
    images, labels = coloured()
    for data in ((images, 2 - labels), (images[::-1], labels[::-1])):
        with pytest.raises(ValueError, match="other settings: digest of names and labels"):
            short_runs.run(data, whole.folder, RECIPE)


def test_settings_of_a_run_that_failed_before_training_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(WeightsError, match="imagnet"):
        run(folder, replace(RECIPE, weights="imagnet"))
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["weights"] == "imagnet"
    claim_settings(folder, settings | {"weights": None})
    assert json.loads((folder / "settings.json").read_text())["weights"] is None
    (folder / "state-00001.npz").touch()
    with pytest.raises(ValueError, match="other settings: weights None there, 'imagnet' now"):
        claim_settings(folder, settings)
    for path in folder.iterdir():
        path.unlink()
    (folder / "settings.json").write_text('{"editor": "of somebody else"}')
    with pytest.raises(ValueError, match="other settings: .*editor 'of somebody else' there, None now"):
        claim_settings(folder, settings)


def test_paths_that_are_not_local_folders_raise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match="file' is a file. Expected a folder for the run. Choose another path"):
            claim_settings(folder, {})
    # pathlib removes one of the two slashes.
    with pytest.raises(
        ValueError, match="'gs:/bucket/run' is not a local path. Expected a folder in the file system of every"
    ):
        claim_settings(Path("gs://bucket/run"), {})


def test_a_diverging_loss_stops_and_reports_the_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"The loss is (nan|inf) in epoch 1, step \d"):
        run(tmp_path / "run", replace(RECIPE, learning_rate=1e30, warmup_epochs=0, ema_decay=None))


@pytest.mark.skipif(LEGACY, reason="tf_keras cannot accumulate gradients")
def test_bfloat16_patience_and_accumulation_work_together(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE,
        epochs=4,
        accumulate=2,
        precision="mixed_bfloat16",
        patience=1,
        learning_rate=1e-9,
        global_clipnorm=1.0,
        augment="randaugment",
    )
    trained = run(tmp_path / "run", recipe)
    # At this learning rate nothing is learnt: the first epoch stays the best, and patience ends after the second.
    assert (trained.report["epochs"], trained.report["best_epoch"]) == (2, 1)
    assert trained.report["steps_per_epoch"] == 6
    assert run(tmp_path / "run", recipe).report["epochs"] == 2


def compiled(precision: str) -> Any:
    network = create(tiny(), classes=3, dtype=precision)
    network.compile(RMSpropTF1(0.1), "categorical_crossentropy")
    network.optimizer.build(network.trainable_variables)
    return network


def test_the_loss_is_scaled_only_in_float16() -> None:
    assert isinstance(compiled("mixed_float16").optimizer, keras.mixed_precision.LossScaleOptimizer)
    for precision in ("float32", "mixed_bfloat16"):
        assert type(compiled(precision).optimizer) is RMSpropTF1


def test_an_infinite_gradient_halves_the_loss_scale_and_changes_nothing_else() -> None:
    network = compiled("mixed_float16")
    before = {name: array_of(variable) for name, variable in state_of(network, None).items()}
    infinite = [tf.fill(weight.shape, np.float32("inf")) for weight in network.trainable_variables]
    network.optimizer.apply_gradients([*zip(infinite, network.trainable_variables, strict=True)])
    after = {name: array_of(variable) for name, variable in state_of(network, None).items()}
    changed = [(before[name], after[name]) for name in before if not np.array_equal(before[name], after[name])]
    # tf_keras still counts the step.
    assert changed == [(0, 1)] * LEGACY + [(2**15, 2**14)]


@pytest.mark.slow
def test_mixed_float16_resumes_too(tmp_path: Path) -> None:
    recipe = replace(RECIPE, precision="mixed_float16", learning_rate=0.01)
    cut(coloured(), tmp_path / "cut", recipe, at=(2, 2))
    for name in ("cut", "whole"):
        run(tmp_path / name, recipe)
    assert_same(tmp_path / "cut", tmp_path / "whole")


# --- data ---


def test_the_first_20_of_1024_shards_are_held_out(tmp_path: Path) -> None:
    for i in range(1024):
        (tmp_path / f"train-{i:05}-of-01024").touch()
    (tmp_path / "validation-00000-of-00128").touch()
    found = open_training_data(tmp_path)
    assert found.notes == ("20 of 1024 files are held out; the classes are ImageNet's.",)
    assert len(found.classes) == 1000


def test_the_same_seed_holds_out_the_same_part_of_each_class() -> None:
    images, labels = coloured()

    def held(seed: int) -> list[str]:
        rows = open_training_data((images, labels), holdout=0.25, seed=seed).held_out.read(None)
        return [name.decode() for name, _, _ in rows.as_numpy_iterator()]

    assert held(1) == held(1) != held(2)
    targets = [int(name[1:]) % 3 for name in held(1)]
    assert [targets.count(target) for target in range(3)] == [6, 5, 5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            (np.zeros((4, 8, 8, 3)), np.zeros(4, int)),
            "The images are float64 .* the labels int64 .* Expected uint8",
        ),
        ((np.zeros((2, 8, 8, 3), "uint8"), np.arange(2)), "The arrays cannot be split"),
        ((np.zeros((2, 8, 8, 3), "uint8"), np.array([0.5, 1.5])), "the labels float64 .*integer labels"),
        (
            (np.zeros((2, 8, 8, 3), "uint8"), np.array([-1, 1])),
            "The labels range from -1 to 1. Expected at least two",
        ),
        ((np.zeros((2, 8, 8, 3), "uint8"), np.zeros(2, int)), "The labels range from 0 to 0."),
        (["a-*", "b-*"], "There are no files a-[*], b-[*]"),
        ("nowhere", "There is no data 'nowhere'"),
    ],
)
def test_unusable_data_raises(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_training_data(data)


@pytest.mark.parametrize("name", ["photo.JPG", "list.tsv", "photos.zip"])
def test_files_with_other_suffixes_are_rejected_as_tfrecords(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for data in (tmp_path / name, str(tmp_path / "*"), [str(tmp_path / name)]):
        with pytest.raises(ValueError, match=f"{name}' does not have the name of a TFRecord file. Expected .*CSV"):
            open_training_data(data)


# --- command line ---


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    images, labels = coloured(24)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "photos" / "rgb"[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "photos" / "r" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def test_the_digest_depends_on_classes_names_and_labels_but_not_on_the_folder(photos: Path, tmp_path: Path) -> None:
    digest = open_training_data(photos).digest
    moved = photos.rename(tmp_path / "moved")
    assert open_training_data(moved).digest == digest
    for old, new in (("r", "x"), ("g/1.png", "g/one.png"), ("b/2.png", "x/2.png")):
        (moved / old).rename(moved / new)
        assert open_training_data(moved).digest != digest
        digest = open_training_data(moved).digest


OPTIONS = ["--recipe", "baseline", "--epochs", "1", "--batch-size", "8"]


def test_the_command_trains_on_a_folder_and_reports_unreadable_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_effnet.cli import app

    monkeypatch.setattr(training, "find_variant", lambda name: tiny())
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    command = ["train", "--data", str(photos), "--out", str(tmp_path / "run"), *OPTIONS]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["recipe"] == "baseline"
    odd = [*report["odd_files"]["train"].values(), *report["odd_files"]["held_out"].values()]
    assert [(row["count"], row["done"]) for row in odd] == [(1, "left out")]
    assert "1 unreadable, left out" in done.stderr
    assert "Training, epoch 1/1: loss " in done.stderr
    page = (tmp_path / "run" / "report.md").read_text("utf-8")
    assert f"Validation accuracy: **{report['val_accuracy']:.1%}** of " in page
    assert "| 1 | " in page
    assert (tmp_path / "run" / "learning_curves.png").is_file() == ("learning_curves.png" in page)
    # The same command again, on the run that is finished now.
    again = CliRunner().invoke(app, command)
    assert "nothing was trained. To continue it, pass a larger --epochs." in again.stderr
    assert "Training, epoch" not in again.stderr
    assert f"Validation accuracy: {report['val_accuracy']:.1%} of " in again.stdout
    assert f"keras-effnet classify --model {tmp_path / 'run'} PHOTO" in again.stdout


@pytest.mark.slow
def test_the_command_rejects_unreadable_files_with_strict(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_effnet.cli import app

    monkeypatch.setattr(training, "find_variant", lambda name: tiny())
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    command = ["train", "--data", str(photos), "--out", str(tmp_path / "run"), *OPTIONS, "--strict"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1
    assert "broken.jpg' is unreadable" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.output


def test_the_command_lists_the_recipes_and_rejects_unknown_ones() -> None:
    from keras_effnet.cli import app

    listed = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    assert [row["name"] for row in listed] == list(RECIPES)
    table = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "160"}).stdout
    assert "b0 77.1" in table
    refused = CliRunner().invoke(app, ["train", "--data", "x", "--out", "y", "--recipe", "resnet"])
    assert refused.exit_code == 1
    assert "There is no recipe 'resnet'" in refused.stderr


# --- processes ---

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from training.test_run import run
from pathlib import Path
from types import SimpleNamespace
run(Path({folder!r}))
"""


@pytest.mark.slow
def test_resume_after_kill_9_matches_the_uninterrupted_run(whole: training.Trained, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 300
        while not (folder / "state-00001.npz").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    run(folder)
    assert_same(folder, whole.folder)


def test_an_unknown_strategy_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="strategy is 'tpus'. Expected one of auto, jax-data-parallel, "):
        run(tmp_path / "run", strategy="tpus")
    assert not (tmp_path / "run").exists()


def test_the_best_weights_load_by_their_path(whole: training.Trained) -> None:
    from keras_effnet.models import create

    loaded = create(tiny(), classes=3, weights=str(whole.folder / "best.weights.h5"))
    for a, b in zip(loaded.get_weights(), whole.model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert isinstance(loaded, keras.Model)


def test_tensorflow_datasets_are_streamed_by_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    images = [Image.fromarray(image) for image in coloured(12)[0]]
    encoded = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded.append(file.getvalue())
    columns = {"image": encoded, "label": np.arange(12) % 3}
    asked = []

    def as_dataset(split: str, decoders: Any) -> Any:
        asked.append(split)
        return tf.data.Dataset.from_tensor_slices(columns)

    features = {"image": None, "label": SimpleNamespace(names=["red", "green", "blue"])}
    splits = {"train+validation": SimpleNamespace(num_examples=12)}
    builder = SimpleNamespace(
        info=SimpleNamespace(features=features, splits=splits),
        as_dataset=as_dataset,
        download_and_prepare=lambda: None,
    )
    module = SimpleNamespace(builder=lambda name: {"flowers": builder}[name])
    module.decode = SimpleNamespace(SkipDecoding=lambda: "bytes")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    found = open_training_data("tfds:flowers:train+validation", holdout=0.25)
    assert asked == ["train+validation"]
    assert found.classes == ("red", "green", "blue")
    rows = [list(part.read(None).as_numpy_iterator()) for part in (found.held_out, found.train)]
    assert [len(part) for part in rows] == [found.held_out.total, found.train.total] == [3, 9]
    assert [data for part in rows for _, data, _ in part] == encoded
    shuffled = [data for _, data, _ in found.train.read(tf.constant([1, 2], tf.int64)).as_numpy_iterator()]
    assert sorted(shuffled) == sorted(encoded[3:])
    assert shuffled != encoded[3:]
