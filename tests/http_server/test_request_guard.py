"""Requests that are refused: from other sites, without the key, too large, too slow, hostile."""

import base64
import gzip
import json
import socket
import struct
import time
import zlib
from typing import Any

import pytest
from http_server_run import png, running

from keras_effnet.http_server import run as run_module
from keras_effnet.http_server.settings import Limits, Settings

KEY = "0123456789abcdef"


def raw(site: Any, *pieces: bytes, timeout: float = 20) -> bytes:
    """Send bytes as they are, and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=timeout) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:  # the server has answered and closed the connection while we were sending
            pass
        try:
            while more := connection.recv(65536):
                answer += more
        except ConnectionError:
            pass
        return answer


# --- Who may ask ---


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", "", "[::1", "localhost@evil"]
)
def test_a_foreign_host_is_refused_on_loopback(host: str, site: Any) -> None:
    for path, body in (("/", None), ("/classify", png()), ("/metrics", None)):
        assert site.ask(path, body, Host=host).status == 421


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8501", "127.0.0.1", "127.1.2.3:80", "[::1]:8501", "LOCALHOST"]
)
def test_names_of_this_machine_are_accepted(host: str, site: Any) -> None:
    assert site.ask("/health", Host=host).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
def test_a_foreign_origin_is_refused(origin: str, site: Any) -> None:
    answer = site.ask("/classify", png(), Origin=origin)
    assert answer.status == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_origin_of_the_page_is_accepted(site: Any) -> None:
    host = f"127.0.0.1:{site.port}"
    assert site.ask("/classify", png(), Origin=f"http://{host}").status == 200


def test_another_site_can_link_to_the_page_but_load_nothing(site: Any) -> None:
    assert site.ask("/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate").status == 200
    assert site.ask("/health", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors").status == 403


def test_every_answer_forbids_sniffing_and_caching(site: Any) -> None:
    for path in ("/", "/health", "/nowhere"):
        headers = site.ask(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Server" not in headers


@pytest.fixture(scope="module")
def locked(colours: str) -> Any:
    with running(Settings(model=colours, engine="keras", port=0, host="0.0.0.0", api_key=KEY)) as site:
        yield site


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X_API_Key": KEY}])
def test_the_key_opens_every_route(headers: dict[str, str], locked: Any) -> None:
    assert locked.ask("/classify", png(), **headers).status == 200
    # Behind a proxy, any name may lead here.
    assert locked.ask("/model", Host="photos.example", Origin="https://photos.example", **headers).status == 200


@pytest.mark.parametrize("key", ["", KEY[:-1], f"{KEY}x", KEY.upper(), "é" * 16])
def test_without_the_key_only_page_and_health_are_open(key: str, locked: Any) -> None:
    for path in ("/classify", "/explain", "/v1/models/colours:predict"):
        answer = locked.ask(path, png(), Authorization=f"Bearer {key}".encode("latin-1").decode("latin-1"))
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/model", "/metrics", "/openapi.json", "/v1/models/colours"):
        assert locked.ask(path, X_API_Key=key).status == 401
    assert [locked.ask(path).status for path in ("/", "/health")] == [200, 200]
    assert locked.ask("/openapi.json", X_API_Key=KEY).json["security"] == [{"key": []}]


# --- How much ---


@pytest.fixture(scope="module")
def small(colours: str) -> Any:
    """A server with small limits."""
    limits = Limits(body_bytes=100_000, pending_bytes=150_000, photos=3, pixels=10_000, values=20_000, seconds=1)
    with running(Settings(model=colours, engine="keras", port=0, limits=limits)) as site:
        yield site


def test_a_large_body_is_refused_by_its_length_before_it_is_sent(small: Any) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n"
    answer = raw(small, head)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answer.lower()
    assert raw(small, head.replace(b"100001", b"9" * 30)).startswith(b"HTTP/1.1 4")
    assert raw(small, head.replace(b"100001", b"-5")).startswith(b"HTTP/1.1 400")


def test_a_large_body_without_a_length_is_refused_when_it_exceeds_the_limit(small: Any) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    assert raw(small, head, *[chunk] * 20).startswith(b"HTTP/1.1 413")
    assert raw(small, head, chunk, b"0\r\n\r\n", b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").startswith(
        b"HTTP/1.1 200"
    )


def test_a_compressed_body_is_refused(small: Any) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert small.ask("/classify", bomb, Content_Encoding="gzip").status == 415


def test_the_bodies_of_all_requests_have_a_limit(small: Any) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port)) as waiting:
        waiting.sendall(head)
        time.sleep(0.3)  # until it has arrived
        answer = raw(small, head)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in answer.lower()
    time.sleep(0.2)
    assert small.ask("/classify", png()).status == 200


def test_too_many_photos_are_refused(small: Any) -> None:
    assert small.form("/classify", *[("a", png())] * 3).status == 200
    assert small.form("/classify", *[("a", png())] * 4).status == 400
    photo = {"b64": base64.b64encode(png()).decode()}
    answer = small.ask("/v1/models/colours:predict", {"instances": [photo] * 4})
    assert (answer.status, "at most 3" in answer.json["error"]) == (413, True)


def test_a_json_bomb_is_refused_before_it_is_parsed(small: Any) -> None:
    answer = small.ask("/v1/models/colours:predict", b'{"instances": [' + b"[]," * 15_000 + b"[]]}")
    assert answer.status == 413
    assert "20,000 values" in answer.json["error"]


def test_large_headers_are_refused(small: Any) -> None:
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Bomb: " + b"x" * 70_000 + b"\r\n\r\n"
    assert raw(small, head).startswith(b"HTTP/1.1 431")
    many = b"".join(b"X-%d: x\r\n" % i for i in range(10_000))
    assert raw(small, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n").startswith(b"HTTP/1.1 4")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(side: int) -> bytes:
    """A PNG that declares so many pixels and has no data."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [101, 9_000, 60_000, 2_000_000_000])
def test_an_image_bomb_is_refused_before_it_is_decoded(side: int, small: Any) -> None:
    start = time.perf_counter()
    first, second = small.form("/classify", ("bomb.png", huge_png(side)), ("good.png", png())).json["predictions"]
    assert time.perf_counter() - start < 1
    assert ("too large" in first["error"] or "damaged" in first["error"], "labels" in second) == (True, True)
    assert small.ask("/classify", png(size=(100, 100))).json["predictions"][0].get("labels")


# --- How long ---


def test_a_body_that_arrives_too_slowly_is_given_up(small: Any) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n"
    assert raw(small, head, b"x").startswith(b"HTTP/1.1 408")


def test_a_connection_without_a_request_is_closed(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "HEADER_SECONDS", 0.2)
    assert raw(small) == b""
    assert raw(small, b"GET / HTTP/1.1\r\nHost: loc") == b""


def test_hostile_requests_leave_no_bytes_reserved(small: Any) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", small.port)) as gone:
            gone.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\nx")
    end = time.monotonic() + 5
    while (status := small.ask("/classify", png()).status) == 503 and time.monotonic() < end:
        time.sleep(0.05)
    assert status == 200


# --- Settings ---


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"host": "0.0.0.0"}, "host is '0.0.0.0', which other machines can reach"),
        ({"host": "photos.example"}, "Expected an API key"),
        ({"host": "0.0.0.0", "api_key": "short"}, "Expected at least 16 printable"),
        ({"api_key": "x" * 15 + "é"}, "Expected at least 16 printable"),
        ({"port": 65536}, "port is 65536. Expected a whole number"),
        ({"workers": 0}, "workers is 0"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"name": "../x:predict"}, "Expected 1 to 100 letters"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Settings(model="lite0", **wrong)


@pytest.mark.parametrize("wrong", [{"photos": 0}, {"seconds": 0}, {"pixels": 1.5}, {"seconds": float("nan")}])
def test_wrong_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Expected a"):
        Limits(**wrong)


def test_json_of_errors_has_the_form_of_tensorflow_serving(site: Any) -> None:
    for path, body in (("/nowhere", None), ("/v1/models/x", None), ("/classify", None), ("/explain", b"")):
        assert set(json.loads(site.ask(path, body).body)) == {"error"}
