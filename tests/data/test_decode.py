"""Fast decoding of large JPEG files: which scale is chosen, where it applies, and how little the pixels change."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet.data.photos import named, prepare
from keras_effnet.images import View, load_image
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.model_record import ModelRecord

FAST, EXACT = View(32, decode="fast"), View(32)


def photo(width: int, height: int, orientation: int = 1) -> bytes:
    """A smooth JPEG photo."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(6 * x / width + 4 * y / height)], -1)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("view", "height", "width", "factor"),
    [
        # The central square of 3000 pixels has 224 / 256 of them: 2625, and 2625 / 4 >= 448 > 2625 / 8.
        (View(224, decode="fast"), 3000, 4000, 4),
        (View(224, decode="fast"), 4000, 3000, 4),
        (View(224, decode="fast"), 6000, 8000, 8),
        (View(224, decode="fast"), 600, 8000, 1),
        (View(224, None, "fast"), 896, 5000, 2),
        (View(224, None, "fast"), 895, 5000, 1),
        (View(600, decode="fast"), 3000, 4000, 2),
        (View(224), 3000, 4000, 1),
    ],
)
def test_the_part_that_is_used_keeps_twice_the_size(view: View, height: int, width: int, factor: int) -> None:
    assert view.reduction(height, width) == factor


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(401, 300), (301, 640), (90, 100)])
def test_fast_pixels_are_close_to_the_exact_ones(size: tuple[int, int], orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(*size, orientation))
    _, exact, _ = prepare(named(path, 0), EXACT)
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes()), ("named", path.read_bytes())):
        _, fast, error = prepare(named(source, 0), FAST)
        assert error is None
        # The published resize does not smooth: on a slope it is half a pixel of the large photo off.
        np.testing.assert_allclose(fast, exact, atol=6)
        assert (fast == exact).all() == (min(size) < 100)


def test_files_that_are_not_jpeg_and_small_photos_are_decoded_exactly(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(load_image(photo(400, 300))).save(path)
    np.testing.assert_array_equal(prepare(named(path, 0), FAST)[1], prepare(named(path, 0), EXACT)[1])


def test_an_image_of_the_caller_is_not_changed() -> None:
    image = Image.open(io.BytesIO(photo(400, 300)))
    prepare(named(image, 0), FAST)
    assert image.size == (400, 300)


def test_a_damaged_file_is_the_same_error(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(800, 600)[:5000])
    fast, exact = prepare(named(path, 0), FAST), prepare(named(path, 0), EXACT)
    assert fast[2] == exact[2]
    assert fast[2] is not None


class Model:
    """As much of a model as a Classifier looks at."""

    name, output_shape, layers = "m", (None, 2), ()


def test_the_choice_is_kept_by_classifiers_and_records() -> None:
    classifier: Any = Classifier(Model(), ("a", "b"), 32, crop="center", decode="fast")
    assert classifier.view == FAST
    assert ModelRecord("onnx", 32, ((None, "a"),), decode="fast").view == FAST
    with pytest.raises(ValueError, match=r"decode is 'quick'. Expected one of exact, fast"):
        Classifier(Model(), ("a", "b"), 32, crop="center", decode="quick")
