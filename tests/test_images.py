"""Decoding, cropping, resizing and finding images; the references are Pillow, TensorFlow and plain arithmetic."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_effnet.data.image_audit import OddFiles
from keras_effnet.images import ImageError, View, center_crop_and_resize, find_images, load_image, sample

data = pytest.importorskip("skimage.data", reason="scikit-image, whose photographs are used, is not installed")


@pytest.fixture(scope="module")
def chelsea() -> np.ndarray:
    return data.chelsea()


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- decoding ---


def test_a_path_bytes_and_an_open_file_give_the_same_pixels(tmp_path: Path, chelsea: np.ndarray) -> None:
    path = tmp_path / "chelsea.png"
    path.write_bytes(encode(Image.fromarray(chelsea), "PNG"))
    with path.open("rb") as file:
        results = [load_image(source) for source in (path, str(path), path.read_bytes(), file)]
    for result in results:
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, chelsea)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(chelsea: np.ndarray, orientation: int) -> None:
    turns = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encode(Image.fromarray(chelsea), "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(photo), turns[orientation](chelsea))


def test_grey_becomes_three_equal_channels() -> None:
    camera = data.camera()
    result = load_image(encode(Image.fromarray(camera), "PNG"))
    np.testing.assert_array_equal(result, np.stack([camera] * 3, axis=-1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    camera = data.camera()
    deep = camera.astype(np.uint16) * 257  # 255 becomes 65535
    result = load_image(encode(Image.fromarray(deep), kind))
    np.testing.assert_array_equal(result[..., 0], camera)


def test_32_bit_grey_within_16_bits_is_read_as_16_bits() -> None:
    deep = data.camera().astype(np.int32) * 257
    np.testing.assert_array_equal(load_image(encode(Image.fromarray(deep), "TIFF"))[..., 0], data.camera())


@pytest.mark.parametrize("values", [np.float32(0.5), np.int32(1 << 20), np.int32(-1)])
def test_32_bit_pixels_of_unknown_range_are_rejected(values: np.generic) -> None:
    with pytest.raises(ImageError, match="32-bit pixels"):
        load_image(encode(Image.fromarray(np.full((8, 8), values)), "TIFF"))


def test_palette_images_decode_to_their_colours(chelsea: np.ndarray) -> None:
    palette = Image.fromarray(chelsea).quantize(64)
    np.testing.assert_array_equal(load_image(encode(palette, "PNG")), np.asarray(palette.convert("RGB")))


def test_transparent_pixels_become_white(chelsea: np.ndarray) -> None:
    alpha = np.full(chelsea.shape[:2], 255, np.uint8)
    alpha[:, :100] = 0
    result = load_image(encode(Image.fromarray(np.dstack([chelsea, alpha])), "PNG"))
    assert (result[:, :100] == 255).all()
    np.testing.assert_array_equal(result[:, 100:], chelsea[:, 100:])


def test_a_transparent_palette_entry_becomes_white() -> None:
    palette = Image.new("P", (4, 2), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 1)
    result = load_image(encode(palette, "PNG", transparency=0))
    assert result[0, 0].tolist() == [40, 50, 60]
    assert (result[1] == 255).all()


def test_cmyk_jpegs_decode_close_to_their_rgb_original(chelsea: np.ndarray) -> None:
    result = load_image(encode(Image.fromarray(chelsea).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(result.astype(int) - chelsea).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    result = load_image(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert np.abs(result.astype(int) - [255, 0, 0]).max() <= 3


def test_jpegs_decode_as_in_pillow() -> None:
    path = Path(data.__file__).parent / "rocket.jpg"
    np.testing.assert_array_equal(load_image(path), data.rocket())


# --- rejected files ---


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_rejected(tmp_path: Path, chelsea: np.ndarray, kind: str) -> None:
    path = tmp_path / "half"
    whole = encode(Image.fromarray(chelsea), kind)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"half' is (damaged|not an image).*Expected"):
        load_image(path)


def test_empty_files_and_text_files_are_not_images(tmp_path: Path) -> None:
    for name, content in (("empty.jpg", b""), ("text.jpg", b"not a photograph")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name}' is not an image\. Expected .*Convert"):
            load_image(tmp_path / name)


def test_errors_name_the_missing_file_or_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg' does not exist"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is a folder without images"):
        load_image(tmp_path)
    for impossible in ("x" * 5000, "null\0byte"):
        assert list(find_images([impossible])) == [Path(impossible)]
        with pytest.raises(ImageError, match=r"is damaged: embedded null|cannot be read: File name too long"):
            load_image(impossible)


@pytest.mark.parametrize("limit", [20_000, 5_000])
def test_decompression_bombs_are_rejected(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    # Pillow warns above its limit and raises above twice the limit; warnings are errors here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="too large"):
        load_image(encode(Image.new("L", (150, 150)), "PNG"))


def test_error_for_a_large_photo_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = encode(Image.new("L", (150, 150)), "PNG")
    for limit in (20_000, 5_000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(
            ImageError, match=r"KERAS_EFFNET_MAX_PIXELS, or in Python with PIL\.Image\.MAX_IMAGE_PIXELS"
        ):
            load_image(photo)


@pytest.mark.parametrize(("limit", "shape"), [("22_500", "(150, 150, 3)"), ("many", "is 'many'. Expected a number")])
def test_the_limit_can_be_set_in_the_environment(limit: str, shape: str) -> None:
    code = """
import io
from PIL import Image
from keras_effnet.images import load_image
Image.MAX_IMAGE_PIXELS = 5_000
file = io.BytesIO()
Image.new("L", (150, 150)).save(file, "PNG")
try:
    print(load_image(file.getvalue()).shape)
except ValueError as error:
    print(error)
"""
    env = {**os.environ, "KERAS_EFFNET_MAX_PIXELS": limit}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
    assert shape in done.stdout, done.stderr


# --- metadata ---


def png_with(photo: bytes, *chunks: tuple[bytes, bytes], broken: bool = False) -> bytes:
    """A PNG with more chunks after its header, possibly with wrong checksums."""
    added = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ broken)
        for kind, body in chunks
    ]
    return photo[:33] + b"".join(added) + photo[33:]


BIG = zlib.compress(bytes(3_000_000))
SIDE_CHUNKS = {
    "large profile": ((b"iCCP", b"icc\0\0" + BIG),),
    "large compressed text": ((b"zTXt", b"x\0\0" + BIG),),
    "large international text": ((b"iTXt", b"x\0\1\0\0\0" + BIG),),
    "large plain text": ((b"tEXt", b"x\0" + b"y" * 3_000_000),),
    "much text": tuple((b"zTXt", b"k\0\0" + zlib.compress(b"y" * 900_000)) for _ in range(80)),
    "profile that is no zlib stream": ((b"iCCP", b"icc\0\0" + b"nonsense"),),
    "profile of an unknown kind": ((b"iCCP", b"icc\0\7" + BIG),),
    "empty text": ((b"zTXt", b""), (b"tEXt", b""), (b"iTXt", b"")),
    "short chunks": ((b"gAMA", b""), (b"cHRM", b"1"), (b"pHYs", b""), (b"acTL", b""), (b"sRGB", b"")),
    "EXIF that is none": ((b"eXIf", b"nonsense"),),
    "empty EXIF": ((b"eXIf", b""),),
}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("kind", SIDE_CHUNKS)
def test_metadata_does_not_decide_whether_a_png_is_read(chelsea: np.ndarray, kind: str, broken: bool) -> None:
    photo = png_with(encode(Image.fromarray(chelsea), "PNG"), *SIDE_CHUNKS[kind], broken=broken)
    np.testing.assert_array_equal(load_image(photo), chelsea)
    np.testing.assert_array_equal(load_image(io.BytesIO(photo)), chelsea)
    assert OddFiles(total=2).read("photo", photo) is not None


def test_orientation_is_applied_next_to_a_large_profile(chelsea: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    photo = png_with(encode(Image.fromarray(chelsea), "PNG", exif=exif), *SIDE_CHUNKS["large profile"])
    np.testing.assert_array_equal(load_image(photo), chelsea[::-1, ::-1])


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


@pytest.mark.parametrize(
    "side",
    [
        segment(0xE1, b"Exif\0\0nonsense"),
        segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        segment(0xE1, b"Exif\0\0"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<broken"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\5\1nonsense"),
        segment(0xE2, b"MPF\0nonsense"),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\1\0\4\0\0\0\1\0\0\0\x09\0\0\0\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM"),
        segment(0xFE, b"\xff" * 65_000) * 40,
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe\0"),
    ],
)
def test_metadata_does_not_decide_whether_a_jpeg_is_read(chelsea: np.ndarray, side: bytes) -> None:
    photo = encode(Image.fromarray(chelsea), "JPEG")
    np.testing.assert_array_equal(load_image(photo[:2] + side + photo[2:]), load_image(photo))
    assert OddFiles(total=2).read("photo", photo[:2] + side + photo[2:]) is not None


@pytest.mark.parametrize("kind", [b"EXIF", b"XMP "])
@pytest.mark.parametrize("size", [b"\xff\xff\0\0", b"\xff\xff\xff\xff"])
def test_metadata_does_not_decide_whether_a_webp_is_read(chelsea: np.ndarray, kind: bytes, size: bytes) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    photo = encode(Image.fromarray(chelsea[:64, :64]), "WEBP", lossless=True, exif=exif, xmp=b"<x")
    at = photo.index(kind)
    np.testing.assert_array_equal(load_image(photo[: at + 4] + size + photo[at + 8 :]), chelsea[:64, :64])


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_a_webp_with_broken_text_is_applied(chelsea: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = encode(Image.fromarray(chelsea[:64, :32]), "WEBP", lossless=True, exif=exif, xmp=b"<x")
    at = photo.index(b"XMP ")
    expected = np.rot90(chelsea[:64, :32], {3: 2, 6: 3}[orientation])
    np.testing.assert_array_equal(load_image(photo[: at + 4] + b"\xff\xff\0\0" + photo[at + 8 :]), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_invalid_exif_values_are_ignored(chelsea: np.ndarray, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    exif[0x9286] = b"\xff\xfe\0\1"
    photo = encode(Image.fromarray(chelsea), kind, exif=exif)
    np.testing.assert_array_equal(load_image(photo), load_image(encode(Image.fromarray(chelsea), kind)))


def test_a_broken_later_frame_does_not_affect_the_first(chelsea: np.ndarray) -> None:
    frames = [Image.fromarray(chelsea[:64, :64]), Image.fromarray(chelsea[64:128, :64])]
    whole = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    cut = whole[: len(whole) * 3 // 4]
    odd = OddFiles(total=2)
    np.testing.assert_array_equal(odd.read("cut.gif", cut), load_image(whole))


@pytest.mark.parametrize(("kind", "options"), [("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_a_cut_later_frame_does_not_affect_the_first(chelsea: np.ndarray, kind: str, options: dict[str, bool]) -> None:
    frames = [Image.fromarray(chelsea[:64, :64]), Image.fromarray(chelsea[64:128, :64])]
    whole = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(load_image(whole[:-100]), chelsea[:64, :64])


def test_cut_off_pixels_are_still_damage(chelsea: np.ndarray) -> None:
    for kind in ("PNG", "JPEG", "WEBP"):
        photo = encode(Image.fromarray(chelsea), kind)
        with pytest.raises(ImageError, match="is damaged"):
            load_image(photo[: len(photo) // 2])


def test_errors_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "gone.jpg")
    assert "\n" not in str(caught.value)


# --- cropping and resizing ---


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    # 224 / 256 of 256 or 257 pixels is 224, so nothing is resized. Offsets: ((height - 224) + 1) // 2.
    [(256, 300, 16, 38), (300, 256, 38, 16), (257, 257, 17, 17), (256, 1001, 16, 389)],
)
def test_the_crop_matches_the_published_evaluation(height: int, width: int, top: int, left: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = center_crop_and_resize(image, 224)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, image[top : top + 224, left : left + 224])


@pytest.mark.parametrize("crop_padding", [0, 32, 64])
def test_crop_padding_removes_that_many_pixels_of_the_result(crop_padding: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    start = crop_padding // 2
    result = center_crop_and_resize(image, 320 - crop_padding, crop_padding)
    np.testing.assert_array_equal(result, image[start : 320 - start, start : 320 - start])


@pytest.mark.parametrize("size", [32, 33, 224, 260, 299])
@pytest.mark.parametrize("shape", [(1, 1), (40, 31), (300, 451), (512, 512), (1000, 872), (127, 2049)])
def test_the_resize_matches_tensorflow_1_bicubic(shape: tuple[int, int], size: int) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, the reference for its own resize, is not installed")
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    crop = max(1, int(tf.cast(size / (size + 32) * tf.cast(min(shape), tf.float32), tf.int32)))
    top, left = ((side - crop + 1) // 2 for side in shape)
    square = image[None, top : top + crop, left : left + crop]
    expected = tf.raw_ops.ResizeBicubic(images=square, size=[size, size], half_pixel_centers=False)[0].numpy()
    np.testing.assert_allclose(center_crop_and_resize(image, size), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [32, 33, 224, 384])
@pytest.mark.parametrize("shape", [(1, 1), (40, 31), (300, 451), (1000, 872), (127, 3500)])
def test_a_whole_photo_is_resized_as_by_tensorflow(shape: tuple[int, int], size: int) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, the reference for its own resize, is not installed")
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = tf.image.resize(image, (size, size)).numpy()
    np.testing.assert_allclose(View(size, None).pixels(image), expected, atol=1e-3, rtol=0)


def test_a_whole_photo_of_the_right_size_keeps_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 37, 3), dtype=np.uint8)
    np.testing.assert_array_equal(View(37, None).pixels(image), image)


def test_the_crop_side_is_truncated_in_float32_as_in_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, the reference for its own rounding, is not installed")
    for size in (224, 240, 260, 280, 300, 380, 456, 528, 600, 672, 800):
        sides = np.arange(1, 6000)
        expected = tf.cast(size / (size + 32) * tf.cast(sides, tf.float32), tf.int32).numpy()
        ours = (np.float32(size / (size + 32)) * sides.astype(np.float32)).astype(np.int64)
        np.testing.assert_array_equal(ours, expected)


def test_bicubic_overshoot_is_not_clipped() -> None:
    edge = np.zeros((100, 100, 3), np.uint8)
    edge[:, 50:] = 255
    result = center_crop_and_resize(edge, 224)
    assert result.min() < -5
    assert result.max() > 260


def test_floats_and_integers_give_the_same_result(chelsea: np.ndarray) -> None:
    expected = center_crop_and_resize(chelsea, 224)
    np.testing.assert_array_equal(center_crop_and_resize(chelsea.astype(np.float64), 224), expected)


def test_resizing_a_large_photo_needs_memory_only_for_the_result() -> None:
    photo = np.zeros((3000, 4000, 3), np.uint8)
    tracemalloc.start()
    center_crop_and_resize(photo, 224)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Four rows and columns per pixel, as float32, twice; the whole photo would take 144 MB as float32.
    assert peak < 2 * 224 * (4 * 224) * 3 * 4 * 2


@pytest.mark.parametrize("size", [(224, 224), 224.0, "224", 0, -1, None])
def test_a_size_that_is_not_a_positive_integer_is_rejected(size: object) -> None:
    with pytest.raises(ValueError, match=r"size is .* Expected a whole number"):
        center_crop_and_resize(np.zeros((300, 300, 3), np.uint8), size)


@pytest.mark.parametrize("shape", [(300, 300), (1, 300, 300, 3), (300, 300, 4), (0, 300, 3)])
def test_other_shapes_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="has the shape"):
        center_crop_and_resize(np.zeros(shape, np.uint8), 224)


# --- finding ---


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", "._b.jpg", "below/c.webp", ".hidden/d.jpg", "empty/readme.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_folders_list_only_images_in_sorted_order(tree: Path) -> None:
    assert list(find_images([tree])) == [tree / "a.PNG", tree / "b.jpg", tree / "below/c.webp"]


def test_files_of_operating_systems_are_ignored(tree: Path) -> None:
    for name in ("__MACOSX/below/._c.jpg", "__MACOSX/x.jpg", "@eaDir/x.jpg", "Thumbs.db", "desktop.ini", ".DS_Store"):
        path = tree / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    assert list(find_images([tree])) == [tree / "a.PNG", tree / "b.jpg", tree / "below/c.webp"]


def test_linked_folders_are_listed_once(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("disk")
    (elsewhere / "e.jpg").touch()
    (elsewhere / "back").symlink_to(tree)
    for name in ("again", "linked"):
        (tree / name).symlink_to(elsewhere)
    (tree / "below" / "up").symlink_to("..")
    (tree / "alias").symlink_to("below")
    assert list(find_images([tree])) == [
        *(tree / "a.PNG", tree / "b.jpg", tree / "below/c.webp"),
        tree / "again/e.jpg",
    ]
    (tree / "only").mkdir()
    (tree / "only" / "linked").symlink_to(elsewhere)
    assert tree / "only/linked/e.jpg" in list(find_images([tree / "only"]))


def test_broken_links_are_named(tree: Path) -> None:
    (tree / "z.jpg").symlink_to("gone.jpg")
    (tree / "photos").symlink_to("/gone/photos")
    found = list(find_images([tree]))
    assert {tree / "z.jpg", tree / "photos"} < set(found)
    with pytest.raises(ImageError, match=r"photos' is a broken link to '/gone/photos'"):
        load_image(tree / "photos")


def test_folders_that_cannot_be_listed_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "below":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(find_images([tree])) == [tree / "a.PNG", tree / "b.jpg", tree / "below"]


def test_patterns_that_the_shell_did_not_expand_are_expanded(tree: Path) -> None:
    assert list(find_images([str(tree / "*.[jP]*")])) == [tree / "a.PNG", tree / "b.jpg"]
    assert list(find_images([str(tree / "bel*")])) == [tree / "below/c.webp"]
    assert list(find_images([str(tree / "**/c.*")])) == [tree / "below/c.webp"]


def test_a_file_is_listed_whatever_its_name(tree: Path) -> None:
    odd = tree / "photo[1]"
    odd.touch()
    assert list(find_images([odd, tree / "notes.txt"])) == [odd, tree / "notes.txt"]


def test_paths_without_images_are_returned_unchanged(tree: Path) -> None:
    lost = [tree / "gone.jpg", tree / "*.tiff", tree / "empty"]
    assert list(find_images(lost)) == lost
    for path in lost:
        with pytest.raises(ImageError):
            load_image(path)


# --- samples ---


@pytest.mark.parametrize("name", ["astronaut", "cat", "chelsea", "coffee", "rocket"])
def test_samples_are_the_photographs_of_scikit_image(name: str) -> None:
    np.testing.assert_array_equal(sample(name), getattr(data, name)())


def test_grey_samples_become_rgb() -> None:
    np.testing.assert_array_equal(sample("camera")[..., 1], data.camera())


def test_the_motorcycle_sample_is_the_left_image() -> None:
    np.testing.assert_array_equal(sample("stereo_motorcycle"), data.stereo_motorcycle()[0])


@pytest.mark.parametrize("name", ["eagle", "no-such-photo", "../data/chelsea"])
def test_an_unknown_sample_is_rejected_with_a_list_of_samples(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"does not contain the sample .* Expected one of astronaut, .*coffee.* pass its path"
    ):
        sample(name)


def test_without_scikit_image_the_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        sample("chelsea")
