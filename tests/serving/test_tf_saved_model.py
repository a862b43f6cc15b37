"""A SavedModel for TensorFlow Serving: its signatures, invalid inputs, and the files next to it."""

import base64
import io
import json
import re
import struct
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import LEGACY, dtype_policy, keras
from keras_effnet.images import View, center_crop_and_resize, load_image
from keras_effnet.inference.fusion import fuse
from keras_effnet.models import create
from keras_effnet.serving import tf_saved_model as tf_export
from keras_effnet.serving.tf_decode import MAX_PIXELS, decode_batch
from keras_effnet.serving.tf_saved_model import write_saved_model
from keras_effnet.serving.tf_serving_files import WARMUP_FILE, batching_parameters, prediction_log
from keras_effnet.variants import tiny

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend than TensorFlow", allow_module_level=True)
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

SERVE = Path(__file__).parents[2] / "examples" / "serve"
SIZE = 32
CLASSES = tuple((None, f"class {i}") for i in range(10))
has_webp = pytest.mark.skipif(not hasattr(tf.io, "decode_webp"), reason="this TensorFlow reads no WebP")


def encode(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    """A smooth image without symmetry, (61, 47, 4), with transparency."""
    y, x = np.mgrid[:61, :47]
    channels = [255 - 3 * y, 5 * x, (x * y) % 256, 128 + 127 * np.sin(x / 7)]
    return Image.fromarray(np.stack(channels, -1).clip(0, 255).astype("uint8"), "RGBA")


@pytest.fixture(scope="module")
def decode():
    """Files to (images, valid), in a graph."""
    graph = tf.function(
        lambda files: decode_batch(files, View(SIZE)),
        input_signature=[tf.TensorSpec((None,), tf.string)],
        autograph=False,
    )
    return lambda files: [value.numpy() for value in graph(tf.constant(files, tf.string))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small model and its SavedModel, loaded."""
    keras.utils.set_random_seed(1)
    model = create(tiny(), classes=10, input_shape=(SIZE, SIZE, 3))
    kernel, bias = model.layers[-1].get_weights()
    kernel = np.random.default_rng(0).uniform(-16, 16, kernel.shape)  # the scores of a new network are all equal
    model.layers[-1].set_weights([kernel, bias])
    folder = tmp_path_factory.mktemp("models") / "tiny" / "1"
    write_saved_model(fuse(model), folder, classes=CLASSES, size=SIZE, top=3, name="tiny")
    loaded = tf.saved_model.load(str(folder))
    return SimpleNamespace(model=model, folder=folder, signatures=loaded.signatures, keep=loaded)


def expected_probabilities(model, files):
    pixels = np.stack([center_crop_and_resize(load_image(file), SIZE) for file in files])
    return np.asarray(model.predict_on_batch(pixels))


# --- Decoding ---

WAYS = {
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG, progressive, 4:4:4": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG, grey": ("L", "JPEG", {}),
    "PNG": ("RGB", "PNG", {}),
    "PNG, transparent": ("RGBA", "PNG", {}),
    "PNG, grey": ("L", "PNG", {}),
    "PNG, grey, transparent": ("LA", "PNG", {}),
    "PNG, palette": ("P", "PNG", {}),
    "PNG, palette of 4 bits": ("P", "PNG", {"bits": 4}),
    "PNG, palette, transparent": ("P", "PNG", {"transparency": 5}),
    "PNG, black and white": ("1", "PNG", {}),
    "WebP": ("RGB", "WEBP", {}),
    "WebP, lossless": ("RGB", "WEBP", {"lossless": True}),
    "WebP, transparent": ("RGBA", "WEBP", {"lossless": True, "exact": True}),
}


@pytest.mark.parametrize("way", [pytest.param(way, marks=has_webp if "WebP" in way else ()) for way in WAYS])
def test_the_graph_decodes_files_to_the_same_pixels(way, picture, decode):
    mode, suffix, options = WAYS[way]
    image = picture.convert("RGB").quantize(16) if "bits" in options else picture.convert(mode)
    file = encode(image, suffix, **options)
    (pixels,), (valid,) = decode([file])
    assert valid
    np.testing.assert_allclose(pixels, center_crop_and_resize(load_image(file), SIZE), rtol=0, atol=2e-3)


def test_a_16_bit_png_gives_the_same_pixels_up_to_rounding(decode):
    grey = np.linspace(0, 65535, 50 * 40).reshape(50, 40).astype("uint16")
    file = encode(Image.fromarray(grey), "PNG")
    (pixels,), (valid,) = decode([file])
    assert valid
    np.testing.assert_allclose(pixels, center_crop_and_resize(load_image(file), SIZE), rtol=0, atol=1.5)


def test_a_cmyk_jpeg_gives_nearly_the_same_pixels(picture, decode):
    file = encode(picture.convert("CMYK"), "JPEG")
    (pixels,), (valid,) = decode([file])
    assert valid
    assert np.abs(pixels - center_crop_and_resize(load_image(file), SIZE)).mean() < 2


@pytest.mark.parametrize("size", [(47, 61), (46, 61), (47, 60), (1, 1), (3, 200)])
def test_images_of_all_sizes_are_cropped_alike(size, picture, decode):
    file = encode(picture.convert("RGB").resize(size), "PNG")
    (pixels,), _ = decode([file])
    np.testing.assert_allclose(pixels, center_crop_and_resize(load_image(file), SIZE), rtol=0, atol=2e-3)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("big_endian", [False, True])
def test_exif_orientation_is_applied(orientation, big_endian, picture, decode):
    order = ">" if big_endian else "<"
    tiff = struct.pack(f"{order}2sHIHHHIHHI", b"MM" if big_endian else b"II", 42, 8, 1, 0x112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    jpeg = encode(picture.convert("RGB"), "JPEG")
    file = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert Image.open(io.BytesIO(file)).getexif().get(0x112) == orientation
    (pixels,), (valid,) = decode([file])
    assert valid
    np.testing.assert_allclose(pixels, center_crop_and_resize(load_image(file), SIZE), rtol=0, atol=2e-3)


def test_a_photo_with_damaged_exif_is_read(picture, decode):
    jpeg = encode(picture.convert("RGB"), "JPEG")
    upright, _ = decode([jpeg])
    for tiff in (b"", b"II", b"MM\0\x2a\xff\xff\xff\xff", b"II\x2a\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 99):
        exif = b"Exif\0\0" + tiff
        file = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
        pixels, valid = decode([file])
        assert valid.all()
        assert pixels.shape == upright.shape


# --- Invalid files ---


def bomb(suffix, width=30_000, height=30_000):
    """A small file that declares a huge image."""
    if suffix == "PNG":
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + struct.pack(">I", 13)
            + b"IHDR"
            + header
            + struct.pack(">I", zlib.crc32(b"IHDR" + header))
        )
    if suffix == "JPEG":
        small = encode(Image.new("L", (8, 8)), "JPEG")
        place = small.index(b"\xff\xc0") + 5
        return small[:place] + struct.pack(">HH", height, width) + small[place + 4 :]
    small = encode(Image.new("RGB", (8, 8)), "WEBP")
    return small[:26] + struct.pack("<HH", 16383, 16383) + small[30:]


def hostile(picture):
    rgb = picture.convert("RGB")
    frames = {"save_all": True, "append_images": [rgb.rotate(180)]}
    whole = {suffix: encode(rgb, suffix) for suffix in ("JPEG", "PNG", "WEBP")}
    return {
        **{f"{suffix}, cut": file[: len(file) // 2] for suffix, file in whole.items()},
        **{f"{suffix}, first bytes": file[:12] for suffix, file in whole.items()},
        **{f"{suffix}, too large": bomb(suffix) for suffix in whole},
        "PNG, product wraps around": bomb("PNG", 2**31 + 1, 2**33 // (2**31 + 1)),
        "PNG, without a pixel": bomb("PNG", 0, 8),
        "PNG, damaged": whole["PNG"][:200] + b"\0\0\0\0" + whole["PNG"][204:],
        "WebP, animated": encode(rgb, "WEBP", **frames),
        "GIF": encode(rgb, "GIF"),
        "GIF, animated": encode(rgb, "GIF", **frames),
        "TIFF": encode(rgb, "TIFF"),
        "BMP": encode(rgb, "BMP"),
        "BMP, palette": encode(picture.convert("P"), "BMP"),
        "nothing": b"",
        "one byte": b"\xff",
        "text": b"no image",
        "JPEG's magic bytes": b"\xff\xd8\xff" + b"abc" * 30,
    }


def test_bad_files_do_not_affect_the_others_of_their_batch(picture, decode):
    good = encode(picture.convert("RGB"), "JPEG")
    (alone,), _ = decode([good])
    bad = hostile(picture)
    files = [file for one in bad.values() for file in (good, one)]
    pixels, valid = decode(files)
    refused = dict(zip(bad, ~valid[1::2], strict=True))
    assert refused == dict.fromkeys(bad, True)
    assert valid[::2].all()
    assert (pixels[::2] == alone).all()
    assert not pixels[1::2].any()


def test_a_batch_with_only_bad_files_is_answered(decode):
    pixels, valid = decode([b"", b"x"])
    assert not valid.any()
    assert not pixels.any()


def test_a_large_file_within_the_limit_is_read(decode):
    width = 30_000
    assert width * 100 < MAX_PIXELS < width * width
    (pixels,), (valid,) = decode([encode(Image.new("L", (width, 100), 200), "PNG")])
    assert valid
    assert (np.abs(pixels - 200) < 1e-3).all()


# --- The SavedModel ---


def test_the_signatures_have_the_documented_inputs_and_outputs(exported):
    inputs = {
        name: {key: (spec.dtype.name, spec.shape.as_list()) for key, spec in s.structured_input_signature[1].items()}
        for name, s in exported.signatures.items()
    }
    assert inputs == {
        "serving_default": {"images": ("float32", [None, SIZE, SIZE, 3])},
        "images_uint8": {"images": ("uint8", [None, SIZE, SIZE, 3])},
        "image_bytes": {"image_bytes": ("string", [None])},
        "labels": {"image_bytes": ("string", [None])},
    }
    for name, signature in exported.signatures.items():
        outputs = {key: (x.dtype.name, x.shape.as_list()) for key, x in signature.structured_outputs.items()}
        probabilities = {} if name == "labels" else {"probabilities": ("float32", [None, 10])}
        assert outputs == {"classes": ("string", [None, 3]), "scores": ("float32", [None, 3]), **probabilities}


@pytest.mark.parametrize("name", ["serving_default", "images_uint8"])
@pytest.mark.parametrize("count", [1, 5])
def test_the_image_signatures_match_the_model(name, count, exported):
    images = np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype="uint8")
    dtype = "uint8" if name == "images_uint8" else "float32"
    answer = exported.signatures[name](images=tf.constant(images, dtype))
    expected = np.asarray(exported.model.predict_on_batch(images.astype("float32")))
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)
    best = np.argsort(-answer["probabilities"].numpy(), axis=1)[:, :3]
    assert answer["classes"].numpy().tolist() == [[f"class {i}".encode() for i in row] for row in best]
    assert (answer["scores"].numpy() == np.take_along_axis(answer["probabilities"].numpy(), best, 1)).all()


def test_the_file_signature_matches_the_model_and_labels_bad_files_invalid(picture, exported):
    rgb = picture.convert("RGB")
    files = [encode(rgb, "JPEG"), b"no image", encode(rgb.rotate(90), "PNG"), bomb("PNG")]
    answer = {key: x.numpy() for key, x in exported.signatures["image_bytes"](image_bytes=tf.constant(files)).items()}
    expected = expected_probabilities(exported.model, files[::2])
    assert np.abs(expected[0] - expected[1]).max() > 1e-2
    np.testing.assert_allclose(answer["probabilities"][::2], expected, rtol=0, atol=1e-5)
    labels = exported.signatures["labels"](image_bytes=tf.constant(files))
    assert {key: x.numpy().tolist() for key, x in labels.items()} == {
        key: answer[key].tolist() for key in ("classes", "scores")
    }
    assert answer["classes"][1::2].tolist() == [[b"invalid"] * 3] * 2
    assert not answer["probabilities"][1::2].any()
    assert not answer["scores"][1::2].any()
    assert (answer["scores"][::2] > 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_pixels_do_not_affect_the_others_of_their_batch(value, exported):
    images = np.random.default_rng(1).uniform(0, 255, (3, SIZE, SIZE, 3)).astype("float32")
    signature = exported.signatures["serving_default"]
    expected = signature(images=tf.constant(images))["probabilities"].numpy()
    images[1, 5, 5] = value
    answer = {key: x.numpy() for key, x in signature(images=tf.constant(images)).items()}
    assert answer["classes"][1].tolist() == [b"invalid"] * 3
    assert not answer["scores"][1].any()
    np.testing.assert_allclose(answer["probabilities"][::2], expected[::2], rtol=0, atol=1e-6)


@pytest.mark.skipif(LEGACY, reason="tf_keras always keeps weights as variables")
def test_large_weights_stay_variables(exported, tmp_path, monkeypatch):
    """The answers are the same in both cases."""
    assert not exported.keep.weights_of_the_model
    monkeypatch.setattr(tf_export, "LARGEST_GRAPH", 0)
    twin = fuse(exported.model)
    write_saved_model(twin, tmp_path / "1", classes=CLASSES, size=SIZE, top=3)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    assert len(loaded.weights_of_the_model) == len(twin.variables)
    images = tf.random.stateless_uniform((2, SIZE, SIZE, 3), (1, 2), 0, 255)
    ours, theirs = (
        signature["serving_default"](images=images) for signature in (exported.signatures, loaded.signatures)
    )
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], rtol=0, atol=1e-6)
    assert (ours["classes"].numpy() == theirs["classes"].numpy()).all()


def test_mixed_precision_returns_float32_and_top_is_at_most_the_number_of_classes(tmp_path):
    with dtype_policy("mixed_bfloat16"):
        model = create(tiny(), classes=2, input_shape=(SIZE, SIZE, 3), classifier_activation="softmax")
    write_saved_model(model, tmp_path / "1", classes=CLASSES[:2], size=SIZE)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    assert {key: x.dtype.name for key, x in signature.structured_outputs.items() if key != "classes"} == {
        "probabilities": "float32",
        "scores": "float32",
    }
    assert signature.structured_outputs["classes"].shape[1] == 2


def test_an_existing_folder_is_refused_and_unchanged(exported):
    before = sorted(exported.folder.rglob("*"))
    with pytest.raises(ValueError, match="exists. Expected a new one, .* Choose the next number"):
        write_saved_model(exported.model, exported.folder, classes=CLASSES, size=SIZE)
    assert sorted(exported.folder.rglob("*")) == before


@pytest.mark.parametrize("wrong", [{"size": 64}, {"classes": CLASSES[:9]}])
def test_another_size_or_number_of_classes_is_refused(wrong, exported, tmp_path):
    with pytest.raises(ValueError, match="takes images of shape .* Expected"):
        write_saved_model(exported.model, tmp_path / "1", **{"classes": CLASSES, "size": SIZE, **wrong})
    assert not (tmp_path / "1").exists()


# --- The files next to it ---


def test_the_warm_up_covers_every_signature_and_batch_size():
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from keras_effnet.serving.tf_serving_files import warmup_requests

    signatures = ("serving_default", "images_uint8", "image_bytes", "labels")
    requests = [parse(request) for request in warmup_requests("b4", 380, signatures)]
    shapes = {
        (request.model_spec.signature_name, *(dim.size for dim in tensor.tensor_shape.dim[:1]))
        for request in requests
        for tensor in request.inputs.values()
    }
    assert shapes == {(name, count) for name in signatures for count in (1, 2, 4, 8)}
    assert {request.model_spec.name for request in requests} == {"b4"}


def parse(request):
    from tensorflow_serving.apis import prediction_log_pb2

    return prediction_log_pb2.PredictionLog.FromString(request).predict_log.request


def test_the_warm_up_messages_equal_the_official_ones():
    apis = pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    assert apis
    from tensorflow_serving.apis import prediction_log_pb2

    for count in (1, 200):  # lengths of one and of several bytes
        tensor = tf.make_tensor_proto([b"x" * 50] * count)
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name, request.model_spec.signature_name = "näme", "image_bytes"
        request.inputs["image_bytes"].CopyFrom(tensor)
        ours = prediction_log("näme", "image_bytes", {"image_bytes": tensor})
        assert ours == log.SerializeToString(deterministic=True)


def test_the_warm_up_file_is_where_the_server_expects_it(exported):
    assert WARMUP_FILE.as_posix() == "assets.extra/tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(exported.folder / WARMUP_FILE)))
    assert len(records) == 4 * 6
    assert (exported.folder / "batching_params.pbtxt").read_text() == batching_parameters(SIZE)


def test_the_batching_parameters_fit_the_model():
    for size, most in {32: 32, 224: 32, 300: 16, 380: 8, 600: 4, 800: 2, 4000: 1}.items():
        lines = batching_parameters(size, cores=3).splitlines()
        # Padding a batch without images to an allowed size ends the server.
        assert not [line for line in lines if line.startswith("allowed_batch_sizes")]
        assert f"max_batch_size {{ value: {most} }}" in lines
        assert "num_batch_threads { value: 3 }" in lines
        assert "max_enqueued_batches { value: 6 }" in lines  # longer queues outlast the clients


# --- The example clients and configurations ---


class BatchingServer(ThreadingHTTPServer):
    """TensorFlow Serving's REST API with batching, as its sources describe it: a request that is larger than
    max_batch_size is refused, one without photos is never answered, and a full queue answers 503."""

    def __init__(self, exported, busy=0):
        self.exported, self.busy, self.asked, self.closing = exported, busy, [], threading.Event()
        parameters = (exported.folder / "batching_params.pbtxt").read_text()
        self.largest = int(re.search(r"max_batch_size \{ value: (\d+) \}", parameters)[1])
        super().__init__(("127.0.0.1", 0), BatchingHandler)


class BatchingHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    def do_POST(self):
        body, server = json.loads(self.rfile.read(int(self.headers["Content-Length"]))), self.server
        files = [base64.b64decode(row["b64"]) for row in body["instances"]]
        server.asked.append((self.path, body["signature_name"], len(files)))
        if not files:
            server.closing.wait(60)
        elif server.busy:
            server.busy -= 1
            self.respond(503, {"error": "The batch scheduling queue to which this task was submitted is full"})
        elif len(files) > server.largest:
            fault = f"Task size {len(files)} is larger than maximum input batch size {server.largest}"
            self.respond(400, {"error": fault})
        else:
            outputs = server.exported.signatures[body["signature_name"]](image_bytes=tf.constant(files))
            columns = {name: value.numpy() for name, value in outputs.items()}
            columns["classes"] = columns["classes"].astype(str)
            rows = [{name: value[i].tolist() for name, value in columns.items()} for i in range(len(files))]
            self.respond(200, {"predictions": rows})

    def respond(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve_rest(exported):
    """Run the REST client against the stand-in."""

    def run(*arguments, busy=0):
        with BatchingServer(exported, busy) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            command = [sys.executable, SERVE / "rest_client.py", "--server", f"http://127.0.0.1:{server.server_port}"]
            done = subprocess.run([*map(str, [*command, *arguments])], capture_output=True, text=True, timeout=60)
            server.closing.set()
            server.shutdown()
        return done, server.asked

    return run


def test_the_rest_client_prints_the_labels_of_the_model(exported, picture, tmp_path, serve_rest):
    photo, text = tmp_path / "photo.jpg", tmp_path / "text.jpg"
    photo.write_bytes(encode(picture.convert("RGB"), "JPEG"))
    text.write_text("no image")
    done, asked = serve_rest(photo, text)
    assert done.returncode == 0, done.stderr
    assert asked == [("/v1/models/efficientnet:predict", "labels", 2)]
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    (expected,) = expected_probabilities(exported.model, [photo.read_bytes()])
    best = np.argsort(expected)[::-1][:3]
    assert [(path, label) for path, _, label in lines[:3]] == [(str(photo), CLASSES[i][1]) for i in best]
    np.testing.assert_allclose([float(score) for _, score, _ in lines[:3]], expected[best], atol=1e-4)
    assert lines[3] == [str(text), "0.0000", "invalid"]


def test_the_rest_client_sends_smaller_requests_to_a_server_that_demands_it(exported, picture, tmp_path, serve_rest):
    paths = [tmp_path / f"{i:02}.png" for i in range(70)]
    for i, path in enumerate(paths):
        picture.convert("RGB").rotate(5 * i).save(path)
    done, asked = serve_rest("--batch-size", 70, *paths)
    assert done.returncode == 0, done.stderr
    assert [count for *_, count in asked] == [70, 35, 17, 18, 35, 17, 18]
    lines = [line.split("\t") for line in done.stdout.splitlines()][::3]
    expected = expected_probabilities(exported.model, [path.read_bytes() for path in paths])
    assert [(path, label) for path, _, label in lines] == [
        (str(path), CLASSES[row.argmax()][1]) for path, row in zip(paths, expected, strict=True)
    ]
    done, asked = serve_rest(*paths[:20])
    assert (done.returncode, [count for *_, count in asked]) == (0, [8, 8, 4])


def test_the_rest_client_waits_for_a_busy_server_and_reports_what_it_refuses(picture, tmp_path, serve_rest):
    path = tmp_path / "photo.png"
    picture.save(path)
    done, asked = serve_rest(path, busy=2)
    assert (done.returncode, len(asked)) == (0, 3)
    done, _ = serve_rest(path, "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no server at http://127.0.0.1:9/")


# The names in model_servers/main.cc of the server's sources.
FLAGS = {
    *("port", "rest_api_port", "rest_api_num_threads", "rest_api_timeout_in_ms", "enable_batching"),
    *("allow_version_labels_for_unavailable_models", "batching_parameters_file", "model_config_file"),
    *("enable_per_model_batching_parameters", "model_config_file_poll_wait_seconds", "file_system_poll_wait_seconds"),
    *("monitoring_config_file", "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"),
    *("grpc_channel_arguments", "grpc_max_threads", "enable_grpc_healthcheck_service", "mixed_precision"),
}


def test_compose_and_kubernetes_start_the_server_with_the_same_flags():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    (compose,) = yaml.safe_load((SERVE / "compose.yaml").read_text())["services"].values()
    deployment, service, *_ = yaml.safe_load_all((SERVE / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"] == compose["command"]
    assert {flag.lstrip("-").partition("=")[0] for flag in container["args"]} <= FLAGS
    tag = container["image"].partition(":")[2]
    assert re.fullmatch(r"\d+\.\d+\.\d+", tag)
    assert f":-{tag}}}" in compose["image"]
    assert {row["name"]: row["value"] for row in container["env"]} == compose["environment"]
    ports = sorted(port["containerPort"] for port in container["ports"])
    assert ports == sorted(port["port"] for port in service["spec"]["ports"]) == [8500, 8501]
    assert compose["ports"] == [f"{port}:{port}" for port in ports]
    for flag in compose["command"]:
        if "=/config/" in flag:
            assert (SERVE / flag.rsplit("/", 1)[1]).is_file()
    name = re.search(r'name: "(.*)"', (SERVE / "models.config").read_text())[1]
    assert name == deployment["metadata"]["name"]
    assert "--enable_grpc_healthcheck_service" in container["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": 8500}
    # An editor replaces a file: a mounted file would stay the old one.
    assert all(not volume.split(":")[0].endswith((".config", ".pbtxt")) for volume in compose["volumes"])


def test_kubernetes_scales_one_deployment_and_gives_it_as_many_threads_as_cores():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    deployment, service, budget, scaler = yaml.safe_load_all((SERVE / "kubernetes.yaml").read_text())
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # they are the autoscaler's
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (compose,) = yaml.safe_load((SERVE / "compose.yaml").read_text())["services"].values()
    cores = container["resources"]["limits"]["cpu"]
    assert cores == container["resources"]["requests"]["cpu"] == str(compose["cpus"])
    for kind in ("intra", "inter"):
        assert f"--tensorflow_{kind}_op_parallelism={cores}" in container["args"]
    assert f"num_batch_threads {{ value: {cores} }}" in (SERVE / "batching.config").read_text()
    (seconds,) = container["lifecycle"]["preStop"]["exec"]["command"][1:]
    assert int(seconds) < pod["terminationGracePeriodSeconds"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
