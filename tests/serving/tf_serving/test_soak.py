"""The service under full load, with some invalid requests: each gets an answer or a status, and memory stays constant.

KERAS_EFFNET_SOAK is the duration in seconds, by default 120.
"""

import io
import itertools
import os
import random
import statistics
import struct
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import keras
from keras_effnet.images import center_crop_and_resize, load_image

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend than TensorFlow", allow_module_level=True)
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

SECONDS = float(os.environ.get("KERAS_EFFNET_SOAK", "120"))
HOSTILE = 0.05
CLIENTS = 8  # twice the threads of the service, so that it is always busy
SIZE = 32
# Not 1: glibc keeps one arena per thread, and each grows once to the largest photos it has processed.
FLAT = 1.05
METHOD = "/tensorflow.serving.PredictionService/Predict"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm"),
]


# --- Requests ---


def encode(image, suffix, **options):
    file = io.BytesIO()
    image.save(file, suffix, **options)
    return file.getvalue()


def photographs():
    """Sixteen different pictures, as JPEG, PNG and WebP files of several sizes."""
    rng = np.random.default_rng(5)
    suffixes = ["JPEG", "PNG", "JPEG", "WEBP"] if hasattr(tf.io, "decode_webp") else ["JPEG", "PNG", "JPEG", "PNG"]
    for number in range(16):
        pixels = rng.integers(0, 256, (4, 5, 3), dtype="uint8")
        size = (320 + 40 * (number % 7), 240 + 50 * (number % 5))
        lossless = {"lossless": True} if suffixes[number % 4] == "WEBP" else {}
        yield encode(Image.fromarray(pixels).resize(size), suffixes[number % 4], **lossless)


def bomb(width, height):
    """A valid black PNG with one bit per pixel: the file has about a thousandth of the decoded size."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", packed) + part(b"IEND", b"")


def bad_files():
    """Files that are not photos, by name."""
    picture = Image.fromarray(np.random.default_rng(6).integers(0, 256, (90, 80, 3), np.uint8))
    frames = {"save_all": True, "append_images": [picture.rotate(180)]}
    jpeg, png = encode(picture, "JPEG"), encode(picture, "PNG")
    sides = jpeg.index(b"\xff\xc0") + 5
    return {
        "JPEG, truncated": jpeg[: len(jpeg) // 2],
        "PNG, truncated": png[: len(png) // 2],
        "30,000 x 30,000 pixels": bomb(30_000, 30_000),
        "JPEG that claims 30,000 x 30,000": jpeg[:sides] + struct.pack(">HH", 30_000, 30_000) + jpeg[sides + 4 :],
        "zero bytes": b"",
        "text": b"no photo",
        "GIF, animated": encode(picture, "GIF", **frames),
        "WebP, animated": encode(picture, "WEBP", **frames),
    }


def odd_files():
    """Unusual files that are valid."""
    picture = Image.fromarray(np.random.default_rng(7).integers(0, 256, (3, 4, 3), np.uint8)).resize((200, 160))
    return {
        "30,000 pixels wide": encode(picture.resize((30_000, 40)), "PNG"),
        "CMYK": encode(picture.convert("CMYK"), "JPEG"),
    }


def wrong_requests(message, file):
    """Invalid messages, serialised, and the expected status of each."""
    floats = np.zeros((2, SIZE, SIZE, 3), "float32")
    cut = message({"images": floats}, "serving_default")
    cut.inputs["images"].tensor_content = cut.inputs["images"].tensor_content[:100] or b"\1" * 100
    old = message({"image_bytes": [file]})
    old.model_spec.version.value = 3
    requests = {
        "numbers for files": (message({"image_bytes": [1.5]}), "INVALID_ARGUMENT"),
        "a scalar": (message({"image_bytes": file}), "INVALID_ARGUMENT"),
        "a matrix of files": (message({"image_bytes": [[file, file]]}), "INVALID_ARGUMENT"),
        "another input": (message({"photos": [file]}), "INVALID_ARGUMENT"),
        "two inputs": (message({"image_bytes": [file], "images": floats}), "INVALID_ARGUMENT"),
        "another signature": (message({"image_bytes": [file]}, "photos"), "INVALID_ARGUMENT"),
        "a column too many": (message({"images": floats[:, :, :-1]}, "serving_default"), "INVALID_ARGUMENT"),
        "no batch": (message({"images": floats[0]}, "serving_default"), "INVALID_ARGUMENT"),
        "bytes for floats": (message({"images": floats.astype("uint8")}, "serving_default"), "INVALID_ARGUMENT"),
        "int64 for bytes": (message({"images": floats.astype("int64")}, "images_uint8"), "INVALID_ARGUMENT"),
        "fewer values than the shape says": (cut, "INVALID_ARGUMENT"),
        "another model": (message({"image_bytes": [file]}, name="other"), "NOT_FOUND"),
        "another version": (old, "NOT_FOUND"),
    }
    coded = {name: (request.SerializeToString(), status) for name, (request, status) in requests.items()}
    too_long = message({"image_bytes": [bytes((1 << 26) + 1)]}).SerializeToString()
    return coded | {"no message": (b"\xff" * 50, "INTERNAL"), "too long": (too_long, "RESOURCE_EXHAUSTED")}


@pytest.fixture(scope="module")
def mail(served, message):
    """All requests, and the predictions of Keras for them."""
    files, odd, bad = [*photographs()], odd_files(), bad_files()
    pixels = np.stack([center_crop_and_resize(load_image(file), SIZE) for file in [*files, *odd.values()]])
    known = np.asarray(served.model.predict_on_batch(pixels))
    apart = np.abs(known[:, None] - known[None]).max(-1) + np.eye(len(known))
    assert apart.min() > 1e-3  # a mix-up would be noticed: this is a hundred times the tolerance
    return SimpleNamespace(
        files=files, pixels=pixels[: len(files)], odd=odd, bad=bad, known=known, wrong=wrong_requests(message, files[0])
    )


# --- Clients ---


class Client:
    """Sends valid requests and, among a hundred, five invalid ones; counts the answers."""

    def __init__(self, stub, raw, mail, message, kinds):
        self.stub, self.raw, self.mail, self.message, self.kinds = stub, raw, mail, message, kinds
        self.counts = Counter()

    def run(self, seed, until):
        rng = random.Random(seed)
        while time.monotonic() < until:
            kind = next(self.kinds) if rng.random() < HOSTILE else "good"
            self.counts["sent", kind] += 1
            self.send(kind, rng)
            self.counts["answered", kind] += 1
        return self.counts

    def send(self, kind, rng):
        if kind in self.mail.wrong:
            self.refused(*self.mail.wrong[kind])
        elif kind == "good" and rng.random() < 0.2:
            self.pixels([rng.randrange(len(self.mail.files)) for _ in range(rng.randint(1, 8))])
        else:
            self.batch(kind, rng)

    def refused(self, coded, status):
        import grpc

        with pytest.raises(grpc.RpcError) as caught:
            self.raw(coded, timeout=60)
        assert caught.value.code().name == status

    def pixels(self, places):
        images = {"images": self.mail.pixels[places]}
        self.check(self.stub.Predict(self.message(images, "serving_default"), timeout=60), self.mail.known[places])

    def batch(self, kind, rng):
        """Some photos, with the file of this kind among them."""
        places = [rng.randrange(len(self.mail.files)) for _ in range(rng.randint(1, 8))]
        files, known = [self.mail.files[place] for place in places], [self.mail.known[place] for place in places]
        if kind != "good":
            at = rng.randint(0, len(files))
            files.insert(at, {**self.mail.bad, **self.mail.odd}[kind])
            odd = [*self.mail.odd]
            known.insert(at, self.mail.known[len(self.mail.files) + odd.index(kind)] if kind in odd else np.zeros(10))
        response = self.stub.Predict(self.message({"image_bytes": files}), timeout=60)
        self.check(response, np.stack(known), at if kind == "CMYK" else None)

    def check(self, response, known, nearly=None):
        """Every row is the answer to its own photo; CMYK is converted a little differently than by Pillow."""
        answer = {key: tf.make_ndarray(value) for key, value in response.outputs.items()}
        close = np.full((len(known), 1), 1e-5)
        if nearly is not None:
            close[nearly] = 0.05
        assert answer["probabilities"].shape == known.shape
        assert (np.abs(answer["probabilities"] - known) <= close).all()
        best = answer["probabilities"].argsort(axis=1)[:, ::-1][:, :5]
        labels = [
            [b"class %d" % i if row.any() else b"invalid" for i in order]
            for row, order in zip(known, best, strict=True)
        ]
        assert answer["classes"].tolist() == labels
        np.testing.assert_array_equal(answer["scores"], np.take_along_axis(answer["probabilities"], best, axis=1))


def watch(process, until):
    """The memory of a process in megabytes, sampled twice a second, and its processor time in seconds."""
    folder, memory = Path(f"/proc/{process.pid}"), []

    def used():
        return sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    start = used()
    while time.monotonic() < until:
        memory.append(int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        time.sleep(0.5)
    return memory, used() - start


# --- Answers ---


@pytest.fixture(scope="module")
def soaked(service, mail, message):
    """The result of the full load: the counts of the clients, the memory of the service, and its processor time."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    each = [*mail.bad, *mail.odd, *mail.wrong]
    shared, lock = itertools.cycle(each), threading.Lock()

    def kinds():
        while True:
            with lock:
                kind = next(shared)
            yield kind

    with grpc.insecure_channel(service.target, options=[("grpc.max_send_message_length", -1)]) as channel:
        stub, raw = prediction_service_pb2_grpc.PredictionServiceStub(channel), channel.unary_unary(METHOD)
        clients = [Client(stub, raw, mail, message, kinds()) for _ in range(CLIENTS)]
        for kind in ["good", *each]:
            clients[0].send(kind, random.Random(0))  # the first request of each kind is slow, and allocates memory
        until = time.monotonic() + SECONDS
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            watched = pool.submit(watch, service.process, until)
            runs = [pool.submit(client.run, seed, until) for seed, client in enumerate(clients)]
            counts = sum((run.result() for run in runs), Counter())
            memory, busy = watched.result()
        clients[0].send("good", random.Random(0))
    return SimpleNamespace(counts=counts, memory=memory, busy=busy, kinds=each)


def test_every_request_gets_its_own_answer_or_a_status(soaked):
    sent = Counter({kind: count for (what, kind), count in soaked.counts.items() if what == "sent"})
    answered = Counter({kind: count for (what, kind), count in soaked.counts.items() if what == "answered"})
    assert sent == answered
    hostile = sent.total() - sent["good"]
    assert set(sent) == {"good", *soaked.kinds} or hostile < len(soaked.kinds)
    print(f"{SECONDS:g} s: {sent['good']} good and {hostile} hostile requests, {soaked.busy:.0f} s of processor time")  # noqa: T201
    if hostile > 100:
        assert 0.5 * HOSTILE < hostile / sent.total() < 2 * HOSTILE


def test_the_memory_of_the_service_stays_constant(soaked):
    length = len(soaked.memory) // 4
    if length < 10:
        pytest.skip(f"KERAS_EFFNET_SOAK is {SECONDS:g}, too short for this test")
    quarters = [statistics.median(soaked.memory[i * length : (i + 1) * length]) for i in range(4)]
    print(f"megabytes by quarter: {[round(value) for value in quarters]}, most {max(soaked.memory):.0f}")  # noqa: T201
    assert quarters[3] <= FLAT * quarters[1]


def test_the_service_still_runs_and_has_logged_no_exception(soaked, service):
    assert service.process.poll() is None
    assert "Traceback" not in service.log.read_text().replace("Exception deserializing message!\nTraceback", "")
