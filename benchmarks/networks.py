"""The table of networks with milliseconds: `docs/networks_measured.md`.

command   python benchmarks/networks.py [NETWORK...] [--rounds 9] [--out docs/networks_measured.md]
prints    for each network and engine the median milliseconds for one photo, from pixels to scores, on all cores, and
          the size of the .tflite file; in each round every engine has two calls to warm up and five that are timed
needs     pip install ".[tf-cpu,litert,onnx,openvino]"
note      the weights are random: only the time is measured
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

DEFAULT = [f"lite{i}" for i in range(5)] + [f"b{i}" for i in range(5)] + [f"v2-b{i}" for i in range(4)]
ENGINES = {"litert": "x.tflite", "onnx": "x.onnx", "openvino": "x.xml"}
TITLES = {"litert": "LiteRT", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


@contextmanager
def exported(name: str) -> Iterator[dict[str, Path]]:
    """The network in every format whose engine is installed."""
    import keras

    from keras_effnet import EfficientNet, export

    keras.utils.clear_session()
    model = EfficientNet(name, weights=None)
    with tempfile.TemporaryDirectory() as folder:
        yield {engine: export(model, Path(folder, file)).path for engine, file in ENGINES.items()}


def milliseconds(paths: dict[str, Path], rounds: int) -> dict[str, float]:
    from keras_effnet import Predictor

    times: dict[str, list[float]] = {engine: [] for engine in paths}
    predictors = {engine: Predictor(path, engine, mode="latency") for engine, path in paths.items()}
    size = next(iter(predictors.values())).size
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype("float32")
    for predictor in predictors.values():
        predictor.scores(image), predictor.scores(image)
    for _ in range(rounds):
        for engine, predictor in predictors.items():
            time.sleep(0.05)  # threads of the engine before may still be waiting for work, at full speed
            predictor.scores(image), predictor.scores(image)
            for _ in range(5):
                start = time.perf_counter()
                predictor.scores(image)
                times[engine].append(1000 * (time.perf_counter() - start))
    for predictor in predictors.values():
        predictor.close()
    return {engine: statistics.median(values) for engine, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=DEFAULT, metavar="NETWORK")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="a Markdown file for the table")
    options = parser.parse_args()

    lines = ["| name | " + " | ".join(TITLES.values()) + " | MB |", "|---|" + "---:|" * (len(TITLES) + 1)]
    for name in options.networks:
        with exported(name) as paths:
            times = milliseconds(paths, options.rounds)
            size = paths["litert"].stat().st_size / 1e6
        lines.append(f"| `{name}` | " + " | ".join(f"{times[engine]:.1f}" for engine in ENGINES) + f" | {size:.0f} |")
        print(lines[-1], flush=True)
    if options.out:
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        options.out.write_text("\n".join([*lines, "", f"({machine}; random weights, {options.rounds} rounds.)", ""]))


if __name__ == "__main__":
    main()
