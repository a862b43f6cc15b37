"""Time to import, to build, and to build with weights: this package and `keras.applications` in turn.

command   python benchmarks/starting.py [--model B0] [--rounds 9]
prints    medians in seconds and the ratio ours / theirs, measured alternately in one process
measured  2026-11, 2 cores, Keras 3.15.1, TensorFlow 2.21: building 0.9, building and loading 0.5, import 0.03 s
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def seconds(action: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Medians of both, and the median of the ratios of all rounds."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(a / b for a, b in pairs)


def import_seconds(module: str) -> float:
    """Seconds of `import module` in a new interpreter, minus the start of an empty one."""

    def run(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))  # noqa: S603

    return statistics.median(run(f"import {module}") - run("pass") for _ in range(9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="B0")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    import keras

    import keras_effnet

    name = f"EfficientNet{options.model}"
    ours, theirs = getattr(keras_effnet, name), getattr(keras.applications, name)
    rows = {"build": (lambda: ours(weights=None), lambda: theirs(weights=None))}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "values.weights.h5")
        theirs(weights=None).save_weights(path)
        rows["build and load"] = (lambda: ours(weights=path), lambda: theirs(weights=None).load_weights(path))
        print(f"{name:24}{'ours, s':>10}{'theirs, s':>11}{'ratio':>8}")
        for label, (mine, other) in rows.items():
            a, b, ratio = interleaved(mine, other, options.rounds)
            print(f"{label:24}{a:10.2f}{b:11.2f}{ratio:8.2f}")
    print(f"{'import keras_effnet':24}{import_seconds('keras_effnet'):10.3f}")


if __name__ == "__main__":
    main()
