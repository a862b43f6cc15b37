"""A short training that a test starts in a process of its own: `python distributed_run.py STRATEGY FOLDER ARRAYS`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.recipes import RECIPES
from keras_effnet.variants import tiny

RECIPE = replace(
    RECIPES["imagenet"],
    epochs=2,
    batch_size=16,
    learning_rate=0.3,
    warmup_epochs=1,
    holdout=0.3,
    ema_decay=0.8,
    drop_connect_rate=0.0,
    dropout_rate=0.0,
    sync_bn=True,
)


def coloured() -> tuple[np.ndarray, np.ndarray]:
    """Noise of three colours, and which."""
    labels = np.arange(64) % 3
    images = np.random.default_rng(0).integers(0, 90, (64, 32, 32, 3)).astype("uint8")
    for target in range(3):
        images[labels == target, :, :, target] += 150
    return images, labels


def main(strategy: str, folder: str, arrays: str, changes: str = "{}") -> None:
    from keras_effnet import tf_distribute
    from keras_effnet.training import train

    if strategy == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        both = tf_distribute.mirrored_strategy
        tf_distribute.mirrored_strategy = lambda: both(["CPU:0", "CPU:1"])
    recipe = replace(RECIPE, **json.loads(changes))
    trained = train(coloured(), folder, model=tiny(), recipe=recipe, strategy=strategy, verbose=0)
    history = [json.loads(line) for line in (Path(folder) / "history.jsonl").read_text().splitlines()]
    figures = {f"{row['epoch']} {name}": value for row in history for name, value in row.items()}
    weights = {f"weight {i}": np.asarray(value) for i, value in enumerate(trained.model.get_weights())}
    np.savez(arrays, report=json.dumps(trained.report), keras=keras.__name__, **figures, **weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
