"""Workers that are killed: the others end with what to do, and started again all of them end as if nothing had been."""

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

# Batches of 8 of the 48 images that are not held out.
EPOCHS, STEPS = 3, 6
# Seconds after which those that are left have to have ended: examples/distributed/README.md has what was measured.
PATIENCE = 180


def options(folder: Path, every: int | None) -> dict[str, Any]:
    recipe: dict[str, Any] = {"epochs": EPOCHS, "sync_bn": True}
    return {"folder": str(folder), "recipe": recipe, "checkpoint_every": every}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a training by two workers that was never cut off, by flavour."""
    done: dict[str, Path] = {}

    def run(flavour: str) -> Path:
        if flavour not in done:
            folder = tmp_path_factory.mktemp(flavour) / "run"
            finish(start_two(flavour, options(folder, None), addresses()))
            done[flavour] = folder
        return done[flavour]

    return run


def ends(process: Process) -> tuple[str, float]:
    """What a process says until it ends by itself, and the seconds that it takes."""
    begun = time.monotonic()
    with process:
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return said, time.monotonic() - begun


@pytest.mark.parametrize(
    ("flavour", "victim", "every"), [("keras", 0, 2), ("keras", 1, None), ("tf_keras", 0, None), ("tf_keras", 1, 2)]
)
def test_one_killed_the_other_says_what_to_do_and_both_go_on(
    whole: Any, tmp_path: Path, flavour: str, victim: int, every: int | None
) -> None:
    need(flavour)
    draw = random.Random(f"{flavour} {victim} {every}")
    hosts, wanted = addresses(), options(tmp_path / "run", every)
    workers = start_two(flavour, wanted, hosts)
    kill_at(draw.randint(1, EPOCHS), draw.randint(1, STEPS - 1), workers[victim])
    said, seconds = ends(workers[1 - victim])
    log.info("Without worker %d the other ended after %.1f s.", victim, seconds)
    assert workers[1 - victim].returncode == 1, said[-3000:]
    last = said.splitlines()[-1]
    assert last.startswith(f"ConnectionError: Worker {1 - victim} of 0 to 1 has lost another one: "), said[-3000:]
    assert "start the same command again on all of them" in last
    finish(start_two(flavour, wanted, hosts))
    assert_same(tmp_path / "run", whole(flavour))


@pytest.mark.parametrize("flavour", ["keras", "tf_keras", "jax"])
def test_a_full_disk_of_the_one_that_writes_costs_a_state(whole: Any, tmp_path: Path, flavour: str) -> None:
    need(flavour)
    finish(start_two(flavour, options(tmp_path / "run", None) | {"full": 1}, addresses()))
    assert_same(tmp_path / "run", whole(flavour))
    notes = " ".join(json.loads((tmp_path / "run" / "report.json").read_text())["notes"])
    assert "After epoch 1 the state could not be written: [Errno 27] File too large" in notes
    assert "From epoch 2 on, the state could be written again." in notes


@pytest.mark.parametrize("victim", [0, 1])
def test_of_two_processes_of_jax_the_other_is_ended(tmp_path: Path, victim: int) -> None:
    need("jax")
    workers = start_two("jax", options(tmp_path / "run", None), addresses())
    kill_at(2, 2, workers[victim])
    said, seconds = ends(workers[1 - victim])
    log.info("Without process %d the other ended after %.1f s.", victim, seconds)
    # JAX's own service ends it, in C++: at once where it ran in the other process, or when no heartbeat comes any more.
    assert workers[1 - victim].returncode == -signal.SIGABRT, said[-3000:]
    assert "another task died" in said
    if victim == 1:
        assert "ConnectionError: Worker 0 of 0 to 1 has lost another one: " in said


@pytest.mark.parametrize(("flavour", "every"), [("keras", 1), ("tf_keras", None), ("jax", 1)])
def test_both_killed_they_go_on(whole: Any, tmp_path: Path, flavour: str, every: int | None) -> None:
    need(flavour)
    draw = random.Random(f"{flavour} {every}")
    hosts, wanted = addresses(), options(tmp_path / "run", every)
    workers = start_two(flavour, wanted, hosts)
    kill_at(draw.randint(1, EPOCHS), draw.randint(1, STEPS - 1), *workers)
    finish(start_two(flavour, wanted, hosts))
    assert_same(tmp_path / "run", whole(flavour))
