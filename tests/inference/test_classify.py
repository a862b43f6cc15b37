"""Classification: order, unreadable files, bounded memory and the meaning of a model's outputs.

The networks have one dense layer; the references are Keras's own calls and NumPy.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.data.labelled_photos import Examples
from keras_effnet.imagenet import labels, normalize
from keras_effnet.images import center_crop_and_resize
from keras_effnet.inference.classifier import Classifier, as_classifier, load_classifier
from keras_effnet.inference.classify import Prediction, classify
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.inference.labels import read_classes

data = pytest.importorskip("skimage.data", reason="scikit-image, whose photographs are used, is not installed")

NAMES = ("chelsea", "coffee", "rocket", "astronaut", "camera")


def network(
    classes: int = 1000,
    *,
    size: int | None = 32,
    activation: Any = "softmax",
    rescale: bool = True,
    name: str = "network",
    seed: int = 0,
) -> Any:
    """Mean colours and a random dense layer, so that every photo has different scores."""
    image = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 255)(image) if rescale else image
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(
        classes, activation=activation, kernel_initializer=keras.initializers.RandomNormal(0, 3, seed)
    )(x)
    return keras.Model(image, x, name=name)


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def by_hand(model: Any, name: str, size: int = 32) -> np.ndarray:
    photo = np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
    return np.asarray(model.predict(center_crop_and_resize(photo, size)[None], verbose=0))[0]


def test_labels_come_in_order_with_their_scores(model: Any, folder: Path) -> None:
    paths = [folder / f"{name}.png" for name in NAMES]
    predictions = list(classify(paths, model=model, top=3, batch_size=2))
    assert [prediction.path for prediction in predictions] == [str(path) for path in paths]
    for prediction, name in zip(predictions, NAMES, strict=True):
        scores = by_hand(model, name)
        best = sorted(range(1000), key=lambda i: -scores[i])[:3]
        assert prediction.error is None
        assert [label for _, label, _ in prediction.labels] == [labels()[i] for i in best]
        np.testing.assert_allclose([score for _, _, score in prediction.labels], scores[best], rtol=1e-4)
        assert all(wnid.startswith("n") for wnid, _, _ in prediction.labels)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 32])
def test_the_batch_size_changes_nothing(model: Any, folder: Path, batch_size: int) -> None:
    paths = [str(folder / f"{name}.png") for name in NAMES]
    one_by_one = [next(classify([path], model=model)) for path in paths]
    for ours, alone in zip(classify(paths, model=model, batch_size=batch_size), one_by_one, strict=True):
        assert [row[:2] for row in ours.labels] == [row[:2] for row in alone.labels]
        np.testing.assert_allclose([row[2] for row in ours.labels], [row[2] for row in alone.labels], rtol=1e-4)


def test_a_named_array_is_classified_like_its_file(model: Any, folder: Path) -> None:
    (ours,) = classify([("a cat", data.chelsea())], model=model)
    (from_file,) = classify([folder / "chelsea.png"], model=model)
    assert ours == Prediction("a cat", from_file.labels)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_unreadable_files_get_errors_and_the_others_labels(
    model: Any, folder: Path, tmp_path: Path, batch_size: int
) -> None:
    cut = tmp_path / "cut.png"
    whole = (folder / "chelsea.png").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    photos = [tmp_path / "gone.jpg", folder / "chelsea.png", cut, ("odd", np.zeros((4, 4, 2))), folder / "coffee.png"]
    predictions = list(classify(photos, model=model, batch_size=batch_size))
    assert [prediction.error is None for prediction in predictions] == [False, True, False, False, True]
    assert [len(prediction.labels) for prediction in predictions] == [0, 5, 0, 0, 5]
    for prediction, reason in zip(predictions[::2], ("does not exist", "is damaged"), strict=False):
        assert reason in prediction.error
    assert "has the shape (4, 4, 2)" in predictions[3].error


def test_the_model_is_not_called_without_readable_photos(tmp_path: Path) -> None:
    broken = Classifier(None, ((None, "label"),), 32)
    assert list(classify([], model=broken)) == []
    assert [bool(prediction.error) for prediction in classify([tmp_path / "gone"] * 3, model=broken)] == [True] * 3


def test_at_most_two_batches_are_held(model: Any) -> None:
    drawn = []

    def photos() -> Iterator[tuple[str, np.ndarray]]:
        for i in range(100):
            drawn.append(i)
            yield str(i), np.zeros((8, 8, 3), np.uint8)

    predictions = classify(photos(), model=model, batch_size=4)
    assert drawn == []
    for done, prediction in enumerate(predictions):
        assert prediction.path == str(done)
        assert len(drawn) <= done + 2 * 4


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_an_error_of_the_iterator_comes_after_the_photos_before_it(model: Any, batch_size: int) -> None:
    def photos() -> Iterator[tuple[str, np.ndarray]]:
        for name in NAMES[:3]:
            yield name, getattr(data, name)()
        raise OSError("the disk is gone")

    names: list[str] = []
    with pytest.raises(OSError, match="the disk is gone"):
        names.extend(prediction.path for prediction in classify(photos(), model=model, batch_size=batch_size))
    assert names == list(NAMES[:3])


def test_keras_is_called_in_the_callers_thread(folder: Path) -> None:
    threads = set()

    class Watched(Classifier):
        def scores(self, images: np.ndarray) -> np.ndarray:
            threads.add(threading.current_thread())
            return np.full((len(images), 3), 1 / 3, np.float32)

    watched = Watched(None, ((None, "a"), (None, "b"), (None, "c")), 32)
    assert len(list(classify([folder / "chelsea.png"] * 5, model=watched, batch_size=2))) == 5
    # Keras keeps its settings for each thread.
    assert threads == {threading.current_thread()}


def test_nan_scores_are_an_error(folder: Path) -> None:
    broken = network()
    broken.layers[-1].set_weights([np.full_like(value, np.nan) for value in broken.layers[-1].get_weights()])
    (prediction,) = classify([folder / "chelsea.png"], model=broken)
    assert "NaN or infinite" in prediction.error


@pytest.mark.parametrize("argument", ["top", "batch_size"])
def test_counts_below_one_are_refused_at_once(model: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} is 0"):
        classify([], model=model, **{argument: 0})


# --- the meaning of the outputs ---


def test_logits_become_probabilities() -> None:
    logits, probabilities = network(activation=None), network()
    probabilities.set_weights(logits.get_weights())
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    for model in (logits, keras.Sequential([keras.Input((32, 32, 3)), logits])):
        scores = as_classifier(model).scores(image)
        np.testing.assert_allclose(scores, as_classifier(probabilities).scores(image), rtol=1e-4)


@pytest.mark.parametrize("last", ["Softmax", "Activation", "sigmoid"])
def test_probabilities_are_returned_unchanged(last: str) -> None:
    if last == "sigmoid":
        model = network(activation="sigmoid")
    else:
        layer = keras.layers.Softmax() if last == "Softmax" else keras.layers.Activation("softmax", dtype="float32")
        model = keras.Sequential([keras.Input((32, 32, 3)), network(activation=None), layer])
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    np.testing.assert_allclose(as_classifier(model).scores(image), model.predict(image, verbose=0), rtol=1e-5)


def _own(scores: Any) -> Any:
    """A custom layer."""
    layer = type("Own", (keras.layers.Layer,), {"call": lambda self, x: x * 1.0})()
    return layer(scores)


@pytest.mark.parametrize("of", ["logits", "probabilities"])
@pytest.mark.parametrize(
    "end",
    [
        lambda x: keras.layers.Activation("linear", dtype="float32")(x),
        lambda x: keras.layers.Average()([x, x]),
        lambda x: keras.layers.Reshape((1000,))(x),
        lambda x: keras.layers.Dropout(0.5)(x),
        lambda x: keras.ops.cast(x, "float32"),
        lambda x: x * 1.0,
        _own,
    ],
    ids=["cast layer", "ensemble", "reshape", "dropout", "cast", "multiply", "own layer"],
)
def test_logits_are_found_behind_layers_that_keep_the_values(of: str, end: Callable[[Any], Any]) -> None:
    before = network(activation=None if of == "logits" else "softmax")
    model = keras.Model(before.input, end(before.output))
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    outputs = model.predict(image, verbose=0).astype("float64")
    expected = np.exp(outputs) / np.exp(outputs).sum() if of == "logits" else outputs
    np.testing.assert_allclose(as_classifier(model).scores(image), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("operation", ["softmax", "sigmoid"])
def test_probabilities_of_an_operation_are_returned_unchanged(operation: str) -> None:
    before = network(activation=None)
    model = keras.Model(before.input, getattr(keras.ops, operation)(before.output))
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    np.testing.assert_allclose(as_classifier(model).scores(image), model.predict(image, verbose=0), rtol=1e-5)


def single(activation: str) -> Any:
    inner = network()
    return keras.Model(inner.input, keras.layers.Dense(1, activation=activation)(inner.output), name="single")


def test_a_single_output_gives_the_scores_of_two_labels(caplog: pytest.LogCaptureFixture) -> None:
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    for activation, logged in (("sigmoid", 0), ("linear", 1)):
        caplog.clear()
        model = single(activation)
        output = float(model.predict(image, verbose=0)[0, 0])
        expected = output if activation == "sigmoid" else 1 / (1 + np.exp(-output))
        for given, names in ((["dog"], ["not dog", "dog"]), (["cat", "dog"], ["cat", "dog"])):
            classifier = as_classifier(model, given)
            assert [label for _, label in classifier.classes] == names
            np.testing.assert_allclose(classifier.scores(image), [[1 - expected, expected]], rtol=1e-5)
        assert sum("a sigmoid is applied" in record.getMessage() for record in caplog.records) == 2 * logged
    assert [label for _, label in as_classifier(single("sigmoid")).classes] == ["0", "1"]


def test_a_single_logit_needs_labels() -> None:
    with pytest.raises(ValueError, match=r"'single' returns a single number.*labels=\['cat', 'dog'\]"):
        as_classifier(single("linear"))


def test_a_softmax_on_outputs_that_are_not_probabilities_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    inner = network()
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    for activation, reported in (("linear", 1), ("softmax", 0), ("sigmoid", 0)):
        caplog.clear()
        model = keras.Model(inner.input, keras.layers.Dense(2, activation=activation, name="xy")(inner.output))
        classifier = Classifier(model, ((None, "x"), (None, "y")), 32)
        for _ in range(2):
            classifier.scores(image)
        assert [record.getMessage().count("a softmax is applied") for record in caplog.records] == [1] * reported


@pytest.mark.parametrize("kind", ["operations", "normalize", "lambda"])
def test_a_model_that_normalises_by_operations_gets_raw_pixels(kind: str) -> None:
    inner = network(rescale=False, name="efficientnetlite0")
    images = keras.Input((32, 32, 3))
    pixels = {
        "operations": lambda: (images - 127.0) / 128.0,
        "normalize": lambda: normalize(images, "channels_last", model=inner),
        "lambda": lambda: keras.layers.Lambda(lambda x: (x - 127.0) / 128.0)(images),
    }[kind]()
    model = keras.Model(images, inner(pixels))
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    expected = inner.predict((image - 127) / 128, verbose=0)
    np.testing.assert_allclose(as_classifier(model).scores(image), expected, rtol=1e-4)


def test_a_model_that_does_not_normalise_gets_normalised_pixels() -> None:
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    model = network(rescale=False, name="efficientnetlite0")
    np.testing.assert_allclose(
        as_classifier(model).scores(image), model.predict((image - 127) / 128, verbose=0), rtol=1e-4
    )


# --- loading ---


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def saved(model: Any, *lines: str) -> Path:
        path = tmp_path / "model.keras"
        model.save(path)
        if lines:
            (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return saved


def test_a_saved_model_with_1000_classes_needs_no_labels(save: Callable[..., Path], folder: Path) -> None:
    model = network(size=48)
    classifier = load_classifier(save(model))
    assert (classifier.size, classifier.classes[281]) == (48, ("n02123045", "tabby"))
    (ours,), (direct,) = (classify([folder / "chelsea.png"], model=model) for model in (classifier, model))
    assert ours == direct


def test_a_saved_model_takes_its_labels_from_labels_txt(save: Callable[..., Path], folder: Path) -> None:
    classifier = load_classifier(str(save(network(3), "rose", " sunflower", "tulip ")))
    (prediction,) = classify([folder / "chelsea.png"], model=classifier, top=5)
    assert {(wnid, label) for wnid, label, _ in prediction.labels} == {
        (None, "rose"),
        (None, "sunflower"),
        (None, "tulip"),
    }
    assert sum(score for _, _, score in prediction.labels) == pytest.approx(1, abs=1e-5)


def test_labels_must_be_utf_8_and_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes("rosé\ntulip\n".encode("utf-8-sig"))
    assert read_classes(tmp_path) == ((None, "rosé"), (None, "tulip"))
    (tmp_path / "labels.txt").write_bytes("rosé\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.txt' is not UTF-8 at byte 3\. Expected one label per line"):
        read_classes(tmp_path)


def test_a_wrong_number_of_labels_is_refused(save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="has 3 outputs, but there are 2 labels"):
        load_classifier(save(network(3), "rose", "tulip"))


def test_classes_of_your_own_have_their_indices_as_labels(save: Callable[..., Path]) -> None:
    model = network(3)
    for classifier in (load_classifier(save(model)), as_classifier(model)):
        assert classifier.classes == ((None, "0"), (None, "1"), (None, "2"))


def test_features_have_no_labels_and_are_not_changed() -> None:
    model = keras_effnet.EfficientNetLite0(weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3))
    classifier = as_classifier(model)
    image = center_crop_and_resize(data.chelsea(), 32)[None]
    assert classifier.classes == ()
    assert repr(classifier) == "Classifier('efficientnetlite0', 32 x 32 pixels, features)"
    np.testing.assert_allclose(classifier.scores(image), model.predict(image, verbose=0), rtol=1e-5)
    for use in (lambda: classify([], model=model), lambda: evaluate(Examples([], 0), model=model)):
        with pytest.raises(ValueError, match=r"'efficientnetlite0' has 1,280 outputs and no labels: it returns feat"):
            use()


@pytest.mark.parametrize("labels", ["list", "file", "pairs", "keras", "transformers"])
def test_labels_are_given_in_any_usual_form(labels: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("rose\ndaisy\ntulip\n", "utf-8")
    given = {
        "list": ["rose", "daisy", "tulip"],
        "file": tmp_path / "names.txt",
        "pairs": [(None, "rose"), (None, "daisy"), (None, "tulip")],
        "keras": {"daisy": 1, "rose": 0, "tulip": 2},
        "transformers": {"0": "rose", "2": "tulip", "1": "daisy"},
    }[labels]
    assert [label for _, label in as_classifier(network(3), given).classes] == ["rose", "daisy", "tulip"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["rose", "tulip"], "has 3 outputs, but there are 2 labels"),
        (["rose", "tulip", 3], "Label 2 is 3. Expected a string"),
        ({"rose": 1, "tulip": 2, "daisy": 3}, "every output from 0 to 2 once"),
        ("nowhere.txt", "'nowhere.txt' cannot be read: No such file"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, message: str) -> None:
    model = network(3)
    for use in (as_classifier, lambda model, labels: as_classifier(as_classifier(model), labels)):
        with pytest.raises(ValueError, match=message):
            use(model, labels)


def test_labels_given_replace_those_beside_a_saved_model(save: Callable[..., Path]) -> None:
    path = save(network(3), "1", "2", "3")
    assert [label for _, label in load_classifier(path, labels=["a", "b", "c"]).classes] == ["a", "b", "c"]


def test_labels_of_a_classifier_may_be_strings() -> None:
    classifier = Classifier(network(3), ["rose", "sunflower", "tulip"], 32, "flowers")  # type: ignore[arg-type]
    assert classifier.classes == ((None, "rose"), (None, "sunflower"), (None, "tulip"))
    assert repr(classifier) == "Classifier('flowers', 32 x 32 pixels, 3 classes: rose, sunflower, tulip)"
    assert len(repr(as_classifier(network()))) < 150


def test_models_that_do_not_classify_square_rgb_images_are_refused() -> None:
    image = keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match=r"outputs of shape .* Expected one output"):
        classify([], model=keras.Model(image, keras.layers.Conv2D(4, 3)(image)))
    wide = keras.Input((32, 64, 3))
    x = keras.layers.Dense(1000)(keras.layers.GlobalAveragePooling2D()(wide))
    with pytest.raises(ValueError, match=r"takes images of shape \(None, 32, 64, 3\)"):
        classify([], model=keras.Model(wide, x))


def test_a_model_without_a_fixed_size_uses_the_resolution_of_its_variant() -> None:
    any_size = network(size=None, name="efficientnetb2")
    assert as_classifier(any_size).size == 260
    assert as_classifier(any_size, size=96).size == 96


def test_a_model_of_any_size_needs_one() -> None:
    with pytest.raises(ValueError, match=r"takes images of shape \(None, None, None, 3\), any size.*Pass size="):
        classify([], model=network(size=None))
    assert as_classifier(network(size=None), size=48).size == 48
    outer = keras.Sequential([keras.Input((None, None, 3)), network(size=None, name="efficientnetb1")])
    with pytest.raises(ValueError, match="for example 240, the resolution of b1"):
        as_classifier(outer)


def test_a_size_inside_the_model_decides_for_images_of_any_size() -> None:
    resizing = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Resizing(48, 48), network(size=48)])
    assert as_classifier(resizing).size == 48


def test_a_size_that_contradicts_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size is 64, but the model 'network' takes images of 32 x 32 pixels"):
        as_classifier(network(), size=64)
    with pytest.raises(ValueError, match=r"size is 0"):
        as_classifier(network(size=None), size=0)


@pytest.mark.parametrize("name", ["b9", "gone.keras", "some/where", "model.h5"])
def test_models_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"There is no .* Expected one of b0, "):
        load_classifier(name)


def test_a_saved_model_takes_no_weights() -> None:
    with pytest.raises(ValueError, match="has its own"):
        load_classifier("model.keras", "imagenet")


def test_a_file_that_is_not_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("no model")
    with pytest.raises(ValueError, match=r"cannot be loaded.*Expected a whole model") as caught:
        load_classifier(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_a_whole_model_in_h5_gives_the_same_scores(tmp_path: Path) -> None:
    model = network(3)
    model.save(tmp_path / "model.h5")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n", encoding="utf-8")
    images = np.random.default_rng(0).uniform(0, 255, (2, model.input_shape[1], model.input_shape[1], 3))
    classifier = load_classifier(tmp_path / "model.h5")
    assert [label for _, label in classifier.classes] == ["a", "b", "c"]
    expected = as_classifier(model, classifier.classes).scores(images)
    np.testing.assert_allclose(classifier.scores(images), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_code_in_an_h5_model_is_not_run(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x * 1.0), network()])
    model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_classifier(tmp_path / "model.h5")


def test_a_file_that_exists_is_called_what_it_is(tmp_path: Path) -> None:
    network(3).save_weights(tmp_path / "fit.weights.h5")
    (tmp_path / "fit.pth").write_bytes(b"PK")
    for name in ("fit.weights.h5", "fit.pth"):
        with pytest.raises(ValueError, match=r"is not a whole Keras model.*--weights"):
            load_classifier(tmp_path / name)
    (tmp_path / "fit.h5").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"cannot be loaded.*--weights"):
        load_classifier(tmp_path / "fit.h5")


def test_code_in_a_saved_model_is_not_run(save: Callable[..., Path]) -> None:
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x * 1.0), network()])
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_classifier(save(model))


@pytest.mark.parametrize(("name", "builder"), [("lite0", "EfficientNetLite0"), ("EfficientNetB0", "EfficientNetB0")])
def test_a_name_builds_the_network_with_the_given_weights(
    monkeypatch: pytest.MonkeyPatch, name: str, builder: str
) -> None:
    models = pytest.importorskip("keras_effnet.models")
    asked: list[str] = []

    def build(weights: str = "the best set") -> Any:
        asked.append(weights)
        return network()

    monkeypatch.setattr(models, builder, build)
    assert load_classifier(name).weights == "the best set"
    assert load_classifier(name, "advprop").name == name
    assert asked == ["the best set", "advprop"]
