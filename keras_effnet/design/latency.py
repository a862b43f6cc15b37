"""Latency of a network for one image, on all cores or on a single core (arXiv:1905.11946, Table 4)."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WARMUP = 3

_CHILD = "import sys; from keras_effnet.design.latency import _child; _child(*sys.argv[1:])"
_ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")


def latency(model: Any, *, size: int | None = None, runs: int = 20) -> float:
    """Measure the mean seconds of `predict_on_batch` with a batch of one, on the cores that the backend uses.

    Args:
        model: a Keras model of one image input, (batch, height, width, channels).
        size: side of the image in pixels; the model's own by default.
        runs: number of runs to average, after three warm-up runs.
    """
    return latencies({"model": model}, size=size, runs=runs)["model"]


def latencies(models: Mapping[str, Any], *, size: int | None = None, runs: int = 20) -> dict[str, float]:
    """Measure the mean seconds of each model. Models alternate, so that other load affects all of them equally."""
    images = {name: _image(model, size) for name, model in models.items()}
    seconds = dict.fromkeys(models, 0.0)
    for i in range(WARMUP + runs):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict_on_batch(images[name])
            seconds[name] += time.perf_counter() - start if i >= WARMUP else 0.0
    return {name: total / runs for name, total in seconds.items()}


def single_core_latencies(names: Sequence[str], *, size: int | None = None, runs: int = 20) -> dict[str, float]:
    """Measure mean seconds on a single core, in a new process because backends fix their threads when they start.

    Args:
        names: networks of this package ("b1") or of `keras.applications` ("ResNet152"); they get random weights.
        size: side of the images in pixels; each network's own by default.
        runs: number of runs to average.
    """
    command = [sys.executable, "-c", _CHILD, json.dumps(list(names)), json.dumps(size), json.dumps(runs)]
    environment = {**os.environ, **_ONE_THREAD, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise ValueError(
            f"The measurement of {', '.join(names)} ended with status {done.returncode}: {done.stderr.strip()[-500:]} "
            "Expected networks of this package or of keras.applications, and enough memory."
        )
    return json.loads(done.stdout.splitlines()[-1])


def _child(names: str, size: str, runs: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        # TensorFlow and XLA start one thread per allowed core.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    models = {name: _build(name) for name in json.loads(names)}
    sys.stdout.write("\n" + json.dumps(latencies(models, size=json.loads(size), runs=json.loads(runs))))


def _build(name: str) -> Any:
    from keras_effnet._keras import keras
    from keras_effnet.models import create
    from keras_effnet.variants import VARIANTS

    if name in VARIANTS:
        return create(VARIANTS[name])
    return getattr(keras.applications, name)(weights=None)


def _image(model: Any, size: int | None) -> Any:
    import numpy as np

    shape = [side or size or 224 for side in model.input_shape[1:]]
    return np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype("float32")


def machine() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine() or "unknown"
