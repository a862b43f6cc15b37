"""Time and memory to load weights: this package and Keras in turn, from files written by Keras.

command   python benchmarks/loading.py [--models B0 B7] [--rounds 5]
prints    medians of both in seconds and their ratio; the peak memory of loading, relative to file and model
measured  2026-11, 2 cores of a shared machine (trust the ratios), Keras 3.15.1, TensorFlow 2.21, 3 rounds:
          load B0 0.12, B7 0.25; call to ready B0 0.59, B7 0.52; peak of B7 1.26 x (file + weights) above the imports
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from starting import interleaved


def publish(name: str, folder: Path) -> Path:
    """Let `keras.applications` write random weights, and put the file into our cache as a published set."""
    import keras

    from keras_effnet.normalization import ZERO_TO_ONE
    from keras_effnet.weights import published as sets
    from keras_effnet.weights.registry import Source, Weights

    path = folder / f"{name}.weights.h5"
    if not path.exists():
        getattr(keras.applications, f"EfficientNet{name}")(weights=None).save_weights(path)
    source = Source(f"http://127.0.0.1:9/{path.name}", "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())
    key = name.lower(), "imagenet"
    sets.WEIGHTS = {key: Weights(*key, None, None, ZERO_TO_ONE, (source,))}
    os.environ |= {"KERAS_EFFNET_HOME": str(folder), "KERAS_EFFNET_OFFLINE": "1"}
    return path


def compare(name: str, folder: Path, rounds: int) -> None:
    import keras

    import keras_effnet

    path = publish(name, folder)
    ours, theirs = (getattr(package, f"EfficientNet{name}") for package in (keras_effnet, keras.applications))
    mine, other = ours(weights="imagenet"), theirs(weights=None)
    rows: dict[str, tuple[Any, Any]] = {
        "load": (lambda: keras_effnet.load_weights(mine, "imagenet"), lambda: other.load_weights(path)),
        "call to ready": (lambda: ours(weights="imagenet"), lambda: theirs(weights=path)),
    }
    for label, pair in rows.items():
        a, b, ratio = interleaved(*pair, rounds)
        print(f"{name + ' ' + label:20}{a:10.2f}{b:11.2f}{ratio:8.2f}", flush=True)
    for label in ("flat", "first"):
        print_peak(name, folder, label)


def print_peak(name: str, folder: Path, kind: str) -> None:
    """Load in a process of its own: from the fast copy, or for the first time, which also writes the copy."""
    flat = folder / f"{name.lower()}-imagenet.safetensors"
    size = flat.stat().st_size
    if kind == "first":
        flat.unlink()
    command = [sys.executable, __file__, "--peak", str(folder), "--models", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    before, peak, after, weights = (int(number) / 1e6 for number in done.stdout.split()[-4:])
    size /= 1e6
    print(
        f"{name} peak, {kind:15}{peak - before:10.0f} MB above the imports; file {size:.0f} MB, weights "
        f"{weights:.0f} MB, model {after - before:.0f} MB: {(peak - before) / (size + weights):.2f} x "
        f"(file + weights), {(peak - before) / (size + after - before):.2f} x (file + model)",
        flush=True,
    )


def memory(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def peak(name: str, folder: Path) -> None:
    """Print the memory before loading, at its peak, and after, and the bytes of the weights."""
    publish(name, folder)
    import keras_effnet

    builder = getattr(keras_effnet, f"EfficientNet{name}")
    before = memory("VmRSS")
    model = builder(weights="imagenet")
    print(before, memory("VmHWM"), memory("VmRSS"), 4 * model.count_params())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["B0", "B7"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.models[0], options.peak)
        return
    print(f"{'':20}{'ours, s':>10}{'Keras, s':>11}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            compare(name, Path(folder), options.rounds)


if __name__ == "__main__":
    main()
