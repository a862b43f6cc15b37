"""Every way to the scores of a photo uses the same pixels: the central square, or the whole photo.

The reference is TensorFlow's own resize of the whole photo.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.data.labelled_photos import Example, Examples
from keras_effnet.images import load_image
from keras_effnet.inference.activation_maps import explain
from keras_effnet.inference.classifier import Classifier, as_classifier
from keras_effnet.inference.classify import score
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.introspection import crop_of
from keras_effnet.models import create
from keras_effnet.normalization import V2
from keras_effnet.serving.engines import ENGINES
from keras_effnet.serving.exporting import export
from keras_effnet.serving.model_record import open_export
from keras_effnet.serving.predictor import Predictor
from keras_effnet.variants import VARIANTS, published_crop, tiny
from keras_effnet.weights.registry import WEIGHTS

tf = pytest.importorskip("tensorflow", reason="TensorFlow, the reference for its own resize, is not installed")

SIZE = 32
FORMATS = {"litert": "m.tflite", "onnx": "m.onnx", "openvino": "m.xml", "tensorflow": "served"}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """A network with a drawn head that is meant to see whole photos."""
    keras.utils.set_random_seed(3)
    model = create(tiny(), weights=None, classes=5, classifier_activation="softmax")
    head = model.get_layer("predictions")
    head.set_weights([np.random.default_rng(1).normal(size=value.shape) for value in head.get_weights()])
    return Classifier(model, tuple("abcde"), SIZE, crop=None)


@pytest.fixture(scope="module")
def expected(classifier: Classifier, photo: bytes) -> np.ndarray:
    whole = tf.image.resize(load_image(photo), (SIZE, SIZE)).numpy()
    return classifier.scores(whole[None])[0]


def test_keras_sees_the_whole_photo(classifier: Classifier, photo: bytes, expected: np.ndarray) -> None:
    [row] = score([photo], classifier, 1)
    np.testing.assert_allclose(row.scores, expected, rtol=1e-4)
    square = Classifier(classifier.model, classifier.classes, SIZE, crop="center")
    [other] = score([photo], square, 1)
    assert np.abs(other.scores - expected).max() > 1e-2


def test_explanations_cover_the_whole_photo(classifier: Classifier, photo: bytes, expected: np.ndarray) -> None:
    [result] = explain(classifier, photo, classes=[0])
    assert result.maps[0].box == (0, 0, 120, 40)
    assert result.photo.shape == (40, 120, 3)
    assert result.maps[0].score == pytest.approx(expected[0], rel=1e-4)


def test_evaluation_sees_the_whole_photo(classifier: Classifier, photo: bytes, expected: np.ndarray) -> None:
    best = int(expected.argmax())
    report = evaluate(Examples([Example(("photo", photo), best)], total=1), model=classifier)
    assert report.top1 == 100.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's")
@pytest.mark.parametrize("engine", [*FORMATS, "keras"])
def test_every_engine_sees_the_whole_photo(
    engine: str, classifier: Classifier, photo: bytes, expected: np.ndarray, tmp_path: Path
) -> None:
    if engine != "keras" and not ENGINES[engine].installed:
        pytest.skip(f"{ENGINES[engine].package} is not installed")
    model: Any = classifier
    if engine != "keras":
        model = export(classifier, tmp_path / FORMATS[engine]).path
        assert open_export(model).record.crop is None
    with Predictor(model, engine) as predictor:
        [found] = predictor.predict(photo, top=5)
    for index, (_, _, value) in zip(found.indices, found.labels, strict=True):
        assert value == pytest.approx(expected[index], rel=1e-3)
    if engine == "tensorflow":
        signature = tf.saved_model.load(str(model)).signatures["image_bytes"]
        answer = signature(image_bytes=tf.constant([photo]))["probabilities"].numpy()[0]
        np.testing.assert_allclose(answer, expected, rtol=1e-3)


def test_an_export_without_this_field_sees_the_central_square(tmp_path: Path) -> None:
    folder = tmp_path / "older"
    folder.mkdir()
    (folder / "model.json").write_text('{"format": "openvino", "size": 32, "classes": [[null, "a"]]}')
    assert open_export(folder).record.view.box(40, 120) == (50, 10, 70, 30)


@pytest.mark.parametrize("key", WEIGHTS, ids="-".join)
def test_the_crop_of_a_network_is_that_of_its_weight_set(key: tuple[str, str]) -> None:
    row = WEIGHTS[key]
    whole = key[0] in ("v2-s", "v2-m", "v2-l", "v2-xl") or key[1] == "imagenet21k-ft1k"
    assert row.crop == (None if whole else "center")
    assert published_crop(VARIANTS[row.variant], row.normalization, row.classes) == row.crop


@pytest.mark.parametrize(("normalization", "crop"), [(None, "center"), (V2, None)])
def test_a_model_is_asked_for_its_crop(normalization: Any, crop: str | None) -> None:
    model = keras_effnet.EfficientNet("v2-b0", normalization=normalization, input_shape=(32, 32, 3), classes=3)
    assert as_classifier(model).crop == crop
    assert crop_of(keras.Sequential([keras.Input((32, 32, 3)), model])) == crop


def test_a_model_of_another_kind_sees_the_central_square() -> None:
    assert crop_of(SimpleNamespace(layers=())) == "center"


def test_an_unknown_crop_is_rejected(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match=r"crop is 'squash'. Expected one of None, auto, center"):
        Classifier(classifier.model, classifier.classes, SIZE, crop="squash")
