"""Writes files of the B0 of keras.applications with whichever Keras is imported: `python write_keras_files.py FOLDER`.

The lane old_files of .ci/full runs it with old versions; test_old_keras_files.py reads what it wrote.
"""

import importlib
import os
import sys
from pathlib import Path

import numpy as np

LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
keras = importlib.import_module("tf_keras" if LEGACY else "keras")


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    inner = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(64, 64, 3), pooling="avg")
    expected = {}
    for layer in inner.layers:
        if layer.weights and type(layer).__name__ != "Normalization":
            values = [rng.uniform(0.5, 1, tuple(weight.shape)).astype(np.float32) for weight in layer.weights]
            layer.set_weights(values)
            for weight, value in zip(layer.weights, values, strict=True):
                variable = weight.name.split("/")[-1].removesuffix(":0").removeprefix("depthwise_")
                expected[f"{layer.name}/{variable}"] = value
    np.savez(folder / "expected.npz", **expected)
    nested = keras.Sequential([keras.Input((64, 64, 3)), inner, keras.layers.Dense(3, name="mine")])
    for name, model in (("flat", inner), ("nested", nested)):
        model.compile("adam", "mse")
        model.save(str(folder / f"{name}.keras"))
        try:
            model.save(str(folder / f"{name}.h5"))
        except ValueError as error:  # Keras 3.0 gives equal names to the variables of a nested model
            sys.stderr.write(f"{name}.h5 cannot be written: {error}\n")
            (folder / f"{name}.h5").unlink()
        model.save_weights(str(folder / f"{name}.weights.h5"))
        if LEGACY:
            model.save_weights(str(folder / f"{name}_checkpoint"))
    if LEGACY:
        inner.save(str(folder / "flat_saved_model"), save_format="tf")
    elif hasattr(inner, "export"):
        inner.export(str(folder / "flat_saved_model"))
    sys.stderr.write(f"{keras.__version__}: {sorted(path.name for path in folder.iterdir())}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
