"""How long one image takes, and how many go through in a second: the Predictor, Keras, and peers with the same weights.

command   python benchmarks/inference.py [--model b0] [--size 224] [--rounds 15]
prints    medians of interleaved rounds in ms, the ratio to compiled `keras.applications` or, for what it lacks, to our
          own model compiled by Keras, and the fraction of the machine's measured matrix-product rate
needs     pip install "keras_effnet[tf-cpu,litert,onnx,openvino]"; with torch==2.13.0 and timm, timm too
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], object]


def seconds(run: Run, images: np.ndarray) -> float:
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start


def interleaved(runs: dict[str, Run], images: np.ndarray, rounds: int) -> dict[str, float]:
    """The median seconds of each; they take turns, so that what else the machine does hits all alike."""
    for run in runs.values():
        run(images), run(images)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, images))
    return {name: statistics.median(values) for name, values in times.items()}


def matrix_product_rate(size: int = 1024) -> float:
    """Multiply-adds a second of NumPy's matrix product on all cores, the best of ten."""
    a = np.ones((size, size), np.float32)
    return size**3 / min(seconds(lambda x: x @ x, a) for _ in range(10))


def exports(model: Any, folder: Path) -> dict[str, Path]:
    """Every format whose engine is installed."""
    from keras_effnet.engines import FORMATS
    from keras_effnet.exporting import export
    from keras_effnet.sidecar import suffix

    paths = {}
    for kind, engine in FORMATS.items():
        if engine.installed:
            paths[kind] = export(model, folder / f"{kind}{suffix(kind)}", kind).path
    return paths


def in_keras(model: Any, theirs: Any) -> dict[str, Run]:
    """Keras the usual ways: `predict`, and a compiled function."""
    import tensorflow as tf

    runs: dict[str, Run] = {}
    for name, network in {"keras.applications": theirs, "ours, unfused": model}.items():
        if network is not None:
            compiled = tf.function(lambda images, network=network: network(images, training=False))
            runs[f"{name}, compiled"] = lambda images, call=compiled: call(tf.constant(images)).numpy()
            runs[f"{name}, predict"] = lambda images, network=network: network.predict(images, verbose=0)
    return runs


def saved_models(theirs: Any, folder: Path, ours: Path) -> dict[str, Run]:
    """The plain SavedModel of `keras.applications`, and ours, which is fused."""
    import tensorflow as tf

    from keras_effnet.tf_saved_model import open_saved_model

    runs: dict[str, Run] = {"fused SavedModel": open_saved_model(ours)}
    if theirs is not None:
        theirs.export(folder / "plain", verbose=False)
        plain = tf.saved_model.load(str(folder / "plain"))
        runs["plain SavedModel"] = lambda images: plain.serve(tf.constant(images)).numpy()
    return runs


def timm_runs(model: Any, variant: str, folder: Path, size: int) -> dict[str, Run]:
    """timm with our weights, compiled; it takes normalised images, which is left out of its time."""
    if find_spec("timm") is None or find_spec("torch") is None:
        return {}
    import timm
    import torch
    from safetensors.torch import load_file

    import keras_effnet

    keras_effnet.save_weights(model, folder / "timm.safetensors", "timm")
    network = timm.create_model(f"tf_efficientnet_{variant}")
    network.load_state_dict(load_file(folder / "timm.safetensors"), strict=False)
    network = torch.compile(network.eval().to(memory_format=torch.channels_last))

    def run(images: np.ndarray) -> object:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
            return network(x).numpy()

    return {"timm, compiled": run}


def predictors(paths: dict[str, Path], mode: str) -> dict[str, Run]:
    from keras_effnet.predictor import Predictor

    return {
        f"Predictor, {kind}": Predictor(path, mode=mode).scores for kind, path in paths.items() if kind != "saved_model"
    }


def throughput(run: Run, *, workers: int) -> Run:
    """A batch, its images parted among as many threads as there are runs side by side."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    return lambda images: list(pool.map(lambda image: run(image[None]), images))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One process, one setting of oneDNN: all that is compared, at batch 1 and at a larger one."""
    import keras

    import keras_effnet
    from keras_effnet.classifier import Classifier
    from keras_effnet.complexity import complexity
    from keras_effnet.engines import cores
    from keras_effnet.imagenet import class_index
    from keras_effnet.variants import VARIANTS

    name = f"EfficientNet{options.model.capitalize()}"
    ours = getattr(keras_effnet, name)(weights=None, input_shape=(options.size, options.size, 3))
    theirs = getattr(keras.applications, name, None)
    if theirs is not None:
        theirs = theirs(weights=None, input_shape=(options.size, options.size, 3))
    result: dict[str, Any] = {"macs": complexity(VARIANTS[options.model], resolution=options.size).macs}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = exports(Classifier(ours, class_index(), options.size), folder)
        shared = {
            **in_keras(ours, theirs),
            **saved_models(theirs, folder, paths["saved_model"]),
            **timm_runs(ours, options.model, folder, options.size),
        }
        rng = np.random.default_rng(0)
        image, batch = (rng.uniform(0, 255, (n, options.size, options.size, 3)).astype("float32") for n in (1, 32))
        result["1"] = interleaved({**shared, **predictors(paths, "latency")}, image, options.rounds)
        wide = {kind: throughput(run, workers=cores()) for kind, run in predictors(paths, "throughput").items()}
        result["megabytes"] = memory(str(paths["litert"]))
        result["32"] = interleaved({**shared, **wide}, batch, max(3, options.rounds // 3))
    return result


def memory(path: str) -> float:
    """MB that a Predictor takes above the interpreter's own, at batch 1."""
    code = f"""
import re
from pathlib import Path
import numpy as np

def peak():  # getrusage would give the parent's
    return int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024

before = peak()
from keras_effnet.predictor import Predictor
predictor = Predictor({path!r}, mode="latency")
for _ in range(20):
    list(predictor([np.zeros((500, 400, 3), np.uint8)]))
print(peak() - before)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="b0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("\n" + json.dumps(measure(options)))
        return
    rate = matrix_product_rate()
    print(f"matrix product: {2 * rate / 1e9:.0f} GFLOP/s")
    for onednn in ("0", "1"):
        command = [sys.executable, __file__, "--child", "--model", options.model]
        command += ["--size", str(options.size), "--rounds", str(options.rounds)]
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        show(json.loads(done.stdout.splitlines()[-1]), onednn, rate)


def show(result: dict[str, Any], onednn: str, rate: float) -> None:
    print(f"\nPredictor, litert: {result['megabytes']:.0f} MB above the interpreter's own")
    for batch in ("1", "32"):
        print(f"\noneDNN={onednn}, batch {batch:16}{'ms':>10}{'ratio':>8}{'of product':>12}")
        rows = result[batch]
        base = rows.get("keras.applications, compiled", rows["ours, unfused, compiled"])
        for name, value in sorted(rows.items(), key=lambda row: row[1]):
            share = int(batch) * result["macs"] / value / rate
            print(f"{name:32}{1000 * value:10.1f}{base / value:8.2f}{share:12.0%}")


if __name__ == "__main__":
    main()
