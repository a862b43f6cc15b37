"""The input pipeline of training: crops, order, seeds, non-RGB files and TFRecords."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet.data.augment_policies import AUTOAUGMENT
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import Position
from keras_effnet.images import center_crop_and_resize, load_image

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.data.tf_batches import Batches, training_batches, validation_batches  # noqa: E402
from keras_effnet.data.tf_crops import central_window, random_window  # noqa: E402
from keras_effnet.data.tf_sources import Source, from_records, from_rows  # noqa: E402
from keras_effnet.data.training_data import open_training_data  # noqa: E402
from keras_effnet.training.tf_diverged import batch_names  # noqa: E402

SIZE = 48


def smooth(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype("uint8")
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(image: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def encoded() -> list[bytes]:
    return [jpeg(smooth(i)) for i in range(12)]


def source(files: list[bytes]) -> Source:
    return from_rows([f"{i}.jpg" for i in range(len(files))], files, np.arange(len(files)))


def epochs(src: Source, count: int, *, first: int = 0, seed: int = 0, steps: int = 3, **options: Any) -> list[Any]:
    """The batches of consecutive epochs."""
    batches = Batches(4, SIZE, src.total, seed=seed, **options)
    odd = OddFiles(src.total)
    made = training_batches(src, batches, steps=steps, odd=odd, start=Position(first))
    return [tuple(map(np.asarray, batch)) for batch in made.take(count * steps)]


# --- order and seeds ---


def test_an_epoch_has_every_image_once_in_its_own_order(encoded: list[bytes]) -> None:
    batches = epochs(source(encoded), 3)
    orders = [np.concatenate([y.argmax(1) for _, y in batches[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("policy", [None, AUTOAUGMENT], ids=["plain", "autoaugment"])
def test_the_same_seed_gives_the_same_batches(encoded: list[bytes], policy: Any) -> None:
    first, again = (epochs(source(encoded), 2, seed=5, policy=policy, threads=t) for t in (1, 4))
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    other = epochs(source(encoded), 2, seed=6, policy=policy)
    assert not np.array_equal(first[0][0], other[0][0])


def test_a_single_epoch_can_be_reproduced(encoded: list[bytes]) -> None:
    whole = epochs(source(encoded), 3, policy=AUTOAUGMENT)
    later = epochs(source(encoded), 1, first=2, policy=AUTOAUGMENT)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(whole[6:], later, strict=True))


def test_an_epoch_with_more_steps_than_images_repeats_them_with_other_crops(encoded: list[bytes]) -> None:
    batches = epochs(source(encoded[:4]), 1, steps=2)
    assert sorted(batches[0][1].argmax(1)) == sorted(batches[1][1].argmax(1)) == [0, 1, 2, 3]
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_training_batches_are_complete_and_labels_one_hot(encoded: list[bytes]) -> None:
    batches = epochs(source(encoded[:10]), 2, steps=2)
    assert {image.shape for image, _ in batches} == {(4, SIZE, SIZE, 3)}
    assert {label.shape for _, label in batches} == {(4, 10)}
    assert all((label.sum(1) == 1).all() for _, label in batches)
    assert batches[0][0].dtype == np.float32
    assert epochs(source(encoded), 1, policy=AUTOAUGMENT)[0][0].dtype == np.uint8


# --- crops ---


def test_validation_matches_the_published_evaluation(encoded: list[bytes]) -> None:
    made = validation_batches(source(encoded[:5]), Batches(4, SIZE, 5), odd=OddFiles(5))
    images = np.concatenate([image for image, _ in made.as_numpy_iterator()])
    labels = np.concatenate([label for _, label in made.as_numpy_iterator()])
    assert labels.argmax(1).tolist() == [0, 1, 2, 3, 4]
    for ours, data in zip(images, encoded, strict=False):
        theirs = center_crop_and_resize(load_image(data), SIZE)
        # Decoding only the window interpolates colours differently at its edges.
        assert np.abs(ours - theirs).mean() < 0.5


@pytest.mark.parametrize("size", [48, 224, 600])
def test_the_central_window_matches_the_evaluation(size: int) -> None:
    for height, width in ((90, 120), (333, 500), (64, 64), (1, 7)):
        crop = max(1, int(np.float32(size / (size + 32)) * np.float32(min(height, width))))
        expected = [(height - crop + 1) // 2, (width - crop + 1) // 2, crop, crop]
        assert np.asarray(central_window(size)(tf.constant([height, width, 3]))).tolist() == expected


def test_random_windows_have_the_published_areas_and_aspect_ratios() -> None:
    shape = tf.constant([300, 400, 3])
    draw = tf.function(lambda n: random_window(tf.stack([n, 1]), 224)(shape))
    windows = np.array([draw(tf.constant(n)) for n in range(600)])
    top, left, height, width = windows.T
    assert windows.min() == 0
    assert 298 <= (top + height).max() <= 300
    assert 398 <= (left + width).max() <= 400
    area, aspect = height * width / 120_000, width / height
    # 0.08 to 1 and 3 / 4 to 4 / 3, up to rounding to whole pixels.
    assert [area.min(), area.max()] == pytest.approx([0.1, 0.95], abs=0.05)
    assert [aspect.min(), aspect.max()] == pytest.approx([0.76, 1.31], abs=0.03)


def test_an_image_without_a_valid_window_gets_the_central_square() -> None:
    # A window of 3:4 in a row of one pixel would be empty.
    window = np.asarray(random_window(tf.constant([0, 1]), 224)(tf.constant([1, 900, 3]))).tolist()
    assert window == np.asarray(central_window(224)(tf.constant([1, 900, 3]))).tolist()


def test_half_of_the_images_are_mirrored() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64, dtype="uint8")[None, :, None], (64, 64, 3))
    src = from_rows(["ramp"] * 4, np.stack([ramp] * 4), np.arange(4))
    batches = epochs(src, 60, steps=1)
    falling = np.concatenate([image[:, 0, 0, 0] > image[:, 0, -1, 0] for image, _ in batches])
    assert falling.mean() == pytest.approx(0.5, abs=0.13)  # four standard deviations of 240 draws


def test_arrays_and_files_are_cropped_alike() -> None:
    images = np.stack([smooth(i) for i in range(4)])
    files = [png(Image.fromarray(image)) for image in images]
    arrays = epochs(from_rows(list("abcd"), images, np.arange(4)), 2, steps=1)
    decoded = epochs(from_rows(list("abcd"), files, np.arange(4)), 2, steps=1)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(arrays, decoded, strict=True))


# --- non-RGB and unreadable files ---


@pytest.fixture(scope="module")
def odd_files() -> dict[str, bytes]:
    """A file of each kind, named after the kind."""
    image = Image.fromarray(smooth(1))
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = Image.Exif()
    upright[0x0112] = 1
    deep = np.arange(90 * 120, dtype=np.uint16).reshape(90, 120)
    alpha = image.copy()
    alpha.putalpha(100)
    return {
        "plain": jpeg(smooth(0)),
        "plain upright": jpeg(smooth(0), exif=upright),
        "rotated": jpeg(smooth(1), exif=turned),
        "CMYK": jpeg(smooth(1), "CMYK"),
        "grey": jpeg(smooth(1), "L"),
        "16-bit": png(Image.fromarray(deep)),
        "transparent": png(alpha),
        "animated": png(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "unreadable cut": jpeg(smooth(1))[:600],
        "unreadable empty": b"",
        "unreadable noise": b"\xff\xd8\xff" + bytes(range(256)) * 4,
    }


def read_all(files: dict[str, bytes], *, strict: bool = False) -> tuple[dict[str, np.ndarray], OddFiles]:
    names, odd = list(files), OddFiles(len(files), strict)
    src = from_rows(names, list(files.values()), np.arange(len(names)))
    made = list(validation_batches(src, Batches(16, SIZE, len(names)), odd=odd).as_numpy_iterator())
    labels = np.concatenate([label.argmax(1) for _, label in made])
    images = np.concatenate([image for image, _ in made])
    return {names[label]: image for label, image in zip(labels, images, strict=True)}, odd


def test_non_rgb_files_are_decoded_as_in_classify_and_broken_ones_skipped(odd_files: dict[str, bytes]) -> None:
    images, _ = read_all(odd_files)
    assert set(images) == {name for name in odd_files if "unreadable" not in name}
    for name, image in images.items():
        theirs = center_crop_and_resize(load_image(odd_files[name]), SIZE)
        assert np.abs(image - theirs).mean() < (0.5 if "plain" in name else 1e-4), name


def test_only_non_rgb_files_are_counted_by_kind(odd_files: dict[str, bytes]) -> None:
    _, odd = read_all(odd_files)
    report = odd.report()
    counts = {kind: row["count"] for kind, row in report.items()}
    assert counts == {
        **dict.fromkeys(("CMYK", "animated", "rotated", "transparent", "16-bit"), 1),
        "grey": 2,  # the 16-bit file is grey as well
        "unreadable": 3,
    }
    assert report["unreadable"]["files"] == ["unreadable cut", "unreadable empty", "unreadable noise"]
    assert report["rotated"] == {"count": 1, "done": "turned upright according to EXIF", "files": ["rotated"]}


def test_files_are_counted_once_even_if_read_twice(odd_files: dict[str, bytes]) -> None:
    names = list(odd_files)
    src = from_rows(names, list(odd_files.values()), np.arange(len(names)))
    odd = OddFiles(len(names))
    made = training_batches(src, Batches(4, SIZE, len(names)), steps=6, odd=odd)
    assert len(list(made.take(6))) == 6
    assert {kind: row["count"] for kind, row in odd.report().items()}["unreadable"] == 3


def test_resume_mid_epoch_with_skipped_images(odd_files: dict[str, bytes]) -> None:
    names = list(odd_files)
    src = from_rows(names, list(odd_files.values()), np.arange(len(names)))
    batches, odd = Batches(3, SIZE, len(names), seed=1), OddFiles(len(names))

    def read(count: int, odd: OddFiles, start: Position) -> list[Any]:
        made = training_batches(src, batches, steps=5, odd=odd, start=start).take(count)
        return [tuple(map(np.asarray, batch)) for batch in made]

    # 11 files, 3 of them broken: 5 batches of 3 need a second pass.
    whole = read(10, odd, Position(4))
    assert len(odd.gaps.places[4]) > 3
    for step in range(1, 5):
        start = Position(4, step, odd.gaps.after(Position(4), 3 * step))
        rest = OddFiles(len(names))
        for ours, theirs in zip(read(10 - step, rest, start), whole[step:], strict=True):
            assert np.array_equal(ours[0], theirs[0])
            assert np.array_equal(ours[1], theirs[1])
        if step < 4:  # and cut again
            assert rest.gaps.after(start, 3) == odd.gaps.after(Position(4), 3 * (step + 1))


def test_resume_mid_epoch_from_the_number_of_batches(odd_files: dict[str, bytes]) -> None:
    names = list(odd_files)
    src = from_rows(names, list(odd_files.values()), np.arange(len(names)))
    labels = []
    for start in (Position(1), Position(1, 2, None)):
        made = training_batches(src, Batches(3, SIZE, len(names)), steps=4, odd=OddFiles(len(names)), start=start)
        labels.append([y.argmax(1).tolist() for _, y in made.take(8 - start.step).as_numpy_iterator()])
    assert labels[1] == labels[0][2:]


@pytest.mark.parametrize("kind", ["rows", "records"])
def test_batch_names_are_found_without_decoding(odd_files: dict[str, bytes], tmp_path: Path, kind: str) -> None:
    names = list(odd_files)
    if kind == "rows":
        src = from_rows(names, list(odd_files.values()), np.arange(len(names)))
    else:
        path = write_records(tmp_path / "train-0", [(data, i + 1) for i, data in enumerate(odd_files.values())])
        src, names = from_records([path], len(names)), [f"{path}#{i + 1}" for i in range(len(names))]
    tf.random.set_seed(3)
    batches, odd = Batches(3, SIZE, len(names), seed=2), OddFiles(len(names))
    made = list(training_batches(src, batches, steps=5, odd=odd).take(10).as_numpy_iterator())
    for i, (_, labels) in enumerate(made):
        epoch, step = divmod(i, 5)
        position = Position(epoch, step, odd.gaps.after(Position(epoch), 3 * step))
        assert batch_names(src, batches, position, odd.gaps) == [names[label] for label in labels.argmax(1)]


def test_strict_mode_names_the_rejected_file(odd_files: dict[str, bytes]) -> None:
    for name in ("rotated", "unreadable cut"):
        with pytest.raises(tf.errors.OpError, match=f"'{name}' is {name.split()[0]}.*since strict is set"):
            read_all({"plain": odd_files["plain"], name: odd_files[name]}, strict=True)
    assert len(read_all({"plain": odd_files["plain"]}, strict=True)[0]) == 1


def test_only_broken_files_are_an_error_and_not_an_endless_loop() -> None:
    src = from_rows(["a", "b"], [b"no", b"image"], [0, 1])
    made = training_batches(src, Batches(2, SIZE, 2), steps=1, odd=OddFiles(2))
    with pytest.raises(tf.errors.OpError, match="None of the 2 images can be used"):
        next(iter(made))


def test_missing_files_are_counted_as_unreadable(tmp_path: Path, encoded: list[bytes]) -> None:
    here, gone = tmp_path / "k\udce4se.jpg", tmp_path / "gone.jpg"  # not valid Unicode
    here.write_bytes(encoded[0])
    names = [str(here), str(gone)]
    odd = OddFiles(2)
    made = validation_batches(from_rows(names, names, [0, 1], is_path=True), Batches(2, SIZE, 2), odd=odd)
    assert [image.shape[0] for image, _ in made] == [1]
    assert odd.report()["unreadable"]["files"] == [str(gone)]


def test_unknown_labels_are_skipped_and_counted(encoded: list[bytes]) -> None:
    src = from_rows(["a", "b", "c"], encoded[:3], [0, 7, -1])
    odd = OddFiles(3)
    made = validation_batches(src, Batches(3, SIZE, 2), odd=odd)
    assert [image.shape[0] for image, _ in made] == [1]
    assert odd.report()["wrong label"] == {"count": 2, "done": "left out", "files": ["b", "c"]}


# --- records ---


def write_records(path: Path, examples: list[tuple[bytes, int]]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for data, label in examples:
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return str(path)


@pytest.fixture
def shards(tmp_path: Path, encoded: list[bytes]) -> list[str]:
    rows = [(data, i + 1) for i, data in enumerate(encoded)]
    return [write_records(tmp_path / f"train-{i:05}-of-00004", rows[3 * i : 3 * i + 3]) for i in range(4)]


def test_tfrecord_labels_count_from_one_and_the_order_depends_on_the_seed(shards: list[str]) -> None:
    src = from_records(shards, 12)
    first, again, other = (epochs(src, 1, seed=seed) for seed in (1, 1, 2))
    orders = [np.concatenate([y.argmax(1) for _, y in run]).tolist() for run in (first, again, other)]
    assert sorted(orders[0]) == list(range(12))
    assert orders[0] == orders[1] != orders[2]
    assert np.array_equal(first[0][0], again[0][0])


def test_the_order_of_records_does_not_depend_on_the_global_seed(shards: list[str]) -> None:
    orders = []
    for everywhere in (0, 7):
        tf.random.set_seed(everywhere)
        orders.append([y.argmax(1).tolist() for _, y in epochs(from_records(shards, 12), 1, seed=0)])
    assert orders[0] == orders[1]


def test_epochs_of_records_differ_and_can_be_reproduced(shards: list[str]) -> None:
    src = from_records(shards, 12)
    both, second = epochs(src, 2), epochs(src, 1, first=1)
    assert not np.array_equal(both[0][1], both[3][1])
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(both[3:], second, strict=True))


def test_remote_tfrecords_are_read(shards: list[str]) -> None:
    Path(shards[3]).write_bytes(Path(shards[3]).read_bytes()[:-1])
    tf.io.gfile.makedirs("ram://bucket")
    for shard in shards:
        tf.io.gfile.copy(shard, f"ram://bucket/{Path(shard).name}")
    for name in ("ram://bucket/train-*", "ram://bucket/"):
        found = open_training_data(name, holdout=0.25)
        assert (found.held_out.total, found.train.total) == (3, 8)
        assert found.notes[1].endswith("their complete records are used: ram://bucket/train-00003-of-00004.")
        rows = list(found.train.read(None).as_numpy_iterator())
        assert [label for *_, label in rows] == list(range(3, 11))
    assert open_training_data(f"file://{Path(shards[0]).parent}", holdout=0.25).train.total == 8


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("ram://nowhere/train-*", "There are no files 'ram://nowhere/train-[*]'. Expected TFRecord files"),
        ("nobodys://bucket/train-*", "'nobodys://bucket/train-[*]' cannot be read: File system scheme 'nobodys' not"),
        ("ram://photos/list.csv", "list.csv' does not have the name of a TFRecord file. Expected .*or a local CSV"),
    ],
)
def test_unreadable_remote_data_is_rejected(data: str, message: str) -> None:
    tf.io.gfile.GFile("ram://photos/list.csv", "w").write("path,label")
    with pytest.raises(ValueError, match=message):
        open_training_data(data)


def test_a_damaged_shard_is_read_up_to_the_damage(shards: list[str]) -> None:
    data = bytearray(Path(shards[0]).read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    data[16 + length + 20] ^= 0xFF  # in the second record
    Path(shards[0]).write_bytes(data)
    made = validation_batches(from_records(shards, 12), Batches(12, SIZE, 12), odd=OddFiles(12))
    labels = np.concatenate([label.argmax(1) for _, label in made.as_numpy_iterator()])
    assert labels.tolist() == [0, *range(3, 12)]
