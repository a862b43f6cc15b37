"""AutoAugment and RandAugment: operations compared with Pillow or NumPy, and how policies draw them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from keras_effnet.data.augment_policies import AUTOAUGMENT, OPERATIONS, Policy, Step, randaugment

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.data.tf_augment import augment  # noqa: E402
from keras_effnet.data.tf_augment_ops import operations  # noqa: E402

FACTORS = (0.1, 0.28, 0.82, 1.0, 1.36, 1.9)


def noise(seed: int = 0) -> np.ndarray:
    """Noise with a different range in each channel, including 0 and 255."""
    rng = np.random.default_rng(seed)
    image = rng.normal([60, 128, 200], [30, 60, 25], (96, 80, 3)).clip(0, 255)
    return image.astype("uint8")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    flat = np.full((40, 30, 3), 77, "uint8")
    two = np.zeros((16, 16, 3), "uint8")
    two[3:5] = 9
    return [data.chelsea()[::2, ::2], noise(), flat, two]


def run(name: str, image: np.ndarray, argument: float = 0.0, seed: Any = (0, 0)) -> np.ndarray:
    return np.asarray(operations()[name](tf.constant(image), tf.constant(argument, tf.float32), tf.constant(seed)))


def worst(ours: np.ndarray, theirs: Any) -> int:
    return int(np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max())


PILLOW: dict[str, tuple[tuple[float, ...], Callable[[Image.Image, float], Image.Image]]] = {
    "AutoContrast": ((0,), lambda image, _: ImageOps.autocontrast(image)),
    "Equalize": ((0,), lambda image, _: ImageOps.equalize(image)),
    "Invert": ((0,), lambda image, _: ImageOps.invert(image)),
    "Posterize": ((1, 2, 3, 4, 8), lambda image, bits: ImageOps.posterize(image, int(bits))),
    "Solarize": ((0, 51, 128, 204, 255), lambda image, threshold: ImageOps.solarize(image, int(threshold))),
    "Color": (FACTORS, lambda image, factor: ImageEnhance.Color(image).enhance(factor)),
    "Brightness": (FACTORS, lambda image, factor: ImageEnhance.Brightness(image).enhance(factor)),
    "Sharpness": (FACTORS, lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor)),
}


@pytest.mark.parametrize("name", sorted(PILLOW))
def test_operations_match_pillow_within_one_level(name: str, pictures: list[np.ndarray]) -> None:
    arguments, pillow = PILLOW[name]
    for image in pictures:
        for argument in arguments:
            theirs = pillow(Image.fromarray(image), argument)
            assert worst(run(name, image, argument), theirs) <= 1, argument


@pytest.mark.parametrize("name", ["Equalize", "Invert", "Posterize", "Solarize"])
def test_integer_operations_match_pillow_exactly(name: str, pictures: list[np.ndarray]) -> None:
    arguments, pillow = PILLOW[name]
    for image in pictures:
        for argument in arguments:
            assert worst(run(name, image, argument), pillow(Image.fromarray(image), argument)) == 0


@pytest.mark.parametrize("bits", [0, 11])
def test_posterize_overflows_like_uint8_shifts(bits: int) -> None:
    image, shift = noise(), np.array(8 - bits).astype("uint8")
    assert worst(run("Posterize", image, bits), tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)) == 0


@pytest.mark.parametrize("threshold", [256, 716])
def test_solarize_overflows_like_uint8(threshold: int) -> None:
    image = noise()
    expected = np.where(image < np.array(threshold).astype("uint8"), image, 255 - image)
    assert worst(run("Solarize", image, threshold), expected) == 0


@pytest.mark.parametrize("side", [32, 150, 300])
@pytest.mark.parametrize("factor", FACTORS)
def test_contrast_matches_the_source_and_not_pillow(side: int, factor: float) -> None:
    image = np.random.default_rng(1).integers(40, 90, (side, side, 3)).astype("uint8")
    # The source sums a histogram, which is the number of pixels, and divides by the 256 bins.
    grey = np.floor(min(side * side / 256, 255.0))
    mixed = np.float32(grey) + np.float32(factor) * (image.astype("float32") - np.float32(grey))
    assert worst(run("Contrast", image, factor), mixed.clip(0, 255).astype("uint8")) <= 1
    pillow = ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor)
    assert factor == 1 or worst(run("Contrast", image, factor), pillow) > 1


@pytest.mark.parametrize("addition", [0, 33, 77, 110])
def test_solarize_add_brightens_the_dark_half(addition: int) -> None:
    image = noise()
    expected = np.where(image < 128, (image.astype(int) + addition).clip(0, 255), image)
    assert worst(run("SolarizeAdd", image, addition), expected) == 0


def nearest(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Output (x, y) is the input at matrix @ (x, y, 1), the nearest pixel, grey outside."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype("float32")
    # In float32, like the TensorFlow kernel; otherwise halves would be rounded differently.
    at = [a * x + b * y + c for a, b, c in matrix.astype("float32")]
    column, row = (np.floor(np.abs(v) + 0.5) * np.sign(v) for v in at)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    out = np.full_like(image, 128)
    out[inside] = image[row[inside].astype(int), column[inside].astype(int)]
    return out


@pytest.mark.parametrize("level", [-0.27, -0.12, 0.0, 0.3])
def test_shears_take_the_nearest_pixel(level: float, pictures: list[np.ndarray]) -> None:
    for image in pictures[:2]:
        x = nearest(image, np.array([[1, level, 0], [0, 1, 0]]))
        y = nearest(image, np.array([[1, 0, 0], [level, 1, 0]]))
        assert differing(run("ShearX", image, level), x) < 0.002
        assert differing(run("ShearY", image, level), y) < 0.002


@pytest.mark.parametrize("pixels", [-225.0, -10.0, 3.0, 60.0])
def test_translations_shift(pixels: float, pictures: list[np.ndarray]) -> None:
    image = pictures[0]
    assert differing(run("TranslateX", image, pixels), nearest(image, np.array([[1, 0, pixels], [0, 1, 0]]))) == 0
    assert differing(run("TranslateY", image, pixels), nearest(image, np.array([[1, 0, 0], [0, 1, pixels]]))) == 0


@pytest.mark.parametrize("degrees", [-30.0, -6.0, 15.0, 24.0])
def test_rotations_turn_about_the_centre(degrees: float, pictures: list[np.ndarray]) -> None:
    for image in pictures[:2]:
        height, width = image.shape[:2]
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turn = np.array([[cos, -sin], [sin, cos]])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix = np.column_stack([turn, centre - turn @ centre])
        assert differing(run("Rotate", image, degrees), nearest(image, matrix)) < 0.002


def differing(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The share of pixels that differ; fused multiply-adds round some halves differently."""
    return float((ours != theirs).any(axis=-1).mean())


def test_a_rotation_by_90_degrees_is_exact() -> None:
    image = noise()[:80]
    assert np.array_equal(run("Rotate", image, 90.0), np.rot90(image, 1)) or np.array_equal(
        run("Rotate", image, 90.0), np.rot90(image, -1)
    )


def test_cutout_greys_a_square_clipped_at_the_border() -> None:
    image = np.zeros((60, 50, 3), "uint8")
    shapes = set()
    for seed in range(40):
        rows, columns, _ = np.nonzero(run("Cutout", image, 10.0, (seed, 7)))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width * 3
        assert {10 <= height <= 20, 10 <= width <= 20} == {True}
        shapes.add((rows[0], columns[0]))
    assert len(shapes) > 30


# --- policies ---


def test_levels_are_converted_to_arguments() -> None:
    def of(name: str, level: float, policy: Policy = AUTOAUGMENT) -> float:
        return policy.argument(Step(name, 1.0, level))

    assert [of("Posterize", level) for level in (0, 6, 10)] == [0, 2, 4]
    assert [of("Solarize", level) for level in (0, 3, 10)] == [0, 76, 256]
    assert [of("SolarizeAdd", level) for level in (3, 7)] == [33, 77]
    assert [of("Color", level) for level in (0, 5, 10)] == pytest.approx([0.1, 1.0, 1.9])
    assert (of("Rotate", 9), of("ShearY", 4), of("TranslateY", 9)) == pytest.approx((27, 0.12, 225))
    ra = randaugment(2, 28)
    assert (of("Cutout", 28, ra), of("TranslateX", 28, ra), of("Rotate", 28, ra)) == pytest.approx((112, 280, 84))


def test_autoaugment_has_25_pairs_of_known_operations() -> None:
    assert len(AUTOAUGMENT.rows) == 25
    assert {len(row) for row in AUTOAUGMENT.rows} == {2}
    assert {step.operation for row in AUTOAUGMENT.rows for step in row} <= set(OPERATIONS)
    # Occurrences counted by hand in the source.
    counts = {name: sum(step.operation == name for row in AUTOAUGMENT.rows for step in row) for name in OPERATIONS}
    assert (counts["Equalize"], counts["Solarize"], counts["Color"], counts["Rotate"]) == (12, 8, 9, 7)
    assert counts["Contrast"] == counts["Cutout"] == counts["Brightness"] == 0


def test_steps_with_probability_1_and_0() -> None:
    image = noise()
    sure = Policy(((Step("Invert", 1.0, 0), Step("Equalize", 0.0, 0)),), 1, 0, 0)
    assert np.array_equal(augment(image, sure, seed=[3, 4]), 255 - image)


def test_steps_are_applied_with_their_probability_and_half_of_them_negated() -> None:
    image = np.zeros((8, 8, 3), "uint8")
    image[:, 3] = 200
    policy = Policy(((Step("TranslateX", 0.5, 10),),), 1, 0, 2)
    draw = tf.function(lambda seed: augment(image, policy, seed=seed))
    columns = [int(np.argmax(draw(tf.constant([9, n]))[0, :, 0])) for n in range(400)]
    counts = [columns.count(column) / 400 for column in (1, 3, 5)]
    # Shifted by two to the left, not at all, or to the right; 0.1 is four standard deviations.
    assert counts == pytest.approx([0.25, 0.5, 0.25], abs=0.1)
    assert sum(counts) == 1


def test_the_result_depends_on_the_seed_only() -> None:
    image = noise()
    draw = tf.function(lambda seed: augment(image, randaugment(), seed=seed))
    first = [np.asarray(draw(tf.constant([1, n]))) for n in range(12)]
    again = [np.asarray(draw(tf.constant([1, n]))) for n in range(12)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.tobytes() for image in first}) > 9


def test_randaugment_has_every_operation_once() -> None:
    policy = randaugment(1, 5)
    assert [row[0].operation for row in policy.rows] == list(OPERATIONS)
    assert {row[0].probability for row in policy.rows} == {1.0}
    assert len(OPERATIONS) == 16


@pytest.mark.parametrize("policy", [AUTOAUGMENT, randaugment(2, 28)], ids=["autoaugment", "randaugment"])
def test_policies_run_in_a_pipeline_and_keep_shape_and_dtype(policy: Policy) -> None:
    images = tf.data.Dataset.from_tensors(noise()).repeat(60).enumerate()
    batches = images.map(lambda n, image: augment(image, policy, seed=tf.stack([n, 5]))).batch(60)
    batch = next(iter(batches))
    assert (batch.shape, batch.dtype) == ((60, 96, 80, 3), tf.uint8)
    assert len({image.tobytes() for image in np.asarray(batch)}) > 20


def test_operations_accept_a_black_image() -> None:
    black = np.zeros((9, 9, 3), "uint8")
    for name in OPERATIONS:
        assert run(name, black, 0.0).shape == black.shape
