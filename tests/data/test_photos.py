"""One photo in every form: the same pixels, a name, and an error that does not affect the others."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.labelled_photos import Example
from keras_effnet.data.photo_batches import read_photos
from keras_effnet.data.photos import is_single, named, prepare
from keras_effnet.images import View, load_image


def tensor(pixels: np.ndarray) -> Any:
    """A tensor of Keras's backend."""
    return keras.backend.constant(pixels, pixels.dtype) if LEGACY else keras.ops.convert_to_tensor(pixels)


FORMS: dict[str, Callable[[Path], Any]] = {
    "string": str,
    "path": lambda path: path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "open file": lambda path: io.BytesIO(path.read_bytes()),
    "array": load_image,
    "float array": lambda path: load_image(path).astype("float32"),
    "array with alpha": lambda path: np.asarray(Image.fromarray(load_image(path)).convert("RGBA")),
    "tensor": lambda path: tensor(load_image(path)),
    "float tensor": lambda path: tensor(load_image(path).astype("float32")),
    "float array with alpha": lambda path: np.dstack([load_image(path), np.full((20, 30), 255)]).astype("float32"),
    "Pillow image": lambda path: Image.fromarray(load_image(path)),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_pixels_with_and_without_a_name(form: str, file: Path) -> None:
    for wrap in (lambda image: image, lambda image: ("a name", image)):
        assert np.array_equal(named(wrap(FORMS[form](file)), 0).pixels(), load_image(file))
        assert prepare(named(wrap(FORMS[form](file)), 0), View(16))[2] is None


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_trained_on(form: str, file: Path) -> None:
    rows = [Example(("a name", FORMS[form](file)), 0)]
    photos, errors = read_photos(rows, lambda pixels: pixels, memory=10**9)
    assert not errors
    assert np.array_equal(photos.pixels(0), load_image(file))


def test_photos_are_named_by_path_pair_or_number() -> None:
    assert [named(image, 7).name for image in ("a.jpg", Path("b.jpg"), ("c", b""), b"", np.zeros((4, 4, 3)))] == [
        *("a.jpg", "b.jpg", "c", "image 7", "image 7"),
    ]
    assert named(named(b"", 1), 2).name == "image 1"


def test_single_photos_and_sequences_are_distinguished(file: Path) -> None:
    for form in FORMS.values():
        assert is_single(form(file))
        assert not is_single([form(file)])
        assert not is_single((file, form(file)))
    assert is_single(("a name", file.read_bytes()))
    assert is_single(np.zeros((4, 4)))
    for several in (("a.jpg", "b.jpg"), ("a.jpg", ("b", b"")), np.zeros((2, 4, 4, 3)), [], iter([])):
        assert not is_single(several)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.jpg", "'gone.jpg' does not exist"),
        (("a name", b"no image"), "'a name': The file is not an image"),
        (b"", "'image 3': The file is not an image"),
        (np.zeros((4, 4, 2), np.uint8), "'image 3': The image has the shape (4, 4, 2)"),
        (None, "'image 3': it is of type NoneType. Expected a path, the bytes of a file, an open file, an array"),
        (("a name", 3), "'a name': it is of type int"),
        (("a", "b", "c"), "'image 3': it is of type tuple"),
    ],
)
def test_a_bad_photo_gives_a_black_image_and_an_error_with_its_name(image: Any, message: str) -> None:
    name, pixels, error = prepare(named(image, 3), View(8))
    assert str(error).startswith(message)
    assert name in str(error)
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((8, 8, 3), np.float32, 0)


def test_fine_tuning_opens_each_file_once_and_counts_its_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, mode in enumerate(("RGB", "L", "CMYK", "L")):
        Image.new("RGB", (30, 20)).convert(mode).save(tmp_path / f"{i}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    opened, really_open = [], Image.open

    def count(source: Any) -> Image.Image:
        opened.append(source)
        return really_open(source)

    monkeypatch.setattr(Image, "open", count)
    odd = OddFiles(5)
    rows = [Example(path, 0) for path in sorted(tmp_path.iterdir())]
    photos, errors = read_photos(rows, lambda pixels: pixels, odd=odd, memory=0)
    assert (len(photos), len(errors)) == (4, 1)
    assert sorted(opened) == [row.photo for row in rows]
    for i in range(4):
        photos.pixels(i)  # which reads it again, as nothing was kept
    assert {kind: row["count"] for kind, row in odd.report().items()} == {"CMYK": 1, "grey": 2}
