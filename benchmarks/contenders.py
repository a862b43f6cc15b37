"""The functions that benchmarks/inference.py compares: every engine and other libraries, with the same weights."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import import_timm

Run = Callable[[np.ndarray], object]


def exports(model: Any, folder: Path, *, int8: bool) -> dict[str, Path]:
    """Export every format whose engine is installed; with `int8` also LiteRT in 8 bits."""
    from keras_effnet.images import sample
    from keras_effnet.serving.agreement import SAMPLES
    from keras_effnet.serving.engines import ENGINE_OF_FORMAT
    from keras_effnet.serving.exporting import export
    from keras_effnet.serving.model_record import suffix

    paths = {}
    for kind, engine in ENGINE_OF_FORMAT.items():
        if engine.installed:
            paths[kind] = export(model, folder / f"{kind}{suffix(kind)}", kind).path
    if int8:
        photos = [(name, sample(name)) for name in SAMPLES]
        # Quantized random weights rarely agree with the original; only the time matters here.
        options: dict[str, Any] = {"quantize": "int8", "representative": photos, "min_agreement": 0.0}
        paths["litert int8"] = export(model, folder / "int8.tflite", "litert", **options).path
    return paths


def same_weights(model: Any, theirs: Any) -> Any:
    """Copy our weights to a model of `keras.applications`, by layer name."""
    for layer in theirs.layers:
        if layer.weights and layer.name != "normalization":
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return theirs


def in_keras(model: Any, theirs: Any) -> dict[str, Run]:
    """Keras, by `predict` and by a compiled function."""
    import tensorflow as tf

    runs: dict[str, Run] = {}
    for name, network in {"keras.applications": theirs, "ours, unfused": model}.items():
        if network is not None:
            compiled = tf.function(lambda images, network=network: network(images, training=False))
            runs[f"{name}, compiled"] = lambda images, call=compiled: call(tf.constant(images)).numpy()
            runs[f"{name}, predict"] = lambda images, network=network: network.predict(images, verbose=0)
    return runs


def saved_models(theirs: Any, folder: Path, ours: Path) -> dict[str, Run]:
    """The plain SavedModel of `keras.applications`, and our fused one."""
    import tensorflow as tf

    from keras_effnet.serving.tf_saved_model import open_saved_model

    runs: dict[str, Run] = {"fused SavedModel": open_saved_model(ours)}
    if theirs is not None:
        theirs.export(folder / "plain", verbose=False)
        plain = tf.saved_model.load(str(folder / "plain"))
        runs["plain SavedModel"] = lambda images: plain.serve(tf.constant(images)).numpy()
    return runs


def timm_runs(timm: Any, model: Any, variant: str, folder: Path, size: int) -> dict[str, Run]:
    """timm with our weights, compiled. The time to normalise its input is not included."""
    if timm is None:
        return {}
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
    from keras_effnet.serving.predictor import Predictor

    return {
        f"Predictor, {kind}": Predictor(path, mode=mode).scores for kind, path in paths.items() if kind != "saved_model"
    }


def throughput(run: Run, *, workers: int) -> Run:
    """Process a batch image by image, in one thread per parallel run."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    return lambda images: list(pool.map(lambda image: run(image[None]), images))


def batched(paths: dict[str, Path]) -> dict[str, Run]:
    """The other engines without a Predictor: one batch at a time on all cores."""
    from keras_effnet.serving.engines import ENGINE_OF_FORMAT, start

    names = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
    return {name: start(paths[kind], ENGINE_OF_FORMAT[kind]) for kind, name in names.items() if kind in paths}


def memory(path: str) -> float:
    """Memory of a Predictor at batch 1, in MB above that of the interpreter."""
    code = f"""
import re
from pathlib import Path
import numpy as np

def peak():  # getrusage would include the parent process
    return int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024

before = peak()
from keras_effnet.serving.predictor import Predictor
predictor = Predictor({path!r}, mode="latency")
for _ in range(20):
    list(predictor([np.zeros((500, 400, 3), np.uint8)]))
print(peak() - before)
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)  # noqa: S603


def contenders(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The functions to measure at batch 1 and at a larger batch, the Predictor's memory and the multiply-adds."""
    timm = import_timm()
    import keras

    import keras_effnet
    from keras_effnet.complexity import complexity
    from keras_effnet.imagenet import class_index
    from keras_effnet.inference.classifier import Classifier
    from keras_effnet.serving.engines import cores
    from keras_effnet.variants import VARIANTS, find_variant

    name = find_variant(options.model).builder
    weights = "imagenet" if options.model in ("lite0", "lite1", "lite2") else None
    ours = getattr(keras_effnet, name)(weights=weights, input_shape=(options.size, options.size, 3))
    theirs = getattr(keras.applications, name, None)
    if theirs is not None:
        theirs = same_weights(ours, theirs(weights=None, input_shape=(options.size, options.size, 3)))
    paths = exports(Classifier(ours, class_index(), options.size), folder, int8=options.int8)
    shared = {
        **in_keras(ours, theirs),
        **saved_models(theirs, folder, paths["saved_model"]),
        **timm_runs(timm, ours, options.model, folder, options.size),
    }
    wide = {kind: throughput(run, workers=cores()) for kind, run in predictors(paths, "throughput").items()}
    return {
        "1": {**shared, **predictors(paths, "latency")},
        "many": {**shared, **batched(paths), **wide},
        "megabytes": memory(str(paths["litert"])),
        "macs": complexity(VARIANTS[options.model], resolution=options.size).macs,
    }
