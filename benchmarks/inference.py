"""How long one image takes, and how many go through in a second: the Predictor, Keras, and peers with the same weights.

command   python benchmarks/inference.py [--model b0] [--size 224] [--batch 32] [--rounds 15] [--int8]
prints    medians of interleaved rounds in ms, at batch 1 of the median of five calls in a row; the ratio to compiled
          `keras.applications` or, for what it lacks, to our own model compiled by Keras; the fraction of the machine's
          measured matrix-product rate; then what is promised of the Predictor and the SavedModel, each contender under
          the setting of oneDNN that is better for it
needs     pip install "keras_effnet[tf-cpu,litert,onnx,openvino]"; with torch==2.13.0 and timm, timm too
measured  2026-11, 2 cores, B0 at 224, --rounds 9: the Predictor's time at batch 1 is 0.29 of compiled
          keras.applications, 0.09 of its predict, 0.78 of ONNX Runtime, 0.73 of OpenVINO, 0.38 of compiled timm; in
          throughput 0.66 of ONNX Runtime by itself (0.92 through a Predictor), 0.61 of OpenVINO (0.82), 0.32 of
          timm; the fused SavedModel's time is 0.70 of the plain one at batch 1 and 0.75 at batch 32; 87 MB
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


def steady_seconds(run: Run, images: np.ndarray, calls: int = 5) -> float:
    """The median of some calls, after two that wake its threads and bring its weights back into the caches."""
    run(images), run(images)
    return statistics.median(seconds(run, images) for _ in range(calls))


def seconds(run: Run, images: np.ndarray) -> float:
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start


def matrix_product_rate(size: int = 1024) -> float:
    """Multiply-adds a second of NumPy's matrix product on all cores, the best of ten."""
    a = np.ones((size, size), np.float32)
    return size**3 / min(seconds(lambda x: x @ x, a) for _ in range(10))


def exports(model: Any, folder: Path, *, int8: bool) -> dict[str, Path]:
    """Every format whose engine is installed; LiteRT's in 8 bits too, if that is wanted."""
    from keras_effnet.engines import FORMATS
    from keras_effnet.export_check import SAMPLES
    from keras_effnet.exporting import export
    from keras_effnet.images import sample
    from keras_effnet.sidecar import suffix

    paths = {}
    for kind, engine in FORMATS.items():
        if engine.installed:
            paths[kind] = export(model, folder / f"{kind}{suffix(kind)}", kind).path
    if int8:
        photos = [(name, sample(name)) for name in SAMPLES]
        # Random weights agree on little; it is the time that is measured here.
        options: dict[str, Any] = {"quantize": "int8", "representative": photos, "min_agreement": 0.0}
        paths["litert int8"] = export(model, folder / "int8.tflite", "litert", **options).path
    return paths


def same_weights(model: Any, theirs: Any) -> Any:
    """`keras.applications` with our weights, by the names of its layers."""
    for layer in theirs.layers:
        if layer.weights and layer.name != "normalization":
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return theirs


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
    import torch

    # Operators of torchvision's compiled part, which a CPU build of torch does not know and timm does not call.
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm
    from safetensors.torch import load_file

    import keras_effnet

    keras_effnet.save_weights(model, folder / "timm.safetensors", "timm")
    network = timm.create_model(f"tf_efficientnet_{variant}")
    network.load_state_dict(load_file(folder / "timm.safetensors"), strict=False)
    network = torch.compile(network.eval().to(memory_format=torch.channels_last))

    def run(images: np.ndarray, keep: Any = operators) -> object:
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


def batched(paths: dict[str, Path]) -> dict[str, Run]:
    """The other engines as they are used by themselves: a batch at a time, all cores on it."""
    from keras_effnet.engines import FORMATS, cores, start

    names = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
    return {
        name: start(paths[kind], FORMATS[kind], threads=cores(), copies=1)[0]
        for kind, name in names.items()
        if kind in paths
    }


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


def contenders(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What is measured at batch 1 and at the larger one, the Predictor's megabytes and the network's multiply-adds."""
    import keras

    import keras_effnet
    from keras_effnet.classifier import Classifier
    from keras_effnet.complexity import complexity
    from keras_effnet.engines import cores
    from keras_effnet.imagenet import class_index
    from keras_effnet.variants import VARIANTS

    name = f"EfficientNet{options.model.capitalize()}"
    weights = "imagenet" if options.model in ("lite0", "lite1", "lite2") else None
    ours = getattr(keras_effnet, name)(weights=weights, input_shape=(options.size, options.size, 3))
    theirs = getattr(keras.applications, name, None)
    if theirs is not None:
        theirs = same_weights(ours, theirs(weights=None, input_shape=(options.size, options.size, 3)))
    paths = exports(Classifier(ours, class_index(), options.size), folder, int8=options.int8)
    shared = {
        **in_keras(ours, theirs),
        **saved_models(theirs, folder, paths["saved_model"]),
        **timm_runs(ours, options.model, folder, options.size),
    }
    wide = {kind: throughput(run, workers=cores()) for kind, run in predictors(paths, "throughput").items()}
    return {
        "1": {**shared, **predictors(paths, "latency")},
        "many": {**shared, **batched(paths), **wide},
        "megabytes": memory(str(paths["litert"])),
        "macs": complexity(VARIANTS[options.model], resolution=options.size).macs,
    }


def serve(options: argparse.Namespace) -> None:
    """One setting of oneDNN: on every line that comes, one round of all that is compared, in seconds."""
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
    """A process with one setting of oneDNN, which is read once, when TensorFlow is imported."""

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
        raise SystemExit("A measuring process ended early; what it said is above.")

    def round(self, batch: str) -> dict[str, float]:
        self.process.stdin.write(batch + "\n")
        self.process.stdin.flush()
        return self.answer()


def medians(children: dict[str, Child], batch: str, rounds: int) -> dict[tuple[str, str], float]:
    """By name and setting. All take turns, so that what else the machine does hits all alike."""
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
    parser.add_argument("--int8", action="store_true", help="also in 8 bits, calibrated on scikit-image's photographs")
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
    print_promises(best, children["0"].facts["megabytes"])


def base_of(rows: dict[Any, float], suffix: str = "compiled") -> str:
    """What the others are compared with."""
    theirs = f"keras.applications, {suffix}"
    return theirs if any(theirs in key for key in rows) else f"ours, unfused, {suffix}"


def show(rows: dict[tuple[str, str], float], count: int, ideal: float) -> None:
    print(f"\nbatch {count:<28}{'oneDNN':>6}{'ms':>10}{'ratio':>8}{'of product':>12}")
    base = rows[base_of(rows), "0"]
    for (name, onednn), value in sorted(rows.items(), key=lambda row: row[1]):
        print(f"{name:34}{onednn:>6}{1000 * value:10.1f}{base / value:8.2f}{count * ideal / value:12.0%}")


def print_promises(best: dict[str, dict[str, float]], megabytes: float) -> None:
    """What is promised, what was measured, all as times of ours over theirs."""
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
            (f"latency / SavedModel, plain, batch {size}", mine / rows["plain SavedModel"], "<= 0.5 (B4)")
            for size, mine, rows in (("1", ours, one), ("many", wide, many))
            if "plain SavedModel" in rows
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
        ("MB of a Predictor above the interpreter's own", megabytes, "< 250"),
    ]
    print(f"\n{'promise':50}{'measured':>10}  wanted")
    for name, value, wanted in rows:
        print(f"{name:50}{value:10.3f}  {wanted}")


if __name__ == "__main__":
    main()
