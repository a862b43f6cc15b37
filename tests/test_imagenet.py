"""ImageNet's labels, compared with the file that Keras publishes, and normalisation, compared with arithmetic."""

import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import keras_effnet.imagenet
from keras_effnet._keras import LEGACY, keras
from keras_effnet.imagenet import (
    check_input_range,
    class_index,
    decode_predictions,
    labels,
    normalize,
    normalizes_inside,
    preprocess_input,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255

EXPECTED = {
    "imagenet": (PIXELS - MEAN) / STD,
    "advprop": PIXELS / 127.5 - 1,
    "lite": (PIXELS - 127.0) / 128.0,
}


@pytest.fixture(autouse=True)
def warnings_not_shown_yet() -> Iterator[None]:
    keras_effnet.imagenet._warn_once.cache_clear()
    yield
    keras_effnet.imagenet._warn_once.cache_clear()


def network(*first: object, name: str = "network") -> object:
    image = keras.Input((32, 32, 3))
    x = image
    for layer in (*first, keras.layers.Conv2D(4, 3), keras.layers.Rescaling(2.0)):
        x = layer(x)
    return keras.Model(image, x, name=name)


def to_numpy(x: object) -> np.ndarray:
    return x.numpy() if LEGACY else keras.ops.convert_to_numpy(x)


def tensor(x: np.ndarray) -> object:
    return keras.backend.constant(x, dtype="float32") if LEGACY else keras.ops.convert_to_tensor(x)


# --- labels ---


def test_the_class_index_matches_keras_except_for_seven_disambiguated_labels() -> None:
    index = json.loads((Path(keras_effnet.imagenet.__file__).parent / "imagenet_class_index.json").read_text("utf-8"))
    published = {21: "kite", 134: "crane", 271: "red_wolf", 517: "crane", 638: "maillot", 639: "maillot", 677: "nail"}
    for i, label in published.items():
        index[str(i)][1] = label
    # The digest that keras.applications.imagenet_utils expects of the file that it downloads.
    assert hashlib.md5(json.dumps(index).encode()).hexdigest() == "c2c37ea517e94d9795004a39431a14cb"


def test_well_known_labels_have_their_index() -> None:
    assert len(labels()) == 1000
    expected = {0: "tench", 281: "tabby", 285: "Egyptian_cat", 967: "espresso", 999: "toilet_tissue"}
    assert {i: labels()[i] for i in expected} == expected


def test_decoded_predictions_match_keras_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("keras.src.applications.imagenet_utils", reason="Keras 3 is not installed")
    path = Path(keras_effnet.imagenet.__file__).parent / "imagenet_class_index.json"
    monkeypatch.setattr(module, "CLASS_INDEX", json.loads(path.read_text("utf-8")))
    scores = np.random.default_rng(0).random((4, 1000)).astype(np.float32)
    for top in (1, 5, 1000):
        expected = module.decode_predictions(scores, top=top)
        assert decode_predictions(scores, top=top) == expected
        assert decode_predictions(tensor(scores), top=top) == expected
    assert [type(value) for value in decode_predictions(scores)[0][0]] == [type(value) for value in expected[0][0]]


@pytest.mark.parametrize("shape", [(1000,), (1, 999), (1, 1001), (1, 1, 1000), ()])
def test_predictions_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"have the shape .* Expected .*\(batch, 1000\)"):
        decode_predictions(np.zeros(shape))


def test_all_of_imagenet_has_21843_classes_in_the_order_of_their_wordnet_ids() -> None:
    index = class_index(21843)
    assert len(index) == 21843
    assert [wnid for wnid, _ in index] == sorted(wnid for wnid, _ in index)
    # The labels of WordNet 3.0 for three of the 1000 classes.
    names = dict(index)
    assert [names[wnid] for wnid, _ in (class_index()[i] for i in (0, 281, 967))] == ["tench", "tabby", "espresso"]
    scores = np.zeros((1, 21843), np.float32)
    scores[0, 1] = 1
    assert decode_predictions(scores, top=1) == [[("n00005787", "benthos", 1.0)]]
    with pytest.raises(ValueError, match="classes is 999. Expected 1000 or 21843"):
        class_index(999)


def test_top_below_1_is_rejected() -> None:
    with pytest.raises(ValueError, match="top is 0"):
        decode_predictions(np.zeros((1, 1000)), top=0)


# --- preprocess_input and normalize ---


@pytest.mark.parametrize(
    ("arguments", "which"),
    [
        ({"weights": "imagenet"}, "imagenet"),
        ({"weights": "noisy-student"}, "imagenet"),
        ({"weights": "randaugment"}, "imagenet"),
        ({"weights": "autoaugment"}, "imagenet"),
        ({"weights": "advprop"}, "advprop"),
        ({"weights": "advprop", "variant": "b8"}, "advprop"),
        ({"variant": "b7"}, "imagenet"),
        ({"variant": "EfficientNetLite0"}, "lite"),
        ({"variant": "lite0", "weights": "imagenet"}, "lite"),
    ],
)
def test_each_weight_set_has_its_own_normalisation(arguments: dict[str, str], which: str) -> None:
    before = PIXELS.copy()
    result = normalize(PIXELS, "channels_last", **arguments)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, EXPECTED[which], atol=1e-5)
    np.testing.assert_array_equal(PIXELS, before)


def test_normalize_matches_the_torch_mode_of_keras_applications() -> None:
    utils = keras.applications.imagenet_utils
    expected = utils.preprocess_input(PIXELS.astype(np.float32), "channels_last", mode="torch")
    np.testing.assert_allclose(normalize(PIXELS, "channels_last", weights="imagenet"), expected, atol=1e-5)


def test_single_images_and_channels_first_are_normalised() -> None:
    one = normalize(PIXELS[0], "channels_last", weights="imagenet")
    np.testing.assert_allclose(one, EXPECTED["imagenet"][0], atol=1e-5)
    first = normalize(PIXELS.transpose(0, 3, 1, 2), "channels_first", weights="imagenet")
    np.testing.assert_allclose(first, EXPECTED["imagenet"].transpose(0, 3, 1, 2), atol=1e-5)
    first = normalize(PIXELS[0].transpose(2, 0, 1), "channels_first", weights="imagenet")
    np.testing.assert_allclose(first, EXPECTED["imagenet"][0].transpose(2, 0, 1), atol=1e-5)


def test_the_input_array_is_not_changed() -> None:
    pixels = PIXELS.astype(np.float32)
    normalize(pixels, "channels_last", weights="advprop")
    np.testing.assert_array_equal(pixels, PIXELS)


def test_tensors_of_the_backend_stay_tensors() -> None:
    x = tensor(PIXELS)
    result = normalize(x, "channels_last", weights="imagenet")
    assert type(result) is type(tensor(EXPECTED["imagenet"]))
    np.testing.assert_allclose(to_numpy(result), EXPECTED["imagenet"], atol=1e-5)
    np.testing.assert_array_equal(to_numpy(x), PIXELS)


def test_normalize_works_in_a_functional_model() -> None:
    image = keras.Input((5, 4, 3))
    model = keras.Model(image, normalize(image, "channels_last", weights="imagenet"))
    np.testing.assert_allclose(to_numpy(model(tensor(PIXELS.astype("float32")))), EXPECTED["imagenet"], atol=1e-5)


def test_pixels_stay_unchanged_for_a_model_that_normalises_inside() -> None:
    model = network(keras.layers.Rescaling(1 / 255))
    assert normalize(PIXELS, model=model) is PIXELS
    nested = keras.Sequential([keras.layers.RandomFlip("horizontal"), model, keras.layers.GlobalAveragePooling2D()])
    assert normalize(PIXELS, model=nested) is PIXELS


def test_pixels_are_normalised_for_a_model_that_does_not_normalise() -> None:
    model = network()
    result = normalize(PIXELS, "channels_last", model=model)
    np.testing.assert_allclose(result, EXPECTED["imagenet"], atol=1e-5)
    result = normalize(PIXELS, "channels_last", model=model, weights="advprop")
    np.testing.assert_allclose(result, EXPECTED["advprop"], atol=1e-5)


def test_the_name_of_the_model_identifies_the_network() -> None:
    lite = network(name="efficientnetlite0")
    for model in (lite, keras.Sequential([lite, keras.layers.GlobalAveragePooling2D()])):
        result = normalize(PIXELS, "channels_last", model=model)
        np.testing.assert_allclose(result, EXPECTED["lite"], atol=1e-5)


def test_a_rescaling_after_the_first_weights_is_not_normalisation() -> None:
    assert not normalizes_inside(network())
    assert normalizes_inside(network(keras.layers.Rescaling(1 / 255)))


def test_without_a_model_or_weight_set_imagenets_constants_are_used() -> None:
    np.testing.assert_allclose(normalize(PIXELS, "channels_last"), EXPECTED["imagenet"], atol=1e-5)


@pytest.mark.parametrize("module", ["efficientnet", "efficientnet_v2"])
def test_preprocess_input_returns_its_input_as_in_keras_applications(module: str) -> None:
    theirs = getattr(keras.applications, module).preprocess_input
    for x in (PIXELS, PIXELS.astype("float32"), tensor(PIXELS), PIXELS.tolist()):
        assert theirs(x) is x
        assert keras_effnet.preprocess_input(x) is keras_effnet.preprocess_input(x, "channels_first") is x


def test_pipeline_written_for_keras_applications_gives_the_same_pixels() -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    # The two lines of Keras's tutorial on fine-tuning EfficientNet and of its transfer-learning guide.
    ds = tf.data.Dataset.from_tensor_slices((PIXELS, [0, 1])).batch(2)
    ds = ds.map(lambda x, y: (preprocess_input(x), y))
    [(pixels, targets)] = ds.as_numpy_iterator()
    np.testing.assert_array_equal(pixels, PIXELS)
    assert pixels.dtype == np.uint8
    assert targets.tolist() == [0, 1]


def test_unknown_names_are_rejected_with_a_list_of_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no weight set 'imagnet' .*advprop, .*noisy-student"):
        normalize(PIXELS, weights="imagnet")
    with pytest.raises(ValueError, match=r"no weight set 'advprop' for lite0.* one of imagenet\."):
        normalize(PIXELS, weights="advprop", variant="lite0")
    with pytest.raises(ValueError, match="There is no network 'b9'"):
        normalize(PIXELS, variant="b9")
    with pytest.raises(ValueError, match="data_format is 'last'"):
        normalize(PIXELS, "last", weights="imagenet")


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 8, 8), (1, 8, 8, 1), (1, 1, 8, 8, 3)])
def test_images_without_three_channels_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="have the shape"):
        normalize(np.zeros(shape), "channels_last", weights="imagenet")


# --- check_input_range ---


def test_images_0_to_1_for_a_model_that_rescales_cause_one_warning() -> None:
    model = network(keras.layers.Rescaling(1 / 255))
    with pytest.warns(UserWarning, match=r"normalises inside and expects 0\.\.255") as caught:
        check_input_range(PIXELS / PIXELS.max(), model)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_input_range(PIXELS / 300, network(keras.layers.Rescaling(1 / 128, -1), name="another"))


def test_tensors_are_checked_too() -> None:
    with pytest.warns(UserWarning, match="expects 0"):
        check_input_range(tensor((PIXELS / 255).astype(np.float32)), network(keras.layers.Rescaling(1 / 255)))


def test_images_of_the_expected_range_cause_no_warning() -> None:
    rescaling = network(keras.layers.Rescaling(1 / 255))
    check_input_range(PIXELS, rescaling)
    check_input_range(PIXELS.astype(np.float32), rescaling)
    check_input_range(np.zeros((1, 4, 4, 3), np.uint8), rescaling)  # integers cannot have been scaled
    check_input_range(np.zeros((0, 4, 4, 3)), rescaling)
    check_input_range(PIXELS / 255, network())
