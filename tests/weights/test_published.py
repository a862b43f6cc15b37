"""`weights="imagenet"` from the server to the logits, with files written by `keras.applications` itself.

Keras 3 writes .weights.h5, and tf_keras the legacy .h5 format of the published files. Each CI lane tests one of them.
"""

import hashlib
import http.server
import threading
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET
from keras_effnet.weights import published as sets
from keras_effnet.weights.published import find_weights
from keras_effnet.weights.registry import WEIGHTS, Source, Weights

pytestmark = pytest.mark.builders

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without logging."""

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def peer(randomise, include_top):
    options = {"classifier_activation": None} if include_top else {"pooling": "avg", "input_shape": (224, 224, 3)}
    model = keras.applications.EfficientNetB0(weights=None, include_top=include_top, **options)
    randomise(model)
    return model


def normalise(model, variance):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.set_weights([MEAN, variance, np.array(0)])
            layer.finalize_state()


def publish(model, name, folder, url):
    """Save a model as it was published, with the standard deviation instead of the variance, and return its source."""
    file = folder / (f"{name}.h5" if LEGACY else f"{name}.weights.h5")
    normalise(model, STD)
    model.save_weights(str(file))
    normalise(model, STD**2)
    return Source(f"{url}/{file.name}", "md5:" + hashlib.md5(file.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def peers(randomise):
    """Models with and without a classifier, whose weights no test changes."""
    return peer(randomise, True), peer(randomise, False)


@pytest.fixture
def published(server, peers, tmp_path, monkeypatch):
    """Files with and without a classifier on the server, and the models that wrote them."""
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    full, headless = peers
    sources = (publish(full, "efficientnetb0", *server),), (publish(headless, "efficientnetb0_notop", *server),)
    record = Weights("b0", "imagenet", 77.1, 93.35, IMAGENET, *sources)
    monkeypatch.setattr(sets, "WEIGHTS", MappingProxyType({("b0", "imagenet"): record}))
    return full, headless


def assert_same(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_imagenet_is_downloaded_and_gives_the_outputs_of_keras_applications(published, photo, run, tmp_path):
    full, headless = published
    images = photo(224)
    model = keras_effnet.EfficientNetB0(include_top=False, pooling="avg", input_shape=(224, 224, 3), name="mine")
    assert_same(run(model, images), run(headless, images))
    assert [path.name.split(".")[0] for path in (tmp_path / "cache").glob("*.h5")] == ["efficientnetb0_notop"]

    model = keras_effnet.EfficientNetB0(weights="imagenet", classifier_activation=None, name="mine")
    assert_same(run(model, images), run(full, images))

    # From the fast copy alone.
    original = tmp_path / "cache" / ("efficientnetb0.h5" if LEGACY else "efficientnetb0.weights.h5")
    original.rename(tmp_path / original.name)
    again = keras_effnet.EfficientNetB0(weights="imagenet", classifier_activation=None)
    assert np.array_equal(run(again, images), run(model, images))
    (tmp_path / original.name).rename(original)
    (tmp_path / "cache" / "b0-imagenet.safetensors").unlink()

    # A network without a classifier can use the full file.
    for path in (tmp_path / "cache").glob("*_notop*"):
        path.unlink()
    model = keras_effnet.EfficientNetB0(include_top=False, pooling="avg", input_shape=(224, 224, 3))
    expected = keras.Model(full.input, full.get_layer("avg_pool").output)
    assert_same(run(model, images), run(expected, images))


def test_loading_by_path_equals_loading_by_name(published, photo, run, tmp_path):
    by_name = keras_effnet.EfficientNetB0(classifier_activation=None)
    (path,) = (tmp_path / "cache").glob("*.h5")
    by_path = keras_effnet.EfficientNetB0(weights=str(path), classifier_activation=None)
    later = keras_effnet.EfficientNetB0(weights=None, classifier_activation=None)
    later.set_weights(by_path.get_weights())
    answers = [run(model, photo(224)) for model in (by_name, by_path, later)]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_model_trained_on_pixels_divided_by_255_keeps_this_normalization(randomise, photo, run, tmp_path):
    theirs = peer(randomise, True)
    path = str(tmp_path / ("own.h5" if LEGACY else "own.weights.h5"))
    theirs.save_weights(path)
    ours = keras_effnet.EfficientNetB0(weights=path, classifier_activation=None)
    assert_same(run(ours, photo(224)), run(theirs, photo(224)))


def test_altered_file_in_the_cache_is_not_used(published, tmp_path):
    keras_effnet.EfficientNetB0()
    (tmp_path / "cache" / "b0-imagenet.safetensors").unlink()
    (path,) = (tmp_path / "cache").glob("*.h5")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_EFFNET_OFFLINE", "1")
        with pytest.raises(WeightsError, match="efficientnetb0"):
            keras_effnet.EfficientNetB0()
    keras_effnet.EfficientNetB0()


@pytest.mark.parametrize("name", ["noisy-student", "noisy_student", "NoisyStudent", "noisy student"])
def test_weight_sets_are_found_in_any_spelling(name: str) -> None:
    assert find_weights("b0", name) is WEIGHTS["b0", "noisy-student"]


@pytest.mark.parametrize(("name", "meant"), [("imagnet", "imagenet"), ("noisy_studnet", "noisy-student"), ("x", "")])
def test_a_misspelt_weight_set_gets_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(WeightsError, match=f"There are no weights '{name}' for 'b0'") as error:
        find_weights("b0", name)
    assert (f"Did you mean '{meant}'?" in str(error.value)) == bool(meant)
