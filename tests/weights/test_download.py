"""Weight files from the cache and from a server on the loopback address that misbehaves in every way it can."""

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

from keras_effnet.errors import WeightsError
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

# A process that asks for a file once it is told to: no Keras, no TensorFlow.
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
    """How the server treats a request: as it stands, well."""

    body: bytes = CONTENT
    status: int = 200
    tag: str = '"1"'
    headers: tuple[tuple[str, str], ...] = ()
    sized: bool = True
    ranges: bool = True
    heeds_tag: bool = True
    shift: int = 0  # bytes by which the answer to a range starts too early
    most: int = 1 << 30  # bytes in the answer to a range
    sent: int = 1 << 30  # bytes in one answer, then it hangs up
    stalls: bool = False  # rather than hang up, it falls silent
    dies: bool = False  # rather than hang up, it resets the connection and takes no other
    trickles: bool = False


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the answer whose turn it is."""

    def do_GET(self):
        server, asked, tag = self.server, self.headers.get("Range"), self.headers.get("If-Range")
        server.requests.append((self.path, asked, tag))
        answers = server.answers.get(self.path.rsplit("/", 1)[-1], [Answer()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        honoured = asked and answer.ranges and (tag in (None, answer.tag) or not answer.heeds_tag)
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
    """Answers each file name by its list of answers, the last one for ever."""

    request_queue_size = 20

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests, self.answers, self.alive = [], {}, True
        self.gate, self.over = threading.Event(), threading.Event()
        self.gate.set()

    def verify_request(self, request, client_address):
        return self.alive

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what is tested

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
    """The cache folder; whatever a test does, it must leave nothing there but the right file and what resumes it."""
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
    """The waits between attempts, which are not waited for."""
    seconds: list[float] = []
    monkeypatch.setattr(http_transfer, "sleep", seconds.append)
    return seconds


def source(server, name="good.h5", digest=SHA256):
    return Source(f"http://127.0.0.1:{server.server_address[1]}/{name}", digest)


def cached(wanted):
    found = find_cached([wanted])
    return found.path if found else None


def files(folder):
    """What is in a cache, without the empty files that serve as locks."""
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


def test_a_file_comes_once_and_then_from_the_cache(server, cache):
    good = source(server)
    assert cached(good) is None
    assert fetch([good], "The weights").read_bytes() == CONTENT
    assert cached(good) == fetch([good], "The weights") == cache / "good.h5"
    assert server.ranges == [None]
    assert files(cache) == ["good.h5"]


BAD = {
    "another file": (Answer(OTHER), "does not have sha256:"),
    "a web page": (Answer(PAGE, headers=HTML), "received a web page"),
    "a web page that says it is a file": (Answer(PAGE), "received a web page"),
    "half of the file": (Answer(ranges=False, sent=3500), "IncompleteRead|cut off after 3,500 of 7,000 bytes"),
    "half of the file, size unknown": (Answer(sized=False, sent=3500), "does not have sha256:"),
    "404": (Answer(status=404), "HTTP 404 Not Found"),
    "500": (Answer(status=500), "HTTP 500 Internal Server Error"),
    "silence": (Answer(stalls=True, sent=0), "received no data for 0.1 s"),
}


@pytest.mark.parametrize("kind", BAD)
def test_after_a_bad_answer_nothing_wrong_is_left_and_the_mirror_is_asked(kind, server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_STALL_TIMEOUT", "0.1")
    answer, reason = BAD[kind]
    server.answers["bad.h5"] = [answer]
    bad, good = source(server, "bad.h5"), source(server)
    with pytest.raises(WeightsError, match=f"bad.h5: .*({reason})"):
        fetch([bad], "The weights")
    assert [name for name in files(cache) if ".part" not in name] == []
    assert fetch([bad, good], "The weights") == cache / "good.h5"
    assert files(cache) == ["good.h5"]


@pytest.mark.parametrize("ending", [{}, {"stalls": True}, {"dies": True}])
def test_a_cut_off_download_goes_on_where_it_was_cut(ending, server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_STALL_TIMEOUT", "0.2")
    monkeypatch.setattr(http_transfer, "sleep", lambda seconds: setattr(server, "alive", True))
    server.answers["good.h5"] = [Answer(sent=3000, **ending), Answer()]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert [request[1:] for request in server.requests] == [(None, None), ("bytes=3000-", '"1"')]
    assert files(cache) == ["good.h5"]


def test_a_server_that_dies_half_way_and_comes_back_later_is_asked_for_the_rest(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000, dies=True), Answer()]
    with pytest.raises(WeightsError, match="attempt 4, the last"):
        fetch([source(server)], "The weights")
    assert part(cache) == CONTENT[:3000]
    server.alive = True
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-"]
    assert files(cache) == ["good.h5"]


def test_attempts_go_on_as_long_as_they_bring_something(server, cache):
    server.answers["good.h5"] = [Answer(sent=1000)]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert len(server.requests) == 7 > http_transfer.ATTEMPTS


def test_a_server_that_gives_less_than_the_rest_is_asked_for_more(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000), Answer(most=2500)]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=5500-"]


def test_a_weak_tag_is_no_proof_but_a_date_is(server, cache):
    date = email.utils.formatdate(0, usegmt=True)
    headers = (("Last-Modified", date),)
    weak = Answer(tag='W/"1"', headers=headers, heeds_tag=False)
    server.answers["good.h5"] = [dataclasses.replace(weak, sent=3000), weak]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.requests[1][1:] == ("bytes=3000-", date)


OLD = Answer(OTHER, tag='"0"', sent=3000)
RESTARTS = {
    "the server ignores ranges": ([Answer(sent=3000), Answer(ranges=False)], [None, "bytes=3000-"]),
    "the file changed, by its tag": ([OLD, Answer()], [None, "bytes=3000-"]),
    "the file changed, the server ignores If-Range": ([OLD, Answer(heeds_tag=False)], [None, "bytes=3000-", None]),
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
def test_bytes_that_belong_to_another_file_are_fetched_anew(why, server, cache):
    answers, ranges = RESTARTS[why]
    server.answers["good.h5"] = list(answers)
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == ranges
    assert files(cache) == ["good.h5"]


def test_a_part_that_turns_out_wrong_is_fetched_once_more_and_no_oftener(server, cache):
    server.answers["good.h5"] = [Answer(OTHER, sent=3000), Answer(OTHER)]
    with pytest.raises(WeightsError, match="does not have"):
        fetch([source(server)], "The weights")
    assert server.ranges == [None, "bytes=3000-", None]
    assert files(cache) == []


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_a_part_that_is_whole_is_not_asked_for_again(server, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)  # the process ends before the file is in its place
        with pytest.raises(KeyboardInterrupt):
            fetch([source(server)], "The weights")
    assert part(cache) == CONTENT
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None]


def test_a_login_page_in_between_does_not_cost_the_part(server, cache):
    server.answers["good.h5"] = [Answer(sent=3000), Answer(PAGE, ranges=False, headers=HTML), Answer()]
    with pytest.raises(WeightsError, match="login page or a proxy"):
        fetch([source(server)], "The weights")
    assert part(cache) == CONTENT[:3000]
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=3000-"]


def test_waits_double_and_are_drawn_from_their_upper_half(server, cache, waits, monkeypatch):
    monkeypatch.setattr(http_transfer, "FIRST_WAIT", 0.5)
    server.answers["good.h5"] = [Answer(status=500)]
    with pytest.raises(WeightsError, match="HTTP 500 Internal Server Error .attempt 4, the last"):
        fetch([source(server)], "The weights")
    assert [0.5 <= wait / 2**n / 0.5 <= 1 for n, wait in enumerate(waits)] == [True] * 3
    assert len({wait / 2**n for n, wait in enumerate(waits)}) == 3
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_in_seconds_and_as_a_date(status, server, cache, waits):
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


def test_a_server_that_wants_an_hour_is_left_for_the_mirror(server, cache, waits):
    server.answers["busy.h5"] = [Answer(status=503, headers=(("Retry-After", "3600"),))]
    assert fetch([source(server, "busy.h5"), source(server)], "The weights") == cache / "good.h5"
    assert (len(server.requests), waits) == (2, [])


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_what_does_not_heal_is_asked_for_once(status, server, cache, waits):
    server.answers["good.h5"] = [Answer(status=status)]
    with pytest.raises(WeightsError, match=f"HTTP {status}"):
        fetch([source(server)], "The weights")
    assert (len(server.requests), waits) == (1, [])


@pytest.mark.parametrize("answer", [Answer(trickles=True), Answer(sent=3000, stalls=True)], ids=["trickle", "silence"])
def test_the_total_time_out_ends_it_and_the_next_one_goes_on(answer, server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_TOTAL_TIMEOUT", "0.5")
    server.answers["good.h5"] = [answer, Answer()]
    start = time.monotonic()
    with pytest.raises(WeightsError, match="not finished after 0.5 s .KERAS_EFFNET_TOTAL_TIMEOUT."):
        fetch([source(server)], "The weights")
    assert time.monotonic() - start < 5
    came = len(part(cache))
    monkeypatch.delenv("KERAS_EFFNET_TOTAL_TIMEOUT")
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={came}-"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
@pytest.mark.parametrize("name", ["KERAS_EFFNET_STALL_TIMEOUT", "KERAS_EFFNET_TOTAL_TIMEOUT"])
def test_a_time_out_that_is_no_number_of_seconds_is_refused(name, text, server, cache, monkeypatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(WeightsError, match=f"{name} is '{text}'. Expected seconds above 0"):
        fetch([source(server)], "The weights")


def test_ten_processes_that_start_at_once_download_once(server, cache):
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


def test_a_process_that_is_killed_holds_nobody_up_and_the_next_one_goes_on(server, cache):
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


def test_a_lock_that_another_holds_is_waited_for_until_the_total_time_out(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_TOTAL_TIMEOUT", "0.2")
    cache.mkdir()
    lock = filelock.FileLock(cache / "good.h5.lock", thread_local=False)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lock.acquire).result()
        with pytest.raises(WeightsError, match="another process still held .*good.h5.lock after 0"):
            fetch([source(server)], "The weights")
        pool.submit(lock.release).result()
    assert server.requests == []


def test_what_keras_has_downloaded_is_used(server, cache, tmp_path):
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    (folder / "good.h5").write_bytes(CONTENT)
    assert cached(source(server)) == fetch([source(server)], "The weights") == folder / "good.h5"
    assert server.requests == []


def test_a_damaged_file_in_the_cache_is_fetched_again(server, cache):
    cache.mkdir()
    (cache / "good.h5").write_bytes(CONTENT[:-1])
    assert cached(source(server)) is None
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT


def test_a_file_that_cannot_be_read_is_as_good_as_absent(server, cache, monkeypatch):
    def deny(path, digest):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    cache.mkdir()
    (cache / "good.h5").write_bytes(CONTENT)
    monkeypatch.setattr(weights_cache, "verify_digest", deny)
    assert cached(source(server)) is None


def test_a_file_system_without_locks_is_named(server, cache, monkeypatch):
    def refuse(lock, timeout):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(WeightsError, match="the file system does not support locks") as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, cache)
    assert server.requests == []


def test_without_a_network_the_error_says_what_to_do_within_seconds(cache, monkeypatch):
    monkeypatch.setattr(http_transfer, "FIRST_WAIT", 0.5)  # as it is for users
    closed = Source("http://127.0.0.1:9/efficientnetb0.h5", "md5:0123")
    start = time.monotonic()
    with pytest.raises(WeightsError) as error:
        fetch([closed], "The weights 'imagenet' of 'b0'")
    assert time.monotonic() - start < 10
    for text in (closed.url, str(cache / "efficientnetb0.h5"), "md5:0123", "weights=None", "refused"):
        assert text in str(error.value)
    assert "HTTPConnection" not in str(error.value)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/good.h5", "http://[/good.h5", "good.h5"])
def test_an_address_that_is_none_is_not_tried_again(url, cache, waits):
    with pytest.raises(WeightsError, match="good.h5"):
        fetch([Source(url, "md5:0123")], "The weights")
    assert waits == []


def test_offline_mode_asks_nobody_and_writes_nothing(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    with pytest.raises(WeightsError, match="KERAS_EFFNET_OFFLINE forbids the network"):
        fetch([source(server)], "The weights")
    assert server.requests == []
    assert not cache.exists()


def test_the_proxy_of_the_environment_is_used(server, cache, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    hidden = Source("http://weights.invalid/good.h5", source(server).digest)  # a name that never resolves
    assert fetch([hidden], "The weights").read_bytes() == CONTENT
    assert server.requests == [("http://weights.invalid/good.h5", None, None)]


class Terminal(io.StringIO):
    """Looks like one to who asks."""

    def isatty(self):
        return True


def test_a_terminal_sees_a_progress_bar_on_standard_error_alone(server, cache, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch([source(server)], "The weights")
    assert "good.h5" in terminal.getvalue()
    assert "7.0/7.0 kB" in terminal.getvalue()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stderr", [None, "capture"])
def test_what_is_no_terminal_sees_nothing(stderr, server, cache, monkeypatch, capsys):
    if stderr is None:  # as under pythonw
        monkeypatch.setattr(sys, "stderr", None)
    fetch([source(server)], "The weights")
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file system of its own with room for 64 kB, as the cache."""
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
def test_a_disk_that_is_too_small_is_named_and_left_as_it_was(sized, server, cache, disk):
    server.answers["good.h5"] = [Answer(OTHER * 20, sized=sized)]
    with pytest.raises(
        WeightsError,
        match="No space left on device" + (", 6.* free; the file has 140,000" if sized else "; the server"),
    ) as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, disk)
    assert files(disk) == []
    assert len(server.requests) == 1


def test_a_disk_that_fills_up_half_way_says_how_much_is_needed(server, cache, monkeypatch):
    def fill(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(WeightsError, match="No space left on device; the file has 7,000 bytes") as error:
            fetch([source(server)], "The weights")
    assert_names_the_folder(error, cache)
    assert files(cache) == []
    assert fetch([source(server)], "The weights").read_bytes() == CONTENT


def test_a_file_that_does_not_fit_is_refused_before_it_comes(server, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10000, 9000, 1000))
    with pytest.raises(WeightsError, match="1,000 bytes are free; the file has 7,000 bytes"):
        fetch([source(server)], "The weights")
    assert files(cache) == []


@pytest.fixture
def read_only(tmp_path, monkeypatch, request) -> Iterator[Path]:
    """A cache that holds one right file and cannot be written to."""
    if os.name != "posix":
        pytest.skip("folders cannot be made read-only on Windows")
    root = os.geteuid() == 0  # whom permissions do not stop
    folder = request.getfixturevalue("disk") if root else tmp_path / "read_only"
    folder.mkdir(exist_ok=True)
    (folder / "good.h5").write_bytes(CONTENT)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)] if root else ["chmod", "555", str(folder)], check=True)
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(folder))
    yield folder
    subprocess.run(["mount", "-o", "remount,rw", str(folder)] if root else ["chmod", "755", str(folder)], check=True)


def test_a_read_only_cache_serves_what_it_holds(server, cache, read_only):
    assert fetch([source(server, "other.h5"), source(server)], "The weights") == read_only / "good.h5"
    assert files(read_only) == ["good.h5"]
    assert server.requests == []


def test_a_read_only_cache_is_named_when_something_is_missing(server, cache, read_only):
    missing = source(server, "not_good.h5")
    with pytest.raises(WeightsError, match="(Read-only file system|Permission denied)") as error:
        fetch([missing], "The weights")
    assert_names_the_folder(error, read_only)
    assert server.requests == []


def test_a_cache_that_is_no_folder_is_named(server, cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "file" / "models"))
    with pytest.raises(WeightsError, match="could not be written") as error:
        fetch([source(server)], "The weights")
    assert_names_the_folder(error, tmp_path / "file" / "models")


def test_an_unpublished_hash_is_pinned_after_a_check_and_said_in_one_line(server, cache, caplog):
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


def test_a_pinned_hash_is_enforced(server, cache):
    new = source(server, digest="")
    path = fetch([new], "The weights", check=lambda path: None)
    path.write_bytes(OTHER)
    assert cached(new) is None
    assert fetch([new], "The weights").read_bytes() == CONTENT  # the pin is proof enough: nothing is checked
    path.unlink()
    server.answers["good.h5"] = [Answer(OTHER)]
    with pytest.raises(WeightsError, match="does not have sha256:.*pinned in .*good.h5.sha256; delete that"):
        fetch([new], "The weights", check=lambda path: None)
    assert files(cache) == ["good.h5.sha256"]


def refuse(path):
    raise WeightsError("2 variables are missing")


@pytest.mark.parametrize(("check", "reason"), [({"check": refuse}, "2 variables are missing"), ({}, "check=")])
def test_a_file_without_a_hash_that_fails_its_check_is_refused(check, reason, server, cache):
    with pytest.raises(WeightsError, match=reason):
        fetch([source(server, digest="")], "The weights", **check)
    assert files(cache) == []


def test_without_a_hash_only_bytes_that_the_server_vouches_for_are_joined(server, cache):
    new = source(server, digest="")
    server.answers["good.h5"] = [Answer(sent=3000), Answer(tag="", ranges=False, sent=4000), Answer(tag="")]
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(OTHER, tag='"0"', sent=3000), Answer(heeds_tag=False)],
        [Answer(sent=3000), Answer(shift=100), Answer()],
    ],
    ids=["another tag", "another place"],
)
def test_without_a_hash_bytes_of_another_file_or_place_are_not_joined(answers, server, cache):
    server.answers["good.h5"] = answers
    new = source(server, digest="")
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


def test_without_a_hash_nothing_of_an_earlier_process_is_joined(server, cache):
    new = source(server, digest="")
    server.answers["good.h5"] = [Answer(sent=3000), Answer(status=404, ranges=False), Answer()]
    with pytest.raises(WeightsError, match="404"):
        fetch([new], "The weights", check=lambda path: None)
    assert fetch([new], "The weights", check=lambda path: None).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=3000-", None]


def test_a_file_put_into_the_cache_by_hand_is_checked_and_pinned(server, cache, monkeypatch):
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
def test_digests_are_whole_or_say_that_they_are_not(tmp_path, digest, matches):
    (tmp_path / "file").write_bytes(CONTENT)
    assert digest_matches(tmp_path / "file", digest) is matches


def test_the_cache_is_that_of_keras_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_EFFNET_HOME", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert weights_cache.cache_directories() == [Path.home() / ".keras" / "models"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert weights_cache.cache_directories() == [tmp_path / "models"]
