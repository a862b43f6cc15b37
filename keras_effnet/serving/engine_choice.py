"""Chooses the fastest of several engines for a network by measuring them once; the result is kept next to the exports.

A measurement counts for these files, which name the weights and the versions of the engines, for one processor and one
way of running: a photo on each core, or all cores on one photo.
"""

import hashlib
import json
import logging
import platform
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_effnet.artifacts import staged
from keras_effnet.serving.engines import ENGINE_OF_FORMAT, cores, start
from keras_effnet.serving.model_record import Export
from keras_effnet.weights.cache import cache_directories

log = logging.getLogger(__name__)
# Time for all engines together, without loading the models.
SECONDS = 0.8
MOST_ROUNDS = 15


@dataclass(frozen=True)
class Choice:
    """The export to run, and how long each engine takes for one image.

    Args:
        export: the export of the fastest engine.
        milliseconds: engine -> time of one image; empty if there was only one engine.
    """

    export: Export
    milliseconds: Mapping[str, float] = field(default_factory=dict)


def choose(exports: Sequence[Export], *, parallel: bool) -> Choice:
    """Choose between exports of one network for different engines.

    Args:
        exports: at least one.
        parallel: whether each core will work on its own image, instead of all cores on the same one.
    """
    if len(exports) == 1:
        return Choice(exports[0])
    by_engine = {ENGINE_OF_FORMAT[export.record.format].name: export for export in exports}
    key = [sorted(export.path.name for export in exports), _processor(), cores(), parallel]
    file = cache_directories()[0] / "exports" / f"fastest-{_short_digest(key)}.json"
    times = _read(file, key)
    if set(times) != set(by_engine):
        times = _measure(by_engine, parallel=parallel)
        with suppress(OSError), staged(file) as part:  # the cache may not be writable
            part.write_text(json.dumps({"key": key, "milliseconds": times}, indent=1) + "\n", "utf-8")
    best = min(times, key=times.__getitem__)
    log.info("engine %s: %s", best, ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items()))
    return Choice(by_engine[best], times)


def _read(file: Path, key: list[object]) -> dict[str, float]:
    """The measurement in a file, nothing if it is missing, damaged or of something else."""
    try:
        stored = json.loads(file.read_text("utf-8"))
        times = {str(name): float(ms) for name, ms in stored["milliseconds"].items()}
        return times if stored["key"] == key else {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _measure(exports: Mapping[str, Export], *, parallel: bool) -> dict[str, float]:
    """The best time of one image in ms for each engine, in interleaved rounds after one to warm up."""
    record = next(iter(exports.values())).record
    image = np.random.default_rng(0).uniform(0, 255, (1, record.size, record.size, 3)).astype(np.float32)
    threads = 1 if parallel else cores()
    runs = {
        name: start(export.path, ENGINE_OF_FORMAT[export.record.format], threads=threads)
        for name, export in exports.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for _ in range(MOST_ROUNDS):
        for name, run in runs.items():
            before = time.perf_counter()
            run(image)
            times[name].append(1e3 * (time.perf_counter() - before))
        if time.perf_counter() > end:
            break
    # The first round warms up; a network that takes so long that there is no second one is measured by it.
    return {name: round(min(each[1:] or each), 3) for name, each in times.items()}


def _short_digest(key: list[object]) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def _processor() -> str:
    """The name of the processor; Linux does not give it to Python's `platform`."""
    with suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8", "replace"), re.M)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
