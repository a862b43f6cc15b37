"""A short training run that `processes.py` starts: `python distributed_run.py OPTIONS`, with OPTIONS in JSON."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from short_runs import RECIPE, coloured, full_disk, history, run

from keras_effnet._keras import keras
from keras_effnet.training import tf_strategies
from keras_effnet.training.checkpointing import Saver
from keras_effnet.training.jax_devices import JaxDevices
from keras_effnet.training.tf_devices import TensorFlowDevices


def main(
    strategy: str, folder: str, arrays: str, *, recipe: dict[str, Any], full: int | None = None, **options: Any
) -> None:
    """Train, and write weights, metrics, report and the shapes of the batches."""
    prepare = {"mirrored": use_two_cpus, "tpu": stand_in_for_a_tpu, "tpu of one": stand_in_for_a_compiling_tpu}
    prepare.get(strategy, lambda: None)()
    if full is not None:
        fill_the_disk(full)
    shapes = note_shapes()
    print_steps()
    changed = replace(RECIPE, **recipe)
    trained = run(coloured(), Path(folder), changed, strategy=strategy.removesuffix(" of one"), **options)
    figures = {f"{row['epoch']} {name}": value for row in history(Path(folder)) for name, value in row.items()}
    weights = {f"weight {i}": np.asarray(value) for i, value in enumerate(trained.model.get_weights())}
    about = json.dumps({"report": trained.report, "keras": keras.__name__, "shapes": shapes})
    np.savez(arrays, about=about, **figures, **weights)


def use_two_cpus() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf_strategies.mirrored_strategy
    tf_strategies.mirrored_strategy = lambda: both(["CPU:0", "CPU:1"])


def print_steps() -> None:
    """Print a line to stdout after each step, when any checkpoint has been saved."""
    old = Saver.on_train_batch_end

    def printing(self: Saver, batch: int, logs: Any = None) -> None:
        old(self, batch, logs)
        print(f"epoch {self.progress.epoch + 1} step {self.progress.step}", flush=True)  # noqa: T201  # `kill_at` waits for it

    Saver.on_train_batch_end = printing


def fill_the_disk(epochs: int) -> None:
    """Make the disk full for the writing process after this many epochs."""
    old = Saver._save

    def save(self: Saver) -> None:
        with full_disk() if self.saving.writes and self.progress.epoch == epochs else nullcontext():
            old(self)

    Saver._save = save


def note_shapes() -> list[list[list[int | None]]]:
    """Record the static shapes of the batches that `fit` gets, for training and for validation."""
    noted: list[list[list[int | None]]] = []
    for devices in (TensorFlowDevices, JaxDevices):
        devices.batches = _noting(devices.batches, noted)
    return noted


def _noting(old: Any, noted: list[list[list[int | None]]]) -> Any:
    def batches(self: Any, make: Any) -> Any:
        made = old(self, make)
        specs = tf.nest.flatten(made.element_spec)
        noted.append([list(spec.shape) for spec in specs if isinstance(spec, tf.TensorSpec)])
        return made

    return batches


# --- stand-ins for a TPU ---


def stand_in_for_a_tpu() -> None:
    """Two replicas on two CPU devices; everything is real except the connection to a TPU."""
    use_two_cpus()

    class TPUStrategy(tf.distribute.MirroredStrategy):
        def __init__(self, resolver: Any) -> None:
            super().__init__(["CPU:0", "CPU:1"])

    _connect(TPUStrategy)


def stand_in_for_a_compiling_tpu() -> None:
    """One replica whose steps XLA compiles as a whole, as TPUStrategy does."""

    class TPUStrategy(tf.distribute.OneDeviceStrategy):
        def __init__(self, resolver: Any) -> None:
            super().__init__("CPU:0")

        def run(self, fn: Any, args: Any = (), kwargs: Any = None, options: Any = None) -> Any:
            compiled = tf.function(fn, jit_compile=True, autograph=False)
            return super().run(compiled, args, kwargs, options)

    _connect(TPUStrategy)


def _connect(strategy: Any) -> None:
    tf.distribute.cluster_resolver.TPUClusterResolver = lambda tpu: tpu
    tf.config.experimental_connect_to_cluster = lambda resolver: None
    tf.tpu.experimental.initialize_tpu_system = lambda resolver: None
    tf.distribute.TPUStrategy = strategy


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
