"""The processes of a run and the index of this one, from TF_CONFIG, SLURM's variables or Keras's own.

SLURM's variables are parsed here, because the libraries' own parsers get some clusters wrong:

- TensorFlow's SlurmClusterResolver sorts nodes by name (gpu10 before gpu8), while SLURM numbers tasks in the order of
  its node list, so workers are given each other's addresses. It rejects names with two ranges or a suffix, and without
  arguments it needs nvidia-smi.
- JAX cuts the first node's name at its first bracket (r[1-2]n[01-02] becomes r1), and does not check the task counts.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

STRATEGIES = ("auto", "jax-data-parallel", "mirrored", "multiworker", "one", "tpu")
# Below the ephemeral ports of an operating system. The job id selects one, so that jobs on one node do not collide.
FIRST_PORT, PORTS = 10_000, 20_000
KERAS = "KERAS_DISTRIBUTION_"


@dataclass(frozen=True)
class Cluster:
    """The processes of a run.

    Args:
        workers: "host:port" of each process; the first one writes the files.
        index: the index of this process.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def tf_config(self) -> str:
        """The value of the environment variable TF_CONFIG for this process.

        Example:
            >>> Cluster(("a:1", "b:1"), 1).tf_config
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
        """
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def find_cluster(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster in TF_CONFIG or, if that is not set, the SLURM step; None for a single process.

    Raises:
        ValueError: the variables are inconsistent.

    Example:
        >>> find_cluster({}) is None
        True
    """
    return cluster_from_tf_config(environ) if environ.get("TF_CONFIG") else cluster_from_slurm(environ)


def cluster_from_tf_config(environ: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster in TF_CONFIG; a "chief" counts as the first worker.

    Raises:
        ValueError: TF_CONFIG is not valid JSON, lists no workers, or its task is not one of them.

    Example:
        >>> cluster_from_tf_config({"TF_CONFIG": Cluster(("a:1", "b:1"), 1).tf_config}).index
        1
    """
    text = environ.get("TF_CONFIG", "")
    try:
        found = json.loads(text)
        jobs, task = found["cluster"], found["task"]
        chiefs = tuple(jobs.get("chief", ()))
        workers = (*chiefs, *jobs.get("worker", ()))
        index = int(task["index"]) + (0 if task["type"] == "chief" else len(chiefs))
        if task["type"] not in ("chief", "worker") or not 0 <= index < len(workers):
            raise ValueError(f"{task['type']} {task['index']} is not one of the {len(workers)} workers")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG is {text!r}, which cannot be used: {error!r}. Expected "
            f"{Cluster(('host0:port', 'host1:port'), 0).tf_config}, with a different index for each worker. "
            "Set it in the environment of every worker."
        ) from error
    return Cluster(workers, index)


def cluster_from_slurm(environ: Mapping[str, str] = os.environ, *, port: int | None = None) -> Cluster | None:
    """The tasks of a SLURM step; None outside `srun`, or if it started only one task.

    The tasks have to fill one node after the other, which is SLURM's default (`--distribution=block`).

    Args:
        environ: the environment variables.
        port: port of the first task on each node, the others follow; None for one that depends on the job id.

    Raises:
        ValueError: the variables are inconsistent.

    Example:
        >>> step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        >>> cluster_from_slurm({**step, "SLURM_STEP_NODELIST": "gpu[07-08]"}, port=9000)
        Cluster(workers=('gpu07:9000', 'gpu08:9000'), index=1)
    """
    # sbatch also sets most of these variables in the batch script, which is not a task of any step.
    total = int(environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if total < 2 or "SLURM_STEP_NODELIST" not in environ:
        return None
    if port is None:
        port = FIRST_PORT + int(environ.get("SLURM_JOB_ID") or 0) % PORTS
    hosts = expand_hosts(environ["SLURM_STEP_NODELIST"])
    counts = _tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if len(hosts) != len(counts) or sum(counts) != total:
        raise ValueError(
            f"SLURM's variables list {len(hosts)} nodes, {counts} tasks per node and {total} tasks in total. Expected "
            "these numbers to agree. Start the command with srun, or set TF_CONFIG yourself."
        )
    workers = [f"{host}:{port + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
    return Cluster(tuple(workers), int(environ["SLURM_PROCID"]))


def expand_hosts(text: str) -> list[str]:
    """The host names in a SLURM node list.

    Raises:
        ValueError: a bracket is not closed.

    Example:
        >>> expand_hosts("login,gpu[1-2,09]-a")
        ['login', 'gpu1-a', 'gpu2-a', 'gpu09-a']
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if ",".join(parts) != text:
        raise ValueError(
            f"SLURM_STEP_NODELIST is {text!r}. Expected a SLURM node list, such as gpu[1-3,07],login. Correct it, or "
            "set TF_CONFIG yourself."
        )
    return [host for part in parts for host in _expanded(part)]


def _expanded(pattern: str) -> list[str]:
    head, bracket, rest = pattern.partition("[")
    if not bracket:
        return [pattern]
    inside, _, tail = rest.partition("]")
    numbers: list[str] = []
    for item in inside.split(","):
        first, _, last = item.partition("-")
        numbers += [f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1)]
    return [f"{head}{number}{end}" for number in numbers for end in _expanded(tail)]


def _tasks_per_node(text: str) -> list[int]:
    """[2, 2, 2, 1] for "2(x3),1"."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def cluster_from_keras(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster of KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID; None if none is set.

    Example:
        >>> names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
        >>> cluster_from_keras(dict(zip(map(KERAS.__add__, names), ("a:1,b:1", "2", "1"), strict=True)))
        Cluster(workers=('a:1', 'b:1'), index=1)
    """
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    given = {name: environ[KERAS + name] for name in names if environ.get(KERAS + name)}
    if not given:
        return None
    addresses = [address for address in given.get("JOB_ADDRESSES", "").split(",") if address]
    count, index = (int(given.get(name, -1)) for name in ("NUM_PROCESSES", "PROCESS_ID"))
    if not addresses or not 0 <= index < count or len(addresses) not in (1, count):
        listed = ", ".join(f"{KERAS}{name}={value}" for name, value in given.items())
        raise ValueError(
            f"The environment has {listed}. Expected {KERAS}JOB_ADDRESSES (host:port of the first process, or of all), "
            f"{KERAS}NUM_PROCESSES, and {KERAS}PROCESS_ID (from 0). Set all three for every process."
        )
    # JAX only needs the first address, so the others may be left out.
    return Cluster(tuple(addresses if len(addresses) == count else addresses * count), index)
