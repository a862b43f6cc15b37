"""Latency and throughput of the Predictor, Keras and other libraries with the same weights.

command   python benchmarks/inference.py [--model b0] [--size 224] [--batch 32] [--rounds 15] [--int8]
prints    medians of interleaved rounds in ms (at batch 1, medians of five calls in a row); the ratio to compiled
          `keras.applications` or, for variants that it lacks, to our own model compiled by Keras; the fraction of the
          measured matrix-product rate of the machine; then the targets of the Predictor and the SavedModel, where each
          contender uses the oneDNN setting that is faster for it
needs     pip install ".[peers]"; timm is skipped if torch or timm is missing
measured  2026-11, 2 cores, B0 at 224, --rounds 9: the Predictor's time at batch 1 is 0.29 of compiled
          keras.applications, 0.09 of its predict, 0.78 of ONNX Runtime, 0.73 of OpenVINO, 0.38 of compiled timm; in
          throughput 0.66 of ONNX Runtime alone (0.92 through a Predictor), 0.61 of OpenVINO (0.82), 0.32 of
          timm; the fused SavedModel's time is 0.70 of the plain one at batch 1 and 0.75 at batch 32; 87 MB. B4 at 380,
          --batch 8 --rounds 5, AVX-512: the Predictor's time is 0.46 of the plain SavedModel's at batch 1 and 0.32 in
          throughput (0.48 and 0.36 in another run, 0.60 at batch 1 in a third under load), and 0.60 and 0.73 of
          its time with oneDNN; with ONNX Runtime it is 0.38 and 0.23, or 0.48 and 0.52 with oneDNN; the fused
          SavedModel's time is 0.64 and 0.68 of the plain one's; 244 MB. Of LiteRT's 80 ms, convolutions take 44 at
          83 % of the matrix-product rate, swish takes 20 (it is not a single operation and passes through memory
          twice), and depthwise convolutions take 10.
          B0 there, --rounds 7, torch 2.14.1: 0.28 of compiled keras.applications, 0.08 of its predict, 0.99 of ONNX
          Runtime, 0.95 of OpenVINO, 0.33 of compiled timm; in throughput 0.96 of ONNX Runtime alone (1.23 through
          a Predictor), 0.94 of OpenVINO (1.07), 0.40 of timm; fused SavedModel 0.59 and 0.65; 87 MB.
          On another machine (only AVX2, 148 GFLOP/s), B0 at 224, --rounds 5: 0.29 of compiled keras.applications,
          0.08 of its predict, 0.84 of ONNX Runtime, 0.79 of OpenVINO, 0.38 of compiled timm; in throughput 0.66 of
          ONNX Runtime alone (0.95 through a Predictor), 0.66 of OpenVINO (0.90), 0.39 of timm; fused SavedModel
          0.66 and 0.70; 86 MB. Lite0 there, --int8 --rounds 3, with 27 of 49 convolutions in float32: int8 takes 0.81
          of the time of float32 at batch 1 and 0.98 in throughput
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Run, contenders


def steady_seconds(run: Run, images: np.ndarray, calls: int = 5) -> float:
    """The median time of some calls, after two calls that warm up threads and caches."""
    run(images), run(images)
    return statistics.median(seconds(run, images) for _ in range(calls))


def seconds(run: Run, images: np.ndarray) -> float:
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start


def matrix_product_rate(size: int = 1024) -> float:
    """Multiply-adds per second of NumPy's matrix product on all cores, the best of ten."""
    a = np.ones((size, size), np.float32)
    return size**3 / min(seconds(lambda x: x @ x, a) for _ in range(10))


def serve(options: argparse.Namespace) -> None:
    """Measure one round of all contenders, in seconds, for each line read from stdin."""
    with tempfile.TemporaryDirectory() as temporary:
        found = contenders(options, Path(temporary))
        rng = np.random.default_rng(0)
        shape = (options.size, options.size, 3)
        images = {"1": rng.uniform(0, 255, (1, *shape)), "many": rng.uniform(0, 255, (options.batch, *shape))}
        images = {batch: value.astype(np.float32) for batch, value in images.items()}
        for batch in images:
            for run in found[batch].values():
                run(images[batch]), run(images[batch])
        answer({"megabytes": found["megabytes"], "macs": found["macs"]})
        for line in sys.stdin:
            batch = line.strip()
            measure = steady_seconds if batch == "1" else seconds
            answer({name: measure(run, images[batch]) for name, run in found[batch].items()})


def answer(value: Any) -> None:
    print("\n@" + json.dumps(value), flush=True)


class Child:
    """A process with one setting of oneDNN, which TensorFlow reads once, at import."""

    def __init__(self, onednn: str) -> None:
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, *sys.argv, "--child"]
        self.process = subprocess.Popen(  # noqa: S603
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.facts = self.answer()

    def answer(self) -> Any:
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit("A measuring process ended early; see its output above.")

    def round(self, batch: str) -> dict[str, float]:
        self.process.stdin.write(batch + "\n")
        self.process.stdin.flush()
        return self.answer()


def medians(children: dict[str, Child], batch: str, rounds: int) -> dict[tuple[str, str], float]:
    """Medians by name and setting. All contenders take turns, so that other load affects them equally."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for onednn, child in children.items():
            for name, value in child.round(batch).items():
                times.setdefault((name, onednn), []).append(value)
    return {key: statistics.median(values) for key, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="b0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--int8", action="store_true", help="also measure int8, calibrated on photos from scikit-image")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options)
        return
    rate = matrix_product_rate()
    print(f"matrix product: {2 * rate / 1e9:.0f} GFLOP/s")
    children = {onednn: Child(onednn) for onednn in ("0", "1")}
    macs = children["0"].facts["macs"]
    best = {}
    for batch, count, rounds in (("1", 1, options.rounds), ("many", options.batch, max(3, options.rounds // 3))):
        rows = medians(children, batch, rounds)
        show(rows, count, macs / rate)
        best[batch] = {name: min(rows[name, "0"], rows[name, "1"]) for name, _ in rows}
        if ("plain SavedModel", "0") in rows:
            # The default of TensorFlow on a processor without VNNI.
            best[batch]["plain SavedModel, no oneDNN"] = rows["plain SavedModel", "0"]
    print_promises(best, children["0"].facts["megabytes"])


def base_of(rows: dict[Any, float], suffix: str = "compiled") -> str:
    """The contender that the others are compared with."""
    theirs = f"keras.applications, {suffix}"
    return theirs if any(theirs in key for key in rows) else f"ours, unfused, {suffix}"


def show(rows: dict[tuple[str, str], float], count: int, ideal: float) -> None:
    print(f"\nbatch {count:<28}{'oneDNN':>6}{'ms':>10}{'ratio':>8}{'of product':>12}")
    base = rows[base_of(rows), "0"]
    for (name, onednn), value in sorted(rows.items(), key=lambda row: row[1]):
        print(f"{name:34}{onednn:>6}{1000 * value:10.1f}{base / value:8.2f}{count * ideal / value:12.0%}")


def print_promises(best: dict[str, dict[str, float]], megabytes: float) -> None:
    """Print each target and the measured value, as the ratio of our time to theirs."""
    one, many = best["1"], best["many"]
    ours, wide = one["Predictor, litert"], many["Predictor, litert"]
    engines = ("Predictor, onnx", "ONNX Runtime", "Predictor, openvino", "OpenVINO", "timm, compiled")
    rows = [
        ("latency / compiled", ours / one[base_of(one)], "<= 0.33, goal 0.25"),
        ("latency / predict", ours / one[base_of(one, "predict")], "<= 0.11, goal 0.083"),
        *((f"latency / {name}", ours / one[name], "< 1") for name in engines if name in one),
        *((f"throughput time / {name}", wide / many[name], "<= 1, goal 0.87") for name in engines if name in many),
        *(
            (f"SavedModel, fused / plain, batch {size}", rows["fused SavedModel"] / rows["plain SavedModel"], "<= 0.77")
            for size, rows in best.items()
            if "plain SavedModel" in rows
        ),
        *(
            (f"time / {name}, batch {size}", mine / rows[name], wanted)
            for name, wanted in (("plain SavedModel, no oneDNN", "<= 0.5 (B4)"), ("plain SavedModel", ""))
            for size, mine, rows in (("1", ours, one), ("many", wide, many))
            if name in rows
        ),
        *(
            (
                f"int8 / float, batch {size}",
                rows["Predictor, litert int8"] / rows["Predictor, litert"],
                "<= 1, goal 0.83",
            )
            for size, rows in best.items()
            if "Predictor, litert int8" in rows
        ),
        ("MB of a Predictor above the interpreter", megabytes, "< 250"),
    ]
    print(f"\n{'target':50}{'measured':>10}  wanted")
    for name, value, wanted in rows:
        print(f"{name:50}{value:10.3f}  {wanted}")


if __name__ == "__main__":
    main()
