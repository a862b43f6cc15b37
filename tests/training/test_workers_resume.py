"""Killed workers: the others exit with a clear error, and the restarted run ends like an uninterrupted one."""

import json
import logging
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from processes import Process, addresses, finish, kill_at, need, start_two
from short_runs import assert_same

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)

# Batches of 8 from the 48 training images.
EPOCHS, STEPS = 3, 6
# Seconds within which the remaining workers must exit; examples/distributed/README.md lists measured times.
PATIENCE = 180


def options(folder: Path, every: int | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {"epochs": EPOCHS, "sync_bn": True}
    return {"folder": str(folder), "recipe": recipe, "checkpoint_every": every}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an uninterrupted run with two workers, by flavour."""
    done: dict[str, Path] = {}

    def run(flavour: str) -> Path:
        if flavour not in done:
            folder = tmp_path_factory.mktemp(flavour) / "run"
            finish(start_two(flavour, options(folder, None), addresses()))
            done[flavour] = folder
        return done[flavour]

    return run


def ends(process: Process) -> tuple[str, float]:
    """The output of a process until it exits, and the seconds until then."""
    begun = time.monotonic()
    with process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return output, time.monotonic() - begun


@pytest.mark.parametrize(
    ("flavour", "victim", "every"), [("keras", 0, 2), ("keras", 1, None), ("tf_keras", 0, None), ("tf_keras", 1, 2)]
)
def test_after_one_worker_is_killed_the_other_exits_and_both_resume(
    whole: Any, tmp_path: Path, flavour: str, victim: int, every: int | None
) -> None:
    need(flavour)
    draw = random.Random(f"{flavour} {victim} {every}")
    hosts, wanted = addresses(), options(tmp_path / "run", every)
    workers = start_two(flavour, wanted, hosts)
    kill_at(draw.randint(1, EPOCHS), draw.randint(1, STEPS - 1), workers[victim])
    output, seconds = ends(workers[1 - victim])
    log.info("Without worker %d the other ended after %.1f s.", victim, seconds)
    assert workers[1 - victim].returncode == 1, output[-3000:]
    last = output.splitlines()[-1]
    assert last.startswith(f"ConnectionError: Worker {1 - victim} of 0 to 1 has lost another worker: "), output[-3000:]
    assert "run the same command on all of them again" in last
    finish(start_two(flavour, wanted, hosts))
    assert_same(tmp_path / "run", whole(flavour))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras", "jax"])
def test_a_full_disk_of_the_writing_worker_loses_only_one_checkpoint(whole: Any, tmp_path: Path, flavour: str) -> None:
    need(flavour)
    finish(start_two(flavour, options(tmp_path / "run", None) | {"full": 1}, addresses()))
    assert_same(tmp_path / "run", whole(flavour))
    notes = " ".join(json.loads((tmp_path / "run" / "report.json").read_text())["notes"])
    assert "The checkpoint after epoch 1 could not be written: [Errno 27] File too large" in notes
    assert "Checkpoints could be written again from epoch 2 on." in notes


@pytest.mark.parametrize("victim", [0, 1])
def test_after_one_jax_process_is_killed_jax_ends_the_other(tmp_path: Path, victim: int) -> None:
    need("jax")
    workers = start_two("jax", options(tmp_path / "run", None), addresses())
    kill_at(2, 2, workers[victim])
    output, seconds = ends(workers[1 - victim])
    log.info("Without process %d the other ended after %.1f s.", victim, seconds)
    # JAX's coordination service ends it from C++: at once if the service ran in the killed process, otherwise when the
    # heartbeat stops.
    assert workers[1 - victim].returncode == -signal.SIGABRT, output[-3000:]
    assert "another task died" in output
    if victim == 1:
        assert "ConnectionError: Worker 0 of 0 to 1 has lost another worker: " in output


@pytest.mark.parametrize(("flavour", "every"), [("keras", 1), ("tf_keras", None), ("jax", 1)])
def test_after_both_workers_are_killed_they_resume(whole: Any, tmp_path: Path, flavour: str, every: int | None) -> None:
    need(flavour)
    draw = random.Random(f"{flavour} {every}")
    hosts, wanted = addresses(), options(tmp_path / "run", every)
    workers = start_two(flavour, wanted, hosts)
    kill_at(draw.randint(1, EPOCHS), draw.randint(1, STEPS - 1), *workers)
    finish(start_two(flavour, wanted, hosts))
    assert_same(tmp_path / "run", whole(flavour))
