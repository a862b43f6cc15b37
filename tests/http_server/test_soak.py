"""The server under full load with some hostile requests, and requests made from its OpenAPI document.

KERAS_EFFNET_SOAK is the duration of the load in seconds, by default 60.
"""

import io
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from http_server_run import Running, command, png
from PIL import Image

from keras_effnet.serving.predictor import Predictor

SECONDS = float(os.environ.get("KERAS_EFFNET_SOAK", "60"))
HOSTILE = 0.05
CLIENTS = 8
# Not 1: each thread's arena grows once to the largest photo that it has decoded.
FLAT = 1.05

pytestmark = pytest.mark.slow


def photographs() -> list[bytes]:
    """Sixteen different pictures of several sizes."""
    rng, files = np.random.default_rng(5), []
    for i in range(16):
        size = (320 + 40 * (i % 7), 240 + 50 * (i % 5))
        image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype="uint8")).resize(size)
        file = io.BytesIO()
        image.save(file, ("JPEG", "PNG", "WEBP", "JPEG")[i % 4])
        files.append(file.getvalue())
    return files


def vanish(site: Running, sent: bytes) -> Callable[[], str]:
    def ask() -> str:
        with socket.create_connection(("127.0.0.1", site.port), timeout=30) as connection:
            connection.sendall(sent)
        return "gone"

    return ask


def hostile(site: Running) -> list[tuple[str, Callable[[], str]]]:
    """Requests that must be refused or fail alone, each with its expected result."""
    predict, head = "/v1/models/colours:predict", b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
    requests: list[tuple[str, Callable[[], str]]] = [
        (status, lambda path=path, body=body, headers=headers: str(site.ask(path, body, **headers).status))
        for status, path, body, headers in (
            ("400", predict, b"[" * 50_000, {}),
            ("400", predict, {"instances": [{"b64": "%"}]}, {}),
            ("413", predict, b"[" + b"[]," * 2_500_000 + b"[]]", {}),
            ("413", "/classify", b"", {"Content_Length": str(10**12)}),
            ("415", "/classify", b"x", {"Content_Encoding": "gzip"}),
            ("421", "/classify", png(), {"Host": "evil.example"}),
            ("403", "/classify", png(), {"Origin": "https://evil.example"}),
            ("404", "/v1/models/other:predict", {"instances": []}, {}),
            ("200", "/classify", png()[:50], {}),  # the photo gets an error
            ("200", "/classify", png(size=(12_000, 9_000)), {}),  # has too many pixels
        )
    ]
    requests.append(("gone", vanish(site, head + b"Content-Length: 60000000\r\n\r\n" + bytes(300_000))))
    requests.append(("gone", vanish(site, b"\x16\x03\x01" + bytes(200))))
    return requests


def memory(process: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm")
def test_under_load_no_answer_is_lost_or_changed_and_memory_stays_flat(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = photographs()
    with Predictor(exported) as predictor:
        expected = [dict(row[1:] for row in one.labels) for one in predictor.predict(photos)]
    faults: Counter[str] = Counter()
    times: list[float] = []
    good, bad = [0] * CLIENTS, [0] * CLIENTS
    with command(exported) as (process, site):
        attacks, end = hostile(site), time.monotonic() + SECONDS

        def client(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < end:
                if rng.random() < HOSTILE:
                    wanted, attack = rng.choice(attacks)
                    try:
                        found = attack()
                    except OSError as error:  # the server may close before all is sent
                        found = wanted if wanted in ("413", "gone") else repr(error)
                    faults[f"{wanted} expected, {found}"] += found != wanted
                    bad[number] += 1
                    continue
                chosen = [rng.randrange(16) for _ in range(rng.choice((1, 1, 1, 4)))]
                start = time.perf_counter()
                answer = site.form("/classify", *[(f"{i}", photos[i]) for i in chosen])
                times.append(time.perf_counter() - start)
                if answer.status != 200:
                    faults[f"status {answer.status}"] += 1
                    continue
                good[number] += 1
                for i, entry in zip(chosen, answer.json["predictions"], strict=True):
                    scores = {row["label"]: row["score"] for row in entry["labels"]}
                    faults["another answer"] += scores != pytest.approx(expected[i], abs=1e-5)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            sizes.append(memory(process.pid))
        waiting = site.ask("/health").json["waiting"]
    third = len(sizes) // 3
    start, later = statistics.median(sizes[third : 2 * third]), statistics.median(sizes[2 * third :])
    p95 = statistics.quantiles(times, n=20)[-1]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{sum(good):,} good and {sum(bad):,} hostile requests in {SECONDS:.0f} s, 95th percentile "
            f"{1000 * p95:.1f} ms, memory {start / 1e6:.0f} MB, later {later / 1e6:.0f} MB\n"
        )
    assert not +faults
    assert waiting == 0
    assert min(good) > 20
    assert sum(bad) > 20
    assert later < FLAT * start


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_no_request_made_from_the_openapi_document_fails(site: Any, tmp_path: Path) -> None:
    # Not every file is a photo, so a request that fits the document may be refused.
    words = ["run", f"http://127.0.0.1:{site.port}/openapi.json", "--exclude-checks", "positive_data_acceptance"]
    options = [
        "--max-examples",
        "30",
        "--phases",
        "examples,coverage,fuzzing",
        "--seed",
        "1",
        "--request-timeout",
        "30",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words, *options], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Tested: 12" in done.stdout
