"""The routes of the HTTP server: photos in, labels out, and everything around it."""

import base64
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_server_run import png, running

from keras_effnet.http_server import app as app_module
from keras_effnet.http_server.settings import Limits, Settings

SERVE = Path(__file__).parents[2] / "examples" / "serve"
BLUE = "#0000ff"
# The softmax of 5 x (1, 0, 0).
RED = np.exp([5, 0, 0]) / np.exp([5, 0, 0]).sum()
PREDICT = "/v1/models/colours:predict"


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


# --- POST /classify ---


def test_classify_labels_the_files_of_a_form_and_a_bad_one_costs_only_itself(site: Any) -> None:
    answer = site.form("/classify?top=2", ("a.png", png()), ("bad.jpg", b"no photo"), ("b.png", png(BLUE))).json
    first, bad, last = answer["predictions"]
    assert (answer["model"], answer["engine"]) == ("colours", "keras")
    assert answer["milliseconds"] > 0
    assert (first["name"], [row["label"] for row in first["labels"]]) == ("a.png", ["red", "blue"])
    assert first["labels"][0] == {"index": 0, "wnid": None, "label": "red", "score": pytest.approx(RED[0], abs=1e-5)}
    assert last["labels"][0]["label"] == "blue"
    assert (bad["name"], set(bad)) == ("bad.jpg", {"name", "error"})
    assert "is not an image" in bad["error"]


@pytest.mark.parametrize("kind", ["image/png", "application/x-www-form-urlencoded", ""])
def test_classify_takes_one_photo_as_the_body(kind: str, site: Any) -> None:
    headers = {"Content-Type": kind} if kind else {}
    (entry,) = site.ask("/classify", png(BLUE), **headers).json["predictions"]
    assert entry["labels"][0]["label"] == "blue"


def test_requests_without_photos_are_answered(site: Any) -> None:
    assert site.form("/classify").json["predictions"] == []
    assert site.ask("/classify", b"").json["predictions"] == []
    assert site.ask(PREDICT, {"instances": []}).json == {"predictions": []}
    assert site.ask(PREDICT, {"inputs": {"image_bytes": []}}).json == {
        "outputs": {"classes": [], "scores": [], "probabilities": []}
    }
    assert site.ask("/explain", b"").status == 400


def test_a_thousand_photos_are_answered_in_order(site: Any) -> None:
    colours = ["#ff0000", "#00ff00", BLUE]
    photos = [(f"{i}.png", png(colours[i % 3], (8, 8))) for i in range(1000)]
    entries = site.form("/classify", *photos).json["predictions"]
    assert [entry["labels"][0]["index"] for entry in entries] == [i % 3 for i in range(1000)]
    instances = [b64(data) for _, data in photos]
    rows = site.ask(PREDICT, {"instances": instances}).json["predictions"]
    assert [int(np.argmax(row["probabilities"])) for row in rows] == [i % 3 for i in range(1000)]


@pytest.mark.parametrize("top", ["0", "-1", "x", "1" * 9, "²"])
def test_a_wrong_top_is_refused(top: str, site: Any) -> None:
    from urllib.parse import quote

    answer = site.ask(f"/classify?top={quote(top)}", png())
    assert answer.status == 400
    assert "Expected a whole number of at least 1" in answer.json["error"]


def test_a_malformed_form_is_refused(site: Any) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        assert site.ask("/classify", b"--y\r\nrubbish", Content_Type=kind).status == 400


def test_a_form_with_text_instead_of_a_file_is_refused(site: Any) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\nphoto.jpg\r\n--x--\r\n'
    answer = site.ask("/classify", body, Content_Type="multipart/form-data; boundary=x")
    assert (answer.status, "'photo' of the form is text" in answer.json["error"]) == (400, True)


def test_names_from_a_request_open_no_file(site: Any) -> None:
    (entry,) = site.form("/classify", ("/etc/passwd", b"")).json["predictions"]
    assert "labels" not in entry
    for instance in ("/etc/passwd", {"image_bytes": "file:///etc/passwd"}, {"b64": 7}, None, 3, [[]]):
        assert site.ask(PREDICT, {"instances": [instance]}).status == 400
    assert site.ask("/../../etc/passwd").status == 404
    assert site.ask("/%2e%2e/page.html").status == 404


def test_only_formats_that_need_no_other_program_are_read(site: Any) -> None:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (20, 20)).save(file, "EPS")
    (entry,) = site.ask("/classify", file.getvalue()).json["predictions"]
    assert "has the format EPS" in entry["error"]


# --- TensorFlow Serving's REST API ---


@pytest.mark.parametrize(
    ("request_body", "by_row"),
    [
        ({"instances": [b64(png())]}, True),
        ({"signature_name": "image_bytes", "instances": [{"image_bytes": b64(png())}]}, True),
        ({"signature_name": "image_bytes", "inputs": {"image_bytes": [b64(png())]}}, False),
        ({"inputs": [b64(png())]}, False),
        ({"signature_name": "serving_default", "instances": [[[[255, 0, 0]] * 32] * 32]}, True),
        ({"signature_name": "images_uint8", "instances": [{"images": [[[255, 0, 0]] * 32] * 32}]}, True),
        ({"inputs": {"images": [[[[255.0, 0.0, 0.0]] * 32] * 32]}}, False),
    ],
)
def test_predict_takes_every_form_of_the_request(request_body: Any, by_row: bool, site: Any) -> None:
    for path in (PREDICT, "/v1/models/colours/versions/1:predict"):
        answer = site.ask(path, request_body)
        assert answer.status == 200
        row = answer.json["predictions"][0] if by_row else {k: v[0] for k, v in answer.json["outputs"].items()}
        assert row["classes"][0] == "red"
        np.testing.assert_allclose(row["probabilities"], RED, atol=1e-5)
        np.testing.assert_allclose(row["scores"], sorted(RED)[::-1], atol=1e-5)


def test_the_signature_labels_answers_without_probabilities(site: Any) -> None:
    body = {"signature_name": "labels", "instances": [b64(png()), b64(b"no photo")]}
    good, bad = site.ask(PREDICT, body).json["predictions"]
    assert (set(good), good["classes"][0], bad["classes"][0]) == ({"classes", "scores"}, "red", "invalid")
    body = {"signature_name": "labels", "inputs": [b64(png())]}
    assert set(site.ask(PREDICT, body).json["outputs"]) == {"classes", "scores"}
    assert site.ask(PREDICT, {"signature_name": "labels", "instances": [[[[255, 0, 0]] * 32] * 32]}).status == 400


def test_predict_labels_a_bad_photo_invalid_as_our_saved_models_do(site: Any) -> None:
    bad, good = site.ask(PREDICT, {"instances": [b64(b"no photo"), b64(png())]}).json["predictions"]
    assert bad == {"classes": ["invalid"] * 3, "scores": [0.0] * 3, "probabilities": [0.0] * 3}
    assert good["classes"][0] == "red"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"instances": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b"[]", 'either "instances" or "inputs"'),
        (b'{"instances": [], "inputs": []}', 'either "instances" or "inputs"'),
        (b'{"instances": {}}', "Expected a list"),
        (b'{"instances": [{"b64": "%%%"}]}', "not base64"),
        (b'{"instances": [{"picture": {"b64": ""}}]}', "Unknown inputs"),
        (b'{"signature_name": "classify", "instances": []}', "Unknown signature_name"),
        (b'{"signature_name": ["image_bytes"], "instances": []}', "Unknown signature_name"),
        (b'{"instances": [[[1, 2, 3]]]}', "has the shape [1, 3]"),
        (b'{"instances": [[[1], [2, 3]]]}', "not an image of numbers"),
        (b'{"instances": [["a"]]}', "not an image of numbers"),
    ],
)
def test_a_malformed_request_is_refused_with_a_reason(body: bytes, fault: str, site: Any) -> None:
    answer = site.ask(PREDICT, body)
    assert answer.status == 400
    assert fault in answer.json["error"]
    assert len(answer.body) < 1000


def test_pixels_that_are_not_bytes_are_refused_by_the_signature_of_bytes(site: Any) -> None:
    image = [[[1.5, 0, 0]] * 32] * 32
    assert site.ask(PREDICT, {"signature_name": "images_uint8", "instances": [image]}).status == 400


def test_status_and_metadata_have_the_form_of_tensorflow_serving(site: Any) -> None:
    for path in ("/v1/models/colours", "/v1/models/colours/versions/1"):
        (version,) = site.ask(path).json["model_version_status"]
        assert version == {
            "version": "1",
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
    metadata = site.ask("/v1/models/colours/metadata").json
    assert metadata["model_spec"] == {"name": "colours", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {"serving_default", "images_uint8", "image_bytes", "labels"}
    assert set(signatures["labels"]["outputs"]) == {"classes", "scores"}
    assert signatures["image_bytes"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize("path", ["/v1/models/other", "/v1/models/colours/versions/2", "/v1/models/colours/labels/x"])
def test_another_model_is_not_found(path: str, site: Any) -> None:
    assert site.ask(path).status == 404
    assert site.ask(f"{path}:predict", {"instances": []}).status == 404
    assert site.ask(PREDICT).status == 405


def test_the_rest_client_of_the_examples_works_against_the_server(site: Any, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(b"no photo")
    command = [sys.executable, SERVE / "rest_client.py", "--model", "colours"]
    command += ["--server", f"http://127.0.0.1:{site.port}", tmp_path / "red.png", tmp_path / "bad.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[2] for line in lines] == ["red", "blue", "green", *["invalid"] * 3]
    assert float(lines[0][1]) == pytest.approx(RED[0], abs=1e-4)


# --- What is around it ---


def test_the_page_loads_nothing_from_elsewhere(site: Any) -> None:
    answer = site.ask("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.body.decode()
    assert not [word for word in ("http:", "https:", "//cdn", "@import", "url(", "style=", " src=") if word in text]
    assert 'name="viewport"' in text
    assert 'capture="environment"' in text


def test_an_activation_map_is_a_picture_of_what_the_model_received(site: Any) -> None:
    from io import BytesIO

    from PIL import Image

    assert site.ask("/model").json["activation_maps"]
    # Half of the photo is blue: the map of blue is red there, and blue elsewhere.
    photo = Image.new("RGB", (60, 60), "red")
    photo.paste("blue", (0, 0, 30, 60))
    file = BytesIO()
    photo.save(file, "PNG")
    answer = site.ask("/explain?class=2", file.getvalue())
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    pixels = np.asarray(Image.open(BytesIO(answer.body))).astype(int)
    assert pixels.shape[0] == pixels.shape[1]
    size = pixels.shape[0]
    left, right = pixels[:, : size // 3].mean(axis=(0, 1)), pixels[:, -size // 3 :].mean(axis=(0, 1))
    assert left[2] > right[2]  # the blue half of the photo
    assert abs(left[0] - (122 + 0) / 2) < 12  # Turbo's dark red, 7a0403, over blue
    assert site.ask("/explain?class=3", file.getvalue()).status == 400
    assert site.ask("/explain", b"no photo").status == 400


def test_metrics_count_requests_and_photos(site: Any) -> None:
    def counts() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in site.ask("/metrics").body.decode().splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}

    good, bad = 'keras_effnet_photos_total{result="labelled"}', 'keras_effnet_photos_total{result="unreadable"}'
    route = 'keras_effnet_requests_total{route="classify",status="200"}'
    site.form("/classify", ("a", png()))
    before = counts()
    site.form("/classify", ("a", png()), ("b", b""), ("c", png()))
    after = counts()
    assert [after[name] - before[name] for name in (good, bad, route)] == [2, 1, 1]
    requests = sum(value for name, value in after.items() if 'requests_total{route="classify"' in name)
    assert after['keras_effnet_request_seconds_count{route="classify"}'] == requests
    assert after["keras_effnet_photos_waiting"] == 0
    assert after['keras_effnet_model_info{model="colours",engine="keras",size="32"}'] == 1


def test_openapi_describes_every_route(site: Any) -> None:
    document = site.ask("/openapi.json").json
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    for path, method in described:
        assert site.ask(path, b"" if method == "POST" else None, method).status in (200, 400)
    names = {path.replace("{name}", "colours").replace("{version}", "1") for path in _routes()}
    assert {path for path, _ in described} == names


def _routes() -> list[str]:
    service = object.__new__(app_module.Service)
    return [route.path for route in app_module.Service.routes(service)]


# --- Load ---


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The engine waits until this event is set."""
    event = threading.Event()
    scores = app_module.Predictor.scores

    def wait(self: Any, images: np.ndarray) -> np.ndarray:
        event.wait(30)
        return scores(self, images)

    monkeypatch.setattr(app_module.Predictor, "scores", wait)
    return event


def test_a_full_queue_answers_503_and_the_waiting_requests_are_answered(colours: str, blocked: threading.Event) -> None:
    settings = Settings(model=colours, engine="keras", port=0, limits=Limits(waiting=2))
    with running(settings) as site:
        answers: list[Any] = []
        threads = [threading.Thread(target=lambda: answers.append(site.ask("/classify", png()))) for _ in range(2)]
        for thread in threads:
            thread.start()
        while site.ask("/health").json["waiting"] < 2:
            pass
        refused = site.ask("/classify", png())
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "queue is full" in refused.json["error"]
        blocked.set()
        for thread in threads:
            thread.join()
        assert [answer.json["predictions"][0]["labels"][0]["label"] for answer in answers] == ["red"] * 2
        assert site.ask("/classify", png()).status == 200


def test_a_request_that_takes_too_long_answers_504(colours: str, blocked: threading.Event) -> None:
    with running(Settings(model=colours, engine="keras", port=0, limits=Limits(seconds=0.3))) as site:
        answer = site.ask("/classify", png())
        assert (answer.status, "longer than 0.3 seconds" in answer.json["error"]) == (504, True)
        blocked.set()
        assert site.ask("/classify", png()).status == 200
        assert site.ask("/health").json["waiting"] == 0


def test_an_engine_that_fails_answers_500_without_details_and_the_server_goes_on(
    colours: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scores, faults = app_module.Predictor.scores, [RuntimeError("out of memory in /secret/place")]

    def fail_once(self: Any, images: np.ndarray) -> np.ndarray:
        if faults:
            raise faults.pop()
        return scores(self, images)

    monkeypatch.setattr(app_module.Predictor, "scores", fail_once)
    with running(Settings(model=colours, engine="keras", port=0)) as site:
        answer = site.ask("/classify", png())
        assert (answer.status, answer.json) == (500, {"error": "Internal error."})
        end = time.monotonic() + 10
        while "out of memory" not in caplog.text:  # written after the answer
            assert time.monotonic() < end
            time.sleep(0.01)
        assert site.ask("/classify", png()).status == 200


def test_requests_of_several_clients_get_their_own_answers(site: Any) -> None:
    colours, faults = ["#ff0000", "#00ff00", BLUE], []

    def client(i: int) -> None:
        for _ in range(20):
            (entry,) = site.ask("/classify", png(colours[i % 3])).json["predictions"]
            if entry["labels"][0]["index"] != i % 3:
                faults.append(entry)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_json_is_compact_enough_for_a_thousand_classes() -> None:
    from keras_effnet.http_server.photo_scores import Scored
    from keras_effnet.http_server.predict_api import PredictRequest, answer

    scores = np.random.default_rng(0).dirichlet(np.ones(1000)).astype(np.float32)
    classes = tuple((None, f"class {i}") for i in range(1000))
    text = json.dumps(answer([Scored(scores)], classes, PredictRequest((), by_row=True)))
    assert len(text) < 16_000
    np.testing.assert_allclose(json.loads(text)["predictions"][0]["probabilities"], scores, rtol=0, atol=1e-9)
