"""Models to and from the Hub: what is sent, what is fetched, and what is refused; with a stand-in of its HTTP API."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

from keras_effnet.sharing import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "hf:ann/flowers"
RUN = {
    "model.keras": b"\x89 the model " * 1000,
    "labels.txt": b"rose\ntulip\n",
    "report.json": b"{}",
    "README.md": b"---\nlicense: other\n---\n",
}


class Hub(ThreadingHTTPServer):
    """The parts of the Hub's API that are used: creating, uploading, listing and downloading a repository."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.change: Callable[[str, bytes], bytes] = lambda name, data: data
        self.created: list[dict[str, Any]] = []
        self.revisions: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/ann/flowers", "id": "ann/flowers"})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [row["path"] for row in json.loads(body)["files"]]
            self.answer({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.address}/ann/flowers/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"error": "not here"}, 404)

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path.startswith("/api/models/ann/flowers"):
            self.server.revisions.append(path.rpartition("/revision/")[2])
            self.answer({"id": "ann/flowers", "modelId": "ann/flowers", "sha": COMMIT, "siblings": self.siblings()})
        elif found := re.fullmatch(rf"/ann/flowers/resolve/{COMMIT}/(.+)", path):
            data = self.server.change(found[1], self.server.files[found[1]])
            etag = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self.respond(200, data, {**etag, "Accept-Ranges": "none"})
        else:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815  (the name is the protocol's)

    def siblings(self) -> list[dict[str, Any]]:
        rows = []
        for name, data in self.server.files.items():
            row: dict[str, Any] = {"rfilename": name, "size": len(data)}
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if len(data) > 1000:  # the Hub keeps large files in LFS
                row["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 100}
            rows.append(row)
        return rows

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.respond(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def respond(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.delenv("KERAS_EFFNET_OFFLINE", raising=False)
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, with a photo and a secret that are none of its files."""
    folder = tmp_path / "run"
    (folder / "photos").mkdir(parents=True)
    for name, data in {**RUN, "photos/private.jpg": b"x", ".env": b"TOKEN=1", "notes.txt": b"x"}.items():
        (folder / name).write_bytes(data)
    return folder


def test_push_sends_the_files_of_the_model_and_no_others(server: Hub, run: Path) -> None:
    address = hub.push(REPOSITORY, run, private=True, endpoint=server.address)
    assert address.endswith("/ann/flowers")
    assert server.files == RUN
    assert server.created[0]["name"] == "flowers"
    assert server.created[0].get("private") or server.created[0].get("visibility") == "private"


def test_an_exported_file_is_sent_with_its_card_as_readme(server: Hub, tmp_path: Path) -> None:
    for name in ("lite0.tflite", "lite0.tflite.json", "lite0.tflite.md", "other.tflite"):
        (tmp_path / name).write_text(name)
    hub.push(REPOSITORY, tmp_path / "lite0.tflite", endpoint=server.address)
    assert set(server.files) == {"lite0.tflite", "lite0.tflite.json", "README.md"}
    assert server.files["README.md"] == b"lite0.tflite.md"


def test_a_pulled_model_equals_the_pushed_one(server: Hub, run: Path, tmp_path: Path) -> None:
    hub.push(REPOSITORY, run, endpoint=server.address)
    server.files["train.py"] = b"import os"  # somebody else's script is not fetched
    folder = hub.pull(f"{REPOSITORY}@v1", tmp_path / "new" / "copy", endpoint=server.address)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == RUN
    assert server.revisions == ["v1"]
    assert [path.name for path in folder.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("name", ["model.keras", "labels.txt"])  # in LFS, and in git
@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"!", lambda data: data + b"!", lambda data: b"!"])
def test_a_file_that_the_hub_does_not_name_is_refused(
    name: str, change: Callable[[bytes], bytes], server: Hub, run: Path, tmp_path: Path
) -> None:
    hub.push(REPOSITORY, run, endpoint=server.address)
    server.change = lambda found, data: change(data) if found == name else data
    with pytest.raises((ValueError, OSError)):
        hub.pull(REPOSITORY, tmp_path / "copy", endpoint=server.address)
    assert not (tmp_path / "copy").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("name", ["../evil.keras", "/evil.keras", "a/../../evil.keras", "..\\evil.keras", "a/b.keras"])
def test_a_name_that_leads_elsewhere_is_not_fetched(name: str, server: Hub, tmp_path: Path) -> None:
    server.files = {name: b"x"}
    with pytest.raises(ValueError, match="has no model"):
        hub.pull(REPOSITORY, tmp_path / "copy", endpoint=server.address)


def test_a_repository_that_is_too_large_is_refused(
    server: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.push(REPOSITORY, run, endpoint=server.address)
    monkeypatch.setattr(hub, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="Expected at most 1,000"):
        hub.pull(REPOSITORY, tmp_path / "copy", endpoint=server.address)


def test_missing_repositories_and_servers_are_reported_in_one_line(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="There is no repository 'ann/other'"):
        hub.pull("hf:ann/other", tmp_path / "copy", endpoint=server.address)
    with pytest.raises(OSError, match=r"The Hub cannot be reached|Connection|refused"):
        hub.pull(REPOSITORY, tmp_path / "copy", endpoint="http://127.0.0.1:9")


def test_offline_nothing_is_asked(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    for call in (lambda: hub.push(REPOSITORY, run), lambda: hub.pull(REPOSITORY, tmp_path / "copy")):
        with pytest.raises(OSError, match="KERAS_EFFNET_OFFLINE forbids the network"):
            call()


@pytest.mark.parametrize("name", ["ann/flowers", "hf:flowers", "hf:ann/flowers/x", "hf:ann/fl owers", "hf:../x@", ""])
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected hf:USER/NAME"):
        hub.pull(name, tmp_path / "copy")


def test_a_folder_without_a_model_or_card_is_not_sent(run: Path) -> None:
    (run / "README.md").unlink()
    with pytest.raises(ValueError, match=r"has no card 'README.md'"):
        hub.files_to_push(run)
    (run / "model.keras").unlink()
    with pytest.raises(ValueError, match="There is no model at"):
        hub.files_to_push(run)


def test_a_folder_that_is_not_empty_is_left_alone(run: Path) -> None:
    with pytest.raises(ValueError, match="which is not empty. Expected a new or empty folder"):
        hub.pull(REPOSITORY, run)


def test_a_pulled_keras_file_with_code_is_not_run(server: Hub, tmp_path: Path) -> None:
    from keras_effnet._keras import LEGACY, keras
    from keras_effnet.inference.classifier import load_classifier

    if LEGACY:
        pytest.skip("tf_keras calls its safe mode by another name")
    mark = tmp_path / "run-by-the-model"
    image = keras.Input((8, 8, 3))
    code = eval(f"lambda x: (__import__('pathlib').Path({str(mark)!r}).touch(), x)[1]")
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Lambda(code)(image)))
    keras.Model(image, outputs).save(tmp_path / "model.keras")
    mark.unlink(missing_ok=True)
    server.files = {"model.keras": (tmp_path / "model.keras").read_bytes()}
    folder = hub.pull(REPOSITORY, tmp_path / "copy", endpoint=server.address)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_classifier(folder)
    assert not mark.exists()


def test_the_commands_print_where_the_model_is(
    server: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from keras_effnet import cli

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    connect = hub._api
    monkeypatch.setattr(hub, "_api", lambda endpoint: connect(server.address))
    done = CliRunner().invoke(cli.app, ["push", REPOSITORY, str(run)])
    assert (done.exit_code, done.stdout.strip()[-11:]) == (0, "ann/flowers"), done.stderr
    done = CliRunner().invoke(cli.app, ["pull", REPOSITORY, str(tmp_path / "copy"), "--json"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert json.loads(done.stdout) == {"path": str(tmp_path / "copy")}
    done = CliRunner().invoke(cli.app, ["pull", "flowers", str(tmp_path / "copy2")])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
