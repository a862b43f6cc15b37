"""What all tests share: fixtures, the number of processes, and a summary that counts and names the skips."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# A shell that starts the tests in the background has them ignore Ctrl-C, and their processes with them.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER_MEMORY = 4e9  # bytes that a worker is given
if WORKERS > 1:  # The workers share the cores. TensorFlow reads these variables when it starts its threads.
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(variable, str(max(1, (os.cpu_count() or 1) // WORKERS)))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With pytest-xdist, run folders of tests on all cores; `-n 0` keeps to one. Files named alone start faster in one.

    pytest-cov must know about the workers before this runs: with --cov, only -n on the command line starts them.
    """
    option = config.option
    free = getattr(option, "numprocesses", 0) is None and option.dist == "no" and not hasattr(config, "workerinput")
    serial = option.collectonly or option.usepdb or option.capture == "no" or getattr(option, "cov_source", None)
    if free and not serial and any(Path(argument).is_dir() for argument in config.args):
        option.numprocesses, option.dist = "auto", "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, int(memory // WORKER_MEMORY)))


@pytest.fixture(scope="session")
def randomise() -> Callable[..., None]:
    """Give a model seeded weights and moving statistics in which every variable matters."""

    def fill(model: Any, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        for layer in model.layers:
            values = []
            for weight in layer.weights:
                name, shape = weight.name, tuple(weight.shape)
                if "kernel" in name:
                    # The scale of a new network: larger kernels only make both sides noisier.
                    fan_out = (
                        shape[0] * shape[1] * (1 if "dwconv" in layer.name else shape[3]) if len(shape) == 4 else 1000
                    )
                    values.append(rng.normal(0, np.sqrt(2 / fan_out), shape))
                elif "gamma" in name:
                    values.append(rng.uniform(0.5, 1.0, shape))
                elif "variance" in name:
                    values.append(rng.uniform(0.5, 1.5, shape))
                else:
                    values.append(rng.normal(0, 0.1, shape))
            if values and type(layer).__name__ != "Normalization":
                layer.set_weights([value.astype("float32") for value in values])

    return fill


@pytest.fixture(scope="session")
def spread_scores(randomise: Callable[..., None]) -> Callable[..., Any]:
    """Give a network random weights by which its scores differ from image to image and from class to class.

    A new head gives all classes the same score, so tests that compare its scores would compare almost nothing.
    """
    from keras_effnet._keras import keras

    def fill(model: Any, images: np.ndarray, seed: int = 0) -> Any:
        randomise(model, seed)
        head = model.layers[-1]
        features = np.asarray(keras.Model(model.input, head.input).predict_on_batch(images), "float32")
        kernel, _ = head.get_weights()
        kernel *= 2 / (features @ kernel).std(axis=0).mean()
        head.set_weights([kernel, -features.mean(axis=0) @ kernel])
        scores = np.asarray(model.predict_on_batch(images), "float32")
        assert min(np.ptp(scores, axis=0).max(), np.ptp(scores, axis=1).max()) > 0.3
        return model

    return fill


@pytest.fixture(scope="session")
def arrays() -> Callable[[Any], dict[str, np.ndarray]]:
    """The weights of a model as "layer/variable" -> array, in names that both Kerases share."""

    def read(model: Any) -> dict[str, np.ndarray]:
        return {
            f"{layer.name}/{weight.name.split('/')[-1].removesuffix(':0').removeprefix('depthwise_')}": value
            for layer in model.layers
            for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
        }

    return read


@pytest.fixture(scope="session")
def run() -> Callable[[Any, np.ndarray], np.ndarray]:
    """Call a model on a batch and get NumPy's array, whatever the backend."""

    from keras_effnet._keras import LEGACY, keras  # here, as the process that starts the workers needs no Keras

    def call(model: Any, images: np.ndarray) -> np.ndarray:
        result = model(images)
        return result.numpy() if LEGACY else keras.ops.convert_to_numpy(result)

    return call


@pytest.fixture(scope="session")
def photo() -> Callable[[int], np.ndarray]:
    """A real photograph (scikit-image's cat) as a batch of one: float32 (1, size, size, 3), pixels 0..255."""

    def load(size: int) -> np.ndarray:
        skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
        image = Image.fromarray(skimage_data.chelsea()).resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image, "float32")[None]

    return load


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photographs that KERAS_EFFNET_TEST_DATA names; it holds flowers/train and flowers/val."""
    folder = os.environ.get("KERAS_EFFNET_TEST_DATA")
    if not folder:
        pytest.skip("KERAS_EFFNET_TEST_DATA names no folder of photographs")
    return Path(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in _skipped(terminalreporter))
    total = sum(reasons.values())
    terminalreporter.write_line(f"skips: {total}" + "".join(f"\n  {n} x {reason}" for reason, n in reasons.items()))


def _skipped(terminalreporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    return [report for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
