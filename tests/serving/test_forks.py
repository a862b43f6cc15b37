"""Other processes: forked children of a process that has predicted, and pickled and copied predictors."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.engines import ENGINES
from keras_effnet.serving.exporting import export
from keras_effnet.serving.predictor import Predictor

pytest.importorskip("tensorflow", reason="TensorFlow, whose converters are used, is not installed")
pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
]

RED = np.full((40, 40, 3), (255, 0, 0), np.uint8)
FILES = {"litert": "m.tflite", "onnx": "m.onnx", "openvino": "m", "tensorflow": "served"}
# Everything is used in the parent first; the child has two minutes. It ends as those of multiprocessing do, because
# ONNX Runtime 1.32 hangs in `exit` once it was imported before a fork, whether or not it has loaded a model.
SCRIPT = """
import os, signal, sys
import numpy as np
from keras_effnet.serving.predictor import Predictor
red = np.full((40, 40, 3), (255, 0, 0), np.uint8)
{use}
assert use() == "red"
child = os.fork()
if not child:
    signal.alarm(120)
    try:
        print(use())
    except RuntimeError as error:
        print("RuntimeError:", error)
    sys.stdout.flush()
    {end}
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, use())
"""


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(keras.layers.Conv2D(3, 1)(image)))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    model.layers[1].set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    model.layers[-1].set_weights([5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return Classifier(model, ((None, "red"), (None, "green"), (None, "blue")), 32, "colours")


@pytest.fixture(scope="module")
def folder(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    classifier.model.save(folder / "model.keras")
    (folder / "labels.txt").write_text("red\ngreen\nblue\n")
    return folder


def exported(classifier: Classifier, folder: Path, engine: str) -> Path:
    if not ENGINES[engine].installed:
        pytest.skip(f"{ENGINES[engine].package} is not installed")
    path = folder / FILES[engine]
    if not path.exists():
        export(classifier, path, ENGINES[engine].format)
    return path


def fork(use: str, end: str = "os._exit(0)") -> list[str]:
    """The lines that the child and then the parent print."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT.format(use=use, end=end)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("engine", ["litert", "onnx", "openvino"])
def test_a_forked_child_predicts_with_its_own_engine(classifier: Classifier, folder: Path, engine: str) -> None:
    path = exported(classifier, folder, engine)
    use = f"""
predictors = [Predictor({str(path)!r}, mode=mode) for mode in ("throughput", "latency")]
def use():
    for predictor in predictors:
        predictor.scores(np.zeros((1, 32, 32, 3)))
    labels = {{p.labels[0][1] for predictor in predictors for p in predictor([red] * 4)}}
    return "".join(labels)
"""
    assert fork(use) == ["red", "0 red"]


@pytest.mark.parametrize("engine", ["litert", "onnx", "openvino"])
def test_a_forked_child_that_ends_normally_returns_its_status(
    classifier: Classifier, folder: Path, engine: str
) -> None:
    path = exported(classifier, folder, engine)
    use = f"""
predictor = Predictor({str(path)!r})
def use():
    return predictor.predict([red])[0].labels[0][1]
"""
    assert fork(use, "sys.exit(3)") == ["red", "3 red"]


def test_a_forked_child_that_ends_leaves_the_temporary_export_of_its_parent(
    classifier: Classifier, folder: Path
) -> None:
    exported(classifier, folder, "litert")
    use = f"""
predictor = Predictor({str(folder / "model.keras")!r}, "litert")
def use():
    assert predictor._source.export.path.is_file()
    return next(predictor([red])).labels[0][1]
"""
    assert fork(use, "sys.exit()") == ["red", "0 red"]


def test_keras_and_tensorflow_raise_at_once_in_a_forked_child(classifier: Classifier, folder: Path) -> None:
    served = exported(classifier, folder, "tensorflow")
    calls = {
        "classify": "next(classify([('red', red)], model=model)).labels[0][1]",
        "explain": "next(explain(model, [('red', red)])).maps[0].label",
        "plain": "['red', 'green', 'blue'][int(next(explain(model.model, [('red', red)])).maps[0].label)]",
        "keras": "next(keras_predictor([red])).labels[0][1]",
        "tensorflow": "next(served([red])).labels[0][1]",
        "load": "load_classifier(path).classes[0][1]",
        "build": "EfficientNetB0(weights=None, input_shape=(32, 32, 3)) and 'red'",
    }
    use = f"""
from keras_effnet import EfficientNetB0, explain
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.inference.classify import classify
path = {str(folder / "model.keras")!r}
model = load_classifier(path)
keras_predictor, served = Predictor(path, "keras"), Predictor({str(served)!r})
def error_of(call):
    try:
        return call()
    except RuntimeError as error:
        return f"RuntimeError: {{error}}"
def use():
    results = [error_of(call) for call in ({"".join(f"lambda: {call}, " for call in calls.values())})]
    return "red" if set(results) == {{"red"}} else chr(10).join(results)
"""
    *child, parent = fork(use)
    for entrance, error in zip(calls, child, strict=True):
        assert error.startswith("RuntimeError: This process was forked after TensorFlow had run"), entrance
        assert "spawn" in error, entrance
    assert parent == "0 red"


def test_keras_that_was_only_imported_works_in_a_forked_child(folder: Path) -> None:
    use = f"""
from keras_effnet._keras import keras
from keras_effnet.inference.classifier import load_classifier
parent = os.getpid()
def use():
    return "red" if os.getpid() == parent else load_classifier({str(folder / "model.keras")!r}).classes[0][1]
"""
    assert fork(use) == ["red", "0 red"]


def test_predictions_started_before_a_fork_raise_in_the_child(classifier: Classifier, folder: Path) -> None:
    path = exported(classifier, folder, "litert")
    use = f"""
stream = Predictor({str(path)!r})([red] * 1000)
def use():
    return next(stream).labels[0][1]
"""
    child, parent = fork(use)
    assert child.startswith("RuntimeError: These predictions were started before this process was forked.")
    assert parent == "0 red"


@pytest.mark.parametrize("way", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("name", ["m.tflite", "model.keras"])
def test_a_predictor_is_pickled_and_copied_as_its_arguments(
    classifier: Classifier, folder: Path, name: str, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(classifier, folder, "litert")
    monkeypatch.chdir(folder)
    predictor = Predictor(name, "litert", mode="latency")
    data = way(predictor)
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(data))
    assert (again.engine, again.size, again.classes, again._mode) == ("litert", 32, classifier.classes, "latency")
    predictor.close()  # the copies do not share its threads
    assert [p.labels[0][1] for p in again([RED])] == ["red"]


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_predictor_made_from_an_object_says_how_to_reach_a_worker(classifier: Classifier, way: Any) -> None:
    with Predictor(classifier, "keras") as predictor, pytest.raises(TypeError, match=r"open the file in each worker"):
        way(predictor)
