"""Which processes train together and which of them this is, as TF_CONFIG, SLURM or Keras's own variables say."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

STRATEGIES = ("auto", "jax-data-parallel", "mirrored", "multiworker", "one", "tpu")
# Below the ports that an operating system gives out by itself; jobs that share a machine keep apart.
FIRST_PORT, PORTS = 10_000, 20_000
KERAS = "KERAS_DISTRIBUTION_"


@dataclass(frozen=True)
class Cluster:
    """The processes of a training.

    Args:
        workers: "host:port" of each, the one that writes first.
        index: which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def tf_config(self) -> str:
        """What TensorFlow expects in the environment variable TF_CONFIG of this process.

        Example:
            >>> Cluster(("a:1", "b:1"), 1).tf_config
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
        """
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": task})


def find_cluster(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster that TF_CONFIG names or, without it, that SLURM started; None for a process on its own.

    Raises:
        ValueError: variables that contradict themselves.

    Example:
        >>> find_cluster({}) is None
        True
    """
    return cluster_from_tf_config(environ) if environ.get("TF_CONFIG") else cluster_from_slurm(environ)


def cluster_from_tf_config(environ: Mapping[str, str] = os.environ) -> Cluster:
    """The cluster of TF_CONFIG; a "chief" counts as the first worker.

    Raises:
        ValueError: it is no JSON, or names no workers or a task that is none of them.

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
            raise ValueError(f"{task['type']} {task['index']} is none of its {len(workers)} workers")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG is {text!r}, which cannot be used: {error!r}. Expected "
            f"{Cluster(('host0:port', 'host1:port'), 0).tf_config}, with the index counted up from worker to worker. "
            "Set it in the environment of every worker."
        ) from error
    return Cluster(workers, index)


def cluster_from_slurm(environ: Mapping[str, str] = os.environ, *, port: int | None = None) -> Cluster | None:
    """The cluster of the tasks of a SLURM step; None outside of `srun`, or if it started one task only.

    Tasks are taken to fill one node after the other, as SLURM does unless `--distribution` says otherwise.

    Args:
        environ: where to look.
        port: of the first task of each node, the next ones follow; None for one that depends on the job's number.

    Raises:
        ValueError: variables that contradict themselves.

    Example:
        >>> step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        >>> cluster_from_slurm({**step, "SLURM_STEP_NODELIST": "gpu[07-08]"}, port=9000)
        Cluster(workers=('gpu07:9000', 'gpu08:9000'), index=1)
    """
    # `sbatch` sets most variables in the script itself too, which is no task of a step.
    total = int(environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if total < 2 or "SLURM_STEP_NODELIST" not in environ:
        return None
    if port is None:
        port = FIRST_PORT + int(environ.get("SLURM_JOB_ID") or 0) % PORTS
    hosts = expand_hosts(environ["SLURM_STEP_NODELIST"])
    counts = _tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if len(hosts) != len(counts) or sum(counts) != total:
        raise ValueError(
            f"SLURM names {len(hosts)} nodes, {counts} tasks on them and {total} tasks in all. Expected as many of one "
            "as of the other. Start the command with srun, or set TF_CONFIG yourself."
        )
    workers = [f"{host}:{port + i}" for host, count in zip(hosts, counts, strict=True) for i in range(count)]
    return Cluster(tuple(workers), int(environ["SLURM_PROCID"]))


def expand_hosts(text: str) -> list[str]:
    """The names that a list of SLURM stands for.

    Raises:
        ValueError: brackets that do not close.

    Example:
        >>> expand_hosts("login,gpu[1-2,09]-a")
        ['login', 'gpu1-a', 'gpu2-a', 'gpu09-a']
    """
    parts = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if ",".join(parts) != text:
        raise ValueError(
            f"The list of nodes is {text!r}. Expected names as SLURM writes them: gpu[1-3,07],login. Correct "
            "SLURM_STEP_NODELIST, or set TF_CONFIG yourself."
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
    """Of "2(x3),1": [2, 2, 2, 1]."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def cluster_from_keras(environ: Mapping[str, str] = os.environ) -> Cluster | None:
    """The cluster of KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID; None if they name none.

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
            f"{KERAS}NUM_PROCESSES, and {KERAS}PROCESS_ID counted up from 0. Set all three for every process."
        )
    # JAX asks for the first address only; the others need not be known.
    return Cluster(tuple(addresses if len(addresses) == count else addresses * count), index)
