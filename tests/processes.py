"""Training runs in separate processes, with a given Keras and backend."""

import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from keras_effnet.training.cluster_env import KERAS, Cluster

SCRIPT = Path(__file__).parent / "distributed_run.py"
FLAVOURS = {
    "keras": {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"},
    "tf_keras": {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "1"},
    "jax": {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "0"},
}
Process = subprocess.Popen[str]


def need(flavour: str) -> None:
    if find_spec(flavour) is None:
        pytest.skip(f"{flavour} is not installed")


def start(flavour: str, options: dict[str, Any], environ: dict[str, str] | None = None) -> Process:
    """Start `distributed_run.py` with options, in no cluster except one in `environ`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TF_CONFIG", "SLURM_", KERAS))}
    environ = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **FLAVOURS[flavour], **(environ or {})}
    command = [sys.executable, str(SCRIPT), json.dumps(options)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def start_two(flavour: str, options: dict[str, Any], hosts: tuple[str, str]) -> list[Process]:
    """Start it twice, as a cluster on these addresses; the processes write 0.npz and 1.npz."""
    arrays = Path(options["folder"]).parent
    return [
        start(flavour, {**options, "strategy": "auto", "arrays": str(arrays / f"{i}.npz")}, _cluster(flavour, hosts, i))
        for i in range(2)
    ]


def _cluster(flavour: str, hosts: tuple[str, str], index: int) -> dict[str, str]:
    if flavour != "jax":
        return {"TF_CONFIG": Cluster(hosts, index).tf_config}
    return {f"{KERAS}JOB_ADDRESSES": hosts[0], f"{KERAS}NUM_PROCESSES": "2", f"{KERAS}PROCESS_ID": str(index)}


def addresses() -> tuple[str, str]:
    """Two free addresses on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        a, b = (f"127.0.0.1:{opened.getsockname()[1]}" for opened in (first, second))
        return a, b


def finish(processes: list[Process], timeout: float = 900) -> None:
    """Wait until all processes exit with 0; kill all if one does not."""
    try:
        for process in processes:
            output, _ = process.communicate(timeout=timeout)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in processes:
            with process:
                process.kill()


def kill_at(epoch: int, step: int, *victims: Process) -> None:
    """Kill these processes with SIGKILL once the first of them has finished a step."""
    output = ""
    for line in victims[0].stdout or ():
        output += line
        if line == f"epoch {epoch} step {step}\n":
            for victim in victims:
                victim.kill()
    for victim in victims:
        with victim:
            pass
        assert victim.returncode == -signal.SIGKILL, output[-3000:]
