"""Which photos are trained on and which are held out, for every layout of the data."""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from colour_photos import COLOURS, colour_photos, make

from keras_effnet.data.training_photos import open_training_photos
from keras_effnet.images import load_image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("photos") / "colours", each=10)


def names(rows: Any, folder: Path) -> list[str]:
    return [Path(row.photo).relative_to(folder).as_posix() for row in rows]


def test_a_fifth_of_every_class_is_held_out_depending_on_the_seed(photos: Path) -> None:
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


def test_each_class_is_split_by_the_same_share(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("two", 2), ("many", 50)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.jpg").touch()
    found = open_training_photos(tmp_path, val_share=0.3)
    # A single photo is only trained on; of two, one is held out.
    assert Counter(found.classes[row.target] for row in found.val) == {"many": 15, "two": 1}
    assert "Classes with too few photos to hold one out (1): one." in found.notes[-1]
    assert "16 of 53 photos (30%) are held out" in found.notes[0]
    # At least one photo per class, even if that exceeds the share.
    assert "2 of 53 photos (4%) are held out" in open_training_photos(tmp_path, val_share=0.01).notes[0]


@pytest.mark.parametrize("val", ["val", "validation", "valid"])
def test_a_validation_split_is_used_unchanged(tmp_path: Path, val: str) -> None:
    colour_photos(tmp_path / "train", each=2)
    colour_photos(tmp_path / val, each=1)
    found = open_training_photos(tmp_path)
    assert len(found.train) == 6
    assert names(found.val, tmp_path) == [f"{val}/{name}/00.png" for name in COLOURS]
    assert not found.notes


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing")])
def test_the_test_split_replaces_a_missing_validation_split(tmp_path: Path, train: str, test: str) -> None:
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


def test_plots_of_earlier_runs_are_not_a_class(tmp_path: Path) -> None:
    colour_photos(tmp_path, each=2)
    for run in ("run", "runs/first"):
        make(tmp_path / run, "model.keras", "learning_curves.png")
    found = open_training_photos(tmp_path)
    assert found.classes == tuple(COLOURS)
    assert found.notes[0] == "Ignored folders without photos (2): run, runs."


def test_photos_are_held_out_from_a_train_folder_without_val(tmp_path: Path) -> None:
    colour_photos(tmp_path / "train", each=5)
    found = open_training_photos(tmp_path)
    assert (len(found.train), len(found.val)) == (12, 3)


@pytest.mark.parametrize("header", ["path,label,split\n", ""])
def test_a_csv_gives_the_same_photos_as_folders(tmp_path: Path, header: str) -> None:
    colour_photos(tmp_path / "train", each=2)
    colour_photos(tmp_path / "val", each=1)
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name},{path.parts[-3]}" for path in tmp_path.rglob("*.png")]
    (tmp_path / "list.csv").write_text(header + "\n".join(sorted(lines)), encoding="utf-8")
    listed, found = open_training_photos(tmp_path / "list.csv"), open_training_photos(tmp_path)
    assert (listed.classes, listed.train, listed.val) == (found.classes, found.train, found.val)


def test_photos_are_held_out_from_a_csv_without_splits(tmp_path: Path) -> None:
    lines = [f"{i}.jpg,{'ab'[i % 2]}" for i in range(20)]
    make(tmp_path, *(f"{i}.jpg" for i in range(20)))
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    found = open_training_photos(tmp_path / "list.csv")
    assert Counter(row.target for row in found.val) == {0: 2, 1: 2}


def test_an_empty_class_is_left_out_with_a_note(photos: Path, tmp_path: Path) -> None:
    colour_photos(tmp_path / "colours", each=2)
    (tmp_path / "colours" / "yellow").mkdir()
    found = open_training_photos(tmp_path / "colours")
    assert found.classes == tuple(COLOURS)
    assert found.notes[0] == "Ignored folders without photos (1): yellow."


BAD_DATA: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path / "nowhere", "There is no data"),
    "no photos": (lambda path: make(path, "a/notes.txt", "b/notes.txt"), "has 0 classes with photos"),
    "one class": (lambda path: make(path, "cat/1.jpg"), "has 1 class with photos: cat"),
    "loose photos": (lambda path: make(path, "1.jpg", "a/1.jpg", "b/1.jpg"), "contains 2 folders and 1 photo"),
    "nothing": (lambda path: path, "0 folders and 0 photos"),
    "unknown class": (
        lambda path: make(path, "train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"),
        r"1 class without photos in train/: c",
    ),
    "no label": (
        lambda path: make(path, "list.csv", text="1.jpg,a\n2.jpg\n") / "list.csv",
        r"Line 2 of the list",
    ),
    "wrong header": (
        lambda path: make(path, "l.csv", text="filename,class\n1.jpg,a\n2.jpg,b\n") / "l.csv",
        "begins with 'filename,class'. Expected the header path,label",
    ),
    "unknown split": (lambda path: make(path, "l.csv", text="1.jpg,a,test\n") / "l.csv", "split train or val"),
    "class in val only": (
        lambda path: make(path, "l.csv", text="1.jpg,a\n2.jpg,b\n3.jpg,c,val\n") / "l.csv",
        "has 1 class in val only: c",
    ),
    "no train split": (
        lambda path: make(path, "Test/a/1.jpg", "Test/b/1.jpg", "Val/a/2.jpg", "Val/b/2.jpg"),
        "contains Val/ but no train/",
    ),
    "photo in both splits": (
        lambda path: make(path, "l.csv", text="1.jpg,a,train\n2.jpg,b,train\n./1.jpg,a,val\n") / "l.csv",
        r"Line 3 of the list .* repeats the photo './1\.jpg'",
    ),
    "photo with two labels": (
        lambda path: make(path, "l.csv", text="1.jpg,a\n1.jpg,b\n") / "l.csv",
        r"Line 2 of the list .* repeats the photo '1\.jpg'",
    ),
    "single photos": (lambda path: make(path, "a/1.jpg", "b/1.jpg"), "Every class has only one photo"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_invalid_data_is_rejected(case: str, tmp_path: Path) -> None:
    prepare, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        open_training_photos(prepare(tmp_path))


def test_the_splits_of_tensorflow_datasets_are_used(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_linked_folders_of_classes_are_read_and_broken_links_are_named(photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("blue", "red"):
        (data / name).symlink_to(photos / name, target_is_directory=True)
    found = open_training_photos(data, seed=0)
    assert found.classes == ("blue", "red")
    assert len(found.train) + len(found.val) == 20
    (data / "green").symlink_to(tmp_path / "gone", target_is_directory=True)
    with pytest.raises(ValueError, match=r"green' is a broken link to '.*gone'.*Mend or remove the link"):
        open_training_photos(data, seed=0)
