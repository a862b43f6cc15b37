"""The command as a process: it starts, drains on SIGTERM, and runs several workers on one port."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from http_server_run import command, png

from keras_effnet.http_server.run import Server
from keras_effnet.http_server.settings import Settings

if sys.platform == "win32":
    pytest.skip("Windows has no SIGTERM", allow_module_level=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_requests_in_progress(number: signal.Signals, exported: Path) -> None:
    photo = png()
    with command(exported) as (process, site), socket.create_connection(("127.0.0.1", site.port), timeout=30) as slow:
        head = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
        slow.sendall(head + photo[:20])
        while site.ask("/metrics").status != 200:
            pass
        process.send_signal(number)
        end = time.monotonic() + 10
        while time.monotonic() < end:  # until no new connection is accepted
            try:
                site.ask("/health")
            except OSError:
                break
            time.sleep(0.05)
        assert process.poll() is None
        slow.sendall(photo[20:])
        answer = b""
        while more := slow.recv(65536):
            answer += more
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["predictions"][0]["labels"][0]["label"] == "red"
        assert process.wait(10) == 0


def children(process: int) -> list[int]:
    """The worker processes of a server, without the process that tracks their shared memory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat, line = path.read_text(), (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == process and "spawn_main" in line:
            found.append(int(path.parent.name))
    return found


def test_workers_share_a_port_and_their_metrics_and_end_together(exported: Path) -> None:
    with command(exported, "--workers", 2) as (process, site):
        for _ in range(20):
            assert site.ask("/classify", png()).json["predictions"][0]["labels"][0]["label"] == "red"
        assert 'keras_effnet_photos_total{result="labelled"} 20' in site.ask("/metrics").body.decode().splitlines()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to find the workers in")
def test_a_worker_that_is_killed_is_replaced(exported: Path) -> None:
    with command(exported, "--workers", 2, "--name", "two") as (process, site):
        workers = children(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        end = time.monotonic() + 30
        while len(set(children(process.pid)) - {workers[0]}) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert site.ask("/v1/models/two").status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to find the workers in")
def test_workers_end_when_their_parent_is_killed(exported: Path) -> None:
    with command(exported, "--workers", 2) as (process, _):
        workers = children(process.pid)
        process.kill()
        process.wait()
        end = time.monotonic() + 20
        while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_port_in_use_is_reported(colours: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}: Address already in use. Expected"):
            Server(Settings(model=colours, port=port))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nosuch.keras"], "There is no model 'nosuch.keras'"),
        (["lite0", "--host", "0.0.0.0"], "--host is '0.0.0.0', which other machines can reach"),
        (["lite0", "--api-key", "short"], "--api-key is a text of 5 characters"),
        (["lite0", "--port", "70000"], "--port is 70000"),
        (["lite0", "--engine", "nope"], "Expected one of"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(arguments: list[str], fault: str) -> None:
    from typer.testing import CliRunner

    from keras_effnet import cli

    result = CliRunner().invoke(cli.app, ["serve", *arguments])
    assert result.exit_code == 1
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1
