"""Weight files from the cache and from a local server that misbehaves in every way it can."""

import dataclasses
import email.utils
import errno
import hashlib
import http.server
import io
import logging
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest
import requests

from keras_effnet.errors import OfflineError, WeightsError
from keras_effnet.weights import cache as weights_cache
from keras_effnet.weights import http_transfer
from keras_effnet.weights.cache import digest_matches, find_cached
from keras_effnet.weights.download import fetch
from keras_effnet.weights.registry import Source

CONTENT = random.Random(0).randbytes(7000)
OTHER = random.Random(1).randbytes(7000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
PAGE = b"\n<!DOCTYPE html><title>Sign in</title>"
HTML = (("Content-Type", "text/html; charset=utf-8"),)

# A process that fetches a file when it reads a line from stdin. It imports neither Keras nor TensorFlow.
CHILD = """
import sys
from keras_effnet.weights.download import fetch
from keras_effnet.weights.registry import Source
print("ready", flush=True)
sys.stdin.readline()
print(fetch([Source(*sys.argv[1:])], "The weights"))
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """How the server responds to a request; the defaults are a correct response."""

    body: bytes = CONTENT
    status: int = 200
    tag: str = '"1"'
    headers: tuple[tuple[str, str], ...] = ()
    sized: bool = True
    ranges: bool = True
    honours_if_range: bool = True
    shift: int = 0  # bytes by which a range response starts too early
    most: int = 1 << 30  # maximum length of a range response
    sent: int = 1 << 30  # bytes sent before the server closes the connection
    stalls: bool = False  # instead of closing the connection, stop sending
    dies: bool = False  # instead of closing the connection, reset it and accept no other
    trickles: bool = False


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends the next answer."""

    def do_GET(self):
        server, asked, tag = self.server, self.headers.get("Range"), self.headers.get("If-Range")
        server.requests.append((self.path, asked, tag))
        answers = server.answers.get(self.path.rsplit("/", 1)[-1], [Answer()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        honoured = asked and answer.ranges and (tag in (None, answer.tag) or not answer.honours_if_range)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) - answer.shift if honoured else 0
        body = answer.body[start : start + answer.most] if honoured else answer.body
        outside = start >= len(answer.body)
        self.send_response(416 if outside else 206 if honoured else answer.status)
        if honoured and not outside:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(answer.body)}")
        for name, value in (*answer.headers, *([("ETag", answer.tag)] if answer.tag else [])):
            self.send_header(name, value)
        if answer.sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(answer, body[: answer.sent])

    def send_body(self, answer, body):
        server = self.server
        server.gate.wait(30)
        if answer.trickles:
            for byte in body:
                self.wfile.write(bytes([byte]))
                if server.over.wait(0.02):
                    return
        self.wfile.write(body)
        if answer.stalls:
            server.over.wait(30)
        if answer.dies:
            server.alive = False
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Has a list of answers for each file name, and repeats the last one."""

    request_queue_size = 20

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.answers, self.alive = [], {}, True
        self.gate, self.over = threading.Event(), threading.Event()
        self.gate.set()

    def verify_request(self, request, client_address):
        return self.alive

    def handle_error(self, request, client_address):
        pass  # clients that disconnect are part of the tests

    @property
    def ranges(self):
        return [asked for _, asked, _ in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.gate.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Iterator[Path]:
    """The cache folder. After each test it may only contain the right file, and files needed to resume a download."""
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in (
        "KERAS_EFFNET_OFFLINE",
        "KERAS_EFFNET_STALL_TIMEOUT",
        "KERAS_EFFNET_TOTAL_TIMEOUT",
        "http_proxy",
        "no_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(http_transfer, "FIRST_WAIT", 0.01)
    yield tmp_path / "ours"
    for path in (tmp_path / "ours").glob("*"):
        kept = path.name.endswith((".part", ".part.json", ".sha256")) or (
            path.suffix == ".lock" and not path.stat().st_size
        )
        assert kept or path.read_bytes() == CONTENT, path


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Records the waits between attempts instead of sleeping."""
    seconds: list[float] = []
    monkeypatch.setattr(http_transfer, "sleep", seconds.append)
    return seconds


def source(server, name="good.h5", digest=SHA256):
    return Source(f"http://127.0.0.1:{server.server_address[1]}/{name}", digest)


def cached(wanted):
    found = find_cached([wanted])
    return found.path if found else None


def files(folder):
    """The files in a cache except locks."""
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")


def part(folder):
    (path,) = folder.glob("*.part")
    return path.read_bytes()


def start_child(wanted):
    arguments = [sys.executable, "-c", CHILD, wanted.url, wanted.digest]
    child = subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    return child


def release(child):
    child.stdin.write("\n")
    child.stdin.flush()


def test_file_is_downloaded_once_and_then_read_from_the_cache(server, cache):
    good = source(server)
    assert cached(good) is None
    assert fetch([good], "The weights").read_bytes() == CONTENT
    assert cached(good) == fetch([good], "The weights") == cache / "good.h5"
    assert server.ranges == [None]
    assert files(cache) == ["good.h5"]


BAD = {
    "another file": (Answer(OTHER), "does not have sha256:"),
    "a web page": (Answer(PAGE, headers=HTML), "received a web page"),
    "a web page with the content type of a file": (Answer(PAGE), "received a web page"),
    "half of the file": (Answer(ranges=False, sent=3500), "IncompleteRead|cut off after 3,500 of 7,000 bytes"),
    "half of the file, size unknown": (Answer(sized=False, sent=3500), "does not have sha256:"),
    "404": (Answer(status=404), "HTTP 404 Not Found"),
    "500": (Answer(status=500), "HTTP 500 Internal Server Error"),
    "silence": (Answer(stalls=True, sent=0), "received no data for 0.3 s"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_answer_leaves_no_wrong_file_and_falls_back_to_the_mirror(kind, server, cache, monkeypatch):
    if kind == "silence":
        monkeypatch.setenv("KERAS_EFFNET_STALL_TIMEOUT", "0.3")
    answer, reason = BAD[kind]
    server.answers["bad.h5"] = [answer]
    bad, good = source(server, "bad.h5"), source(server)
    with pytest.raises(WeightsError, match=f"bad.h5: .*({reason})"):
        fetch([bad], "The weights")
    assert [name for name in files(cache) if ".part" not in name] == []
    assert fetch([bad, good], "The weights") == cache / "good.h5"
    assert files(cache) == ["good.h5"]


@pytest.mark.parametrize("ending", [{}, {"stalls": True}, {"dies": True}])
def test_interrupted_download_resumes(ending, server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_STALL_TIMEOUT", "0.5")
    monkeypatch.setattr(http_transfer, "sleep", lambda seconds: setattr(server, "alive", True))
    server.answers["good.h5"] = [Answer(sent=3000, **ending), Answer()]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert [request[1:] for request in server.requests] == [(None, None), ("bytes=3000-", '"1"')]
    assert files(cache) == ["good.h5"]


def test_download_resumes_in_a_later_call_after_the_server_died(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000, dies=True), Answer()]
    with pytest.raises(WeightsError, match="attempt 4, the last"):
        fetch([source(server)], "The weights")
    assert part(cache) == CONTENT[:3000]
    server.alive = True
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-"]
    assert files(cache) == ["good.h5"]


def test_retries_continue_while_there_is_progress(server, cache):
    server.answers["good.h5"] = [Answer(sent=1000)]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert len(server.requests) == 7 > http_transfer.ATTEMPTS


def test_short_range_response_is_followed_by_another_request(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000), Answer(most=2500)]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=5500-"]


def test_weak_etag_is_ignored_in_favour_of_the_date(server, cache):
    date = email.utils.formatdate(0, usegmt=True)
    headers = (("Last-Modified", date),)
    weak = Answer(tag='W/"1"', headers=headers, honours_if_range=False)
    server.answers["good.h5"] = [dataclasses.replace(weak, sent=3000), weak]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.requests[1][1:] == ("bytes=3000-", date)


OLD = Answer(OTHER, tag='"0"', sent=3000)
RESTARTS = {
    "the server ignores ranges": ([Answer(sent=3000), Answer(ranges=False)], [None, "bytes=3000-"]),
    "the file changed, by its tag": ([OLD, Answer()], [None, "bytes=3000-"]),
    "the file changed, the server ignores If-Range": (
        [OLD, Answer(honours_if_range=False)],
        [None, "bytes=3000-", None],
    ),
    "the file changed, by its size": (
        [Answer(OTHER + OTHER, tag="", sent=3000), Answer(tag="")],
        [None, "bytes=3000-", None],
    ),
    "the file shrank": ([Answer(OTHER + OTHER, tag="", sent=9000), Answer(tag="")], [None, "bytes=9000-", None]),
    "the file changed, by its hash alone": (
        [Answer(OTHER, tag="", sent=3000), Answer(tag="")],
        [None, "bytes=3000-", None],
    ),
}


@pytest.mark.parametrize("why", RESTARTS)
def test_changed_file_is_downloaded_from_scratch(why, server, cache):
    answers, ranges = RESTARTS[why]
    server.answers["good.h5"] = list(answers)
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == ranges
    assert files(cache) == ["good.h5"]


def test_resumed_download_with_wrong_digest_is_repeated_once(server, cache):
    server.answers["good.h5"] = [Answer(OTHER, sent=3000), Answer(OTHER)]
    with pytest.raises(WeightsError, match="does not have"):
        fetch([source(server)], "The weights")
    assert server.ranges == [None, "bytes=3000-", None]
    assert files(cache) == []


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_complete_partial_file_is_not_downloaded_again(server, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)  # the process ends before the file is renamed
        with pytest.raises(KeyboardInterrupt):
            fetch([source(server)], "The weights")
    assert part(cache) == CONTENT
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_login_page_does_not_delete_the_partial_file(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000), Answer(PAGE, ranges=False, headers=HTML), Answer()]
    with pytest.raises(WeightsError, match="login page or a proxy"):
        fetch([source(server)], "The weights")
    assert part(cache) == CONTENT[:3000]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=3000-"]


def test_waits_double_with_jitter(server, cache, waits, monkeypatch):
    monkeypatch.setattr(http_transfer, "FIRST_WAIT", 0.5)
    server.answers["good.h5"] = [Answer(status=500)]
    with pytest.raises(WeightsError, match="HTTP 500 Internal Server Error .attempt 4, the last"):
        fetch([source(server)], "The weights")
    assert [0.5 <= wait / 2**n / 0.5 <= 1 for n, wait in enumerate(waits)] == [True] * 3
    assert len({wait / 2**n for n, wait in enumerate(waits)}) == 3
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(status, server, cache, waits):
    date = email.utils.formatdate(time.time() + 40, usegmt=True)
    busy = [Answer(status=status, headers=(("Retry-After", value),)) for value in ("7", date)]
    server.answers["good.h5"] = [*busy, Answer()]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert waits[0] == 7
    assert 30 < waits[1] <= 40


@pytest.mark.parametrize("value", ["soon", "", "-3", "9" * 5000, "Mon, 99 Zzz 99999 99:99:99 GMT"])
def test_unreadable_retry_after_falls_back_to_back_off(value, server, cache, waits):
    server.answers["good.h5"] = [Answer(status=503, headers=(("Retry-After", value),)), Answer()]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert [0 < wait < 1 for wait in waits] == [True]


def test_retry_after_of_an_hour_falls_back_to_the_mirror(server, cache, waits):
    server.answers["busy.h5"] = [Answer(status=503, headers=(("Retry-After", "3600"),))]
    assert fetch([source(server, "busy.h5"), source(server)], "The weights") == cache / "good.h5"
    assert (len(server.requests), waits) == (2, [])


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_permanent_errors_are_not_retried(status, server, cache, waits):
    server.answers["good.h5"] = [Answer(status=status)]
    with pytest.raises(WeightsError, match=f"HTTP {status}"):
        fetch([source(server)], "The weights")
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("answer", [Answer(trickles=True), Answer(sent=3000, stalls=True)], ids=["trickle", "silence"])
def test_total_timeout_ends_a_download_and_the_next_call_resumes(answer, server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_TOTAL_TIMEOUT", "0.5")
    server.answers["good.h5"] = [answer, Answer()]
    start = time.monotonic()
    with pytest.raises(WeightsError, match="not finished after 0.5 s .KERAS_EFFNET_TOTAL_TIMEOUT."):
        fetch([source(server)], "The weights")
    assert time.monotonic() - start < 20  # the stall time-out is 30 s
    came = len(part(cache))
    monkeypatch.delenv("KERAS_EFFNET_TOTAL_TIMEOUT")
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={came}-"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
@pytest.mark.parametrize("name", ["KERAS_EFFNET_STALL_TIMEOUT", "KERAS_EFFNET_TOTAL_TIMEOUT"])
def test_invalid_timeout_is_rejected(name, text, server, cache, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(WeightsError, match=f"{name} is '{text}'. Expected seconds above 0"):
        fetch([source(server)], "The weights")


def test_ten_concurrent_processes_download_once(server, cache):
    server.gate.clear()
    with ThreadPoolExecutor(10) as pool:
        children = list(pool.map(start_child, [source(server)] * 10))
        for child in children:
            release(child)
        server.gate.set()
        outputs = list(pool.map(lambda child: child.communicate(timeout=60), children))
    assert outputs == [(f"{cache / 'good.h5'}\n", "")] * 10
    assert len(server.requests) == 1
    assert files(cache) == ["good.h5"]


def test_killed_process_releases_its_lock_and_the_next_one_resumes(server, cache):
    server.answers["good.h5"] = [Answer(sent=3500, stalls=True), Answer()]
    first, second = (start_child(source(server)) for _ in range(2))
    release(first)
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size == 3500 for path in cache.glob("*.part")):
        assert time.monotonic() < deadline, first.poll()
        server.over.wait(0.01)
    release(second)
    first.kill()
    first.communicate()
    assert second.communicate(timeout=30) == (f"{cache / 'good.h5'}\n", "")
    assert server.ranges == [None, "bytes=3500-"]
    assert files(cache) == ["good.h5"]


def test_waiting_for_a_lock_ends_with_the_total_timeout(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_TOTAL_TIMEOUT", "0.2")
    cache.mkdir()
    lock = filelock.FileLock(cache / "good.h5.lock", thread_local=False)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lock.acquire).result()
        with pytest.raises(WeightsError, match="another process still held .*good.h5.lock after 0"):
            fetch([source(server)], "The weights")
        pool.submit(lock.release).result()
    assert server.requests == []


def test_files_in_the_keras_cache_are_used(server, cache, tmp_path):
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    (folder / "good.h5").write_bytes(CONTENT)
    assert cached(source(server)) == fetch([source(server)], "The weights") == folder / "good.h5"
    assert server.requests == []


def test_damaged_file_in_the_cache_is_downloaded_again(server, cache):
    cache.mkdir()
    (cache / "good.h5").write_bytes(CONTENT[:-1])
    assert cached(source(server)) is None
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT


def test_unreadable_file_counts_as_missing(server, cache, monkeypatch):
    def deny(path, digest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    cache.mkdir()
    (cache / "good.h5").write_bytes(CONTENT)
    monkeypatch.setattr(weights_cache, "verify_digest", deny)
    assert cached(source(server)) is None


def test_error_names_a_file_system_without_locks(server, cache, monkeypatch):
    def refuse(lock, timeout):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(WeightsError, match="the file system does not support locks") as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, cache)
    assert server.requests == []


def test_without_a_network_a_helpful_error_comes_within_seconds(cache, waits, monkeypatch):
    monkeypatch.setattr(http_transfer, "FIRST_WAIT", 0.5)  # the default
    closed = Source("http://127.0.0.1:9/efficientnetb0.h5", "md5:0123")
    with pytest.raises(WeightsError) as error:
        fetch([closed], "The weights 'imagenet' of 'b0'")
    assert sum(waits) < 10
    for text in (closed.url, str(cache / "efficientnetb0.h5"), "md5:0123", "weights=None", "refused"):
        assert text in str(error.value)
    assert "HTTPConnection" not in str(error.value)


def test_without_a_network_every_mirror_is_tried_once_and_the_message_has_three_lines(cache, waits):
    closed = [Source(f"http://127.0.0.1:{port}/b0.h5", "md5:0123") for port in (9, 10)]
    unknown = Source("http://host.invalid/b0.h5", "md5:0123")
    with pytest.raises(OfflineError) as error:
        fetch([*closed, unknown], "The weights")
    assert waits == []
    first, _, _ = str(error.value).splitlines()
    assert first.startswith("The weights could not be fetched (127.0.0.1:9: ")
    assert first.endswith("lite0 works without a network.")


def test_after_a_silent_server_the_mirrors_get_less_time_to_connect(cache, waits, monkeypatch):
    connect = []

    def silent(*_, timeout, **__):
        connect.append(timeout[0])
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "get", silent)
    with pytest.raises(OfflineError, match="no answer within 3 s"):
        fetch([Source(f"http://{name}.invalid/b0.h5", "md5:0123") for name in "abc"], "The weights")
    assert connect == [3.0, 0.5, 0.5]
    assert waits == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/good.h5", "http://[/good.h5", "good.h5"])
def test_invalid_url_is_not_retried(url, cache, waits):
    with pytest.raises(WeightsError, match="good.h5"):
        fetch([Source(url, "md5:0123")], "The weights")
    assert waits == []


def test_offline_mode_sends_no_request_and_writes_nothing(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    with pytest.raises(WeightsError, match="KERAS_EFFNET_OFFLINE forbids the network"):
        fetch([source(server)], "The weights")
    assert server.requests == []
    assert not cache.exists()


def test_proxy_of_the_environment_is_used(server, cache, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    hidden = Source("http://weights.invalid/good.h5", source(server).digest)  # this name never resolves
    assert fetch([hidden], "The weights").read_bytes() == CONTENT
    assert server.requests == [("http://weights.invalid/good.h5", None, None)]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


def test_progress_bar_is_shown_on_standard_error_of_a_terminal(server, cache, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch([source(server)], "The weights")
    assert "good.h5" in terminal.getvalue()
    assert "7.0/7.0 kB" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stderr", [None, "capture"])
def test_no_progress_bar_without_a_terminal(stderr, server, cache, monkeypatch, capsys):
    if stderr is None:  # as under pythonw
        monkeypatch.setattr(sys, "stderr", None)
    fetch([source(server)], "The weights")
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A cache on a separate file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root on Linux")
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def assert_names_the_folder(error, folder):
    for text in (str(folder), "KERAS_EFFNET_HOME", "weights=None", "good.h5"):
        assert text in str(error.value)


@pytest.mark.parametrize("sized", [True, False])
def test_too_small_disk_is_reported_and_left_unchanged(sized, server, cache, disk):
    server.answers["good.h5"] = [Answer(OTHER * 20, sized=sized)]
    with pytest.raises(
        WeightsError,
        match="No space left on device" + (", 6.* free; the file has 140,000" if sized else "; the server"),
    ) as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, disk)
    assert files(disk) == []
    assert len(server.requests) == 1


def test_error_of_a_full_disk_includes_the_size_of_the_file(server, cache, monkeypatch):
    def fill(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(WeightsError, match="No space left on device; the file has 7,000 bytes") as error:
            fetch([source(server)], "The weights")
    assert_names_the_folder(error, cache)
    assert files(cache) == []
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT


def test_file_larger_than_the_free_space_is_not_downloaded(server, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10000, 9000, 1000))
    with pytest.raises(WeightsError, match="1,000 bytes are free; the file has 7,000 bytes"):
        fetch([source(server)], "The weights")
    assert files(cache) == []


@pytest.fixture
def read_only(tmp_path, monkeypatch, request) -> Iterator[Path]:
    """A read-only cache with one valid file."""
    if os.name != "posix":
        pytest.skip("folders cannot be made read-only on Windows")
    root = os.geteuid() == 0  # permissions do not apply to root
    folder = request.getfixturevalue("disk") if root else tmp_path / "read_only"
    folder.mkdir(exist_ok=True)
    (folder / "good.h5").write_bytes(CONTENT)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)] if root else ["chmod", "555", str(folder)], check=True)
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(folder))
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)] if root else ["chmod", "755", str(folder)], check=True)


def test_files_in_a_read_only_cache_are_used(server, cache, read_only):
    assert fetch([source(server, "other.h5"), source(server)], "The weights") == read_only / "good.h5"
    assert files(read_only) == ["good.h5"]
    assert server.requests == []


def test_error_names_the_read_only_cache(server, cache, read_only):
    missing = source(server, "not_good.h5")
    with pytest.raises(WeightsError, match="(Read-only file system|Permission denied)") as error:
        fetch([missing], "The weights")
    assert_names_the_folder(error, read_only)
    assert server.requests == []


def test_error_names_a_cache_that_is_not_a_folder(server, cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "file" / "models"))
    with pytest.raises(WeightsError, match="could not be written") as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, tmp_path / "file" / "models")


def test_unpublished_hash_is_pinned_after_a_check_with_one_warning(server, cache, caplog):
    seen = []
    new = source(server, digest="")
    with caplog.at_level(logging.WARNING, "keras_effnet"):
        path = fetch([new], "The weights", check=lambda path: seen.append(path.read_bytes()))
        assert fetch([new], "The weights") == cached(new) == path
    assert seen == [CONTENT]
    sha256 = SHA256.removeprefix("sha256:")
    assert (cache / "good.h5.sha256").read_text() == f"{sha256}  good.h5\n"
    (record,) = caplog.records
    assert sha256 in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(server.requests) == 1


def test_pinned_hash_is_enforced(server, cache):
    new = source(server, digest="")
    path = fetch([new], "The weights", check=lambda path: None)
    path.write_bytes(OTHER)
    assert cached(new) is None
    assert fetch([new], "The weights").read_bytes() == CONTENT  # the pinned hash suffices: no check is called
    path.unlink()
    server.answers["good.h5"] = [Answer(OTHER)]
    with pytest.raises(WeightsError, match="does not have sha256:.*pinned in .*good.h5.sha256; delete that"):
        fetch([new], "The weights", check=lambda path: None)
    assert files(cache) == ["good.h5.sha256"]


def refuse(path):
    raise WeightsError("2 variables are missing")


@pytest.mark.parametrize(("check", "reason"), [({"check": refuse}, "2 variables are missing"), ({}, "check=")])
def test_file_without_a_hash_that_fails_its_check_is_rejected(check, reason, server, cache):
    with pytest.raises(WeightsError, match=reason):
        fetch([source(server, digest="")], "The weights", **check)
    assert files(cache) == []


def test_without_a_hash_only_responses_with_the_same_validator_are_joined(server, cache):
    new = source(server, digest="")
    server.answers["good.h5"] = [Answer(sent=3000), Answer(tag="", ranges=False, sent=4000), Answer(tag="")]
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(OTHER, tag='"0"', sent=3000), Answer(honours_if_range=False)],
        [Answer(sent=3000), Answer(shift=100), Answer()],
    ],
    ids=["another tag", "another place"],
)
def test_without_a_hash_bytes_of_another_file_or_offset_are_not_joined(answers, server, cache):
    server.answers["good.h5"] = answers
    new = source(server, digest="")
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


def test_without_a_hash_partial_files_of_earlier_processes_are_not_used(server, cache):
    new = source(server, digest="")
    server.answers["good.h5"] = [Answer(sent=3000), Answer(status=404, ranges=False), Answer()]
    with pytest.raises(WeightsError, match="404"):
        fetch([new], "The weights", check=lambda path: None)
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


def test_file_put_into_the_cache_by_hand_is_checked_and_pinned(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    cache.mkdir()
    (cache / "good.h5").write_bytes(CONTENT)
    new = source(server, digest="")
    assert cached(new) is None
    with pytest.raises(WeightsError, match="good.h5: 2 variables are missing"):
        fetch([new], "The weights", check=refuse)
    assert fetch([new], "The weights", check=lambda path: None) == cached(new) == cache / "good.h5"
    assert files(cache) == ["good.h5", "good.h5.sha256"]


@pytest.mark.parametrize(
    ("digest", "matches"),
    [
        ("md5:" + hashlib.md5(CONTENT).hexdigest(), True),
        ("sha256-prefix:" + hashlib.sha256(CONTENT).hexdigest()[:8], True),
        ("sha256-prefix:00000000", False),
        ("sha256:" + hashlib.sha256(CONTENT).hexdigest()[:8], False),
    ],
)
def test_only_prefix_digests_match_a_prefix(tmp_path, digest, matches):
    (tmp_path / "file").write_bytes(CONTENT)
    assert digest_matches(tmp_path / "file", digest) is matches


def test_cache_folder_defaults_to_that_of_keras(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_EFFNET_HOME", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert weights_cache.cache_directories() == [Path.home() / ".keras" / "models"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert weights_cache.cache_directories() == [tmp_path / "models"]
