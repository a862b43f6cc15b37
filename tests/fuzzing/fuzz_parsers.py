"""Coverage-guided fuzzing of our own parsers with atheris: `python tests/fuzzing/fuzz_parsers.py TARGET [SECONDS]`.

Small files that the libraries write are the corpus. An input fails if a parser raises an error of another kind than it
documents, takes more than two seconds, or allocates more than four times the input and a fixed allowance. The input is
then kept in the working directory, as crash-*.
"""

import shutil
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import atheris
import h5py
import numpy as np

# The tables of names are slow when instrumented, and read no input.
with atheris.instrument_imports(include=["keras_effnet"], exclude=["keras_effnet.weights.formats.layer_names"]):
    from keras_effnet.serving.model_record import ModelRecord, append_to_tflite, open_export
    from keras_effnet.variants import tiny
    from keras_effnet.weights.formats.checkpoints import read_checkpoint
    from keras_effnet.weights.formats.google_checkpoints import tf_names
    from keras_effnet.weights.formats.layer_names import layer_names, variables
    from keras_effnet.weights.formats.safetensors import write_safetensors
    from keras_effnet.weights.formats.torch_writer import write_torch

SECONDS = 2.0
# The interpreter's own caches, zip directories and error messages need memory that does not depend on the input.
ALLOWANCE = 16 << 20
FIXTURES = Path(__file__).parent.parent / "weights" / "formats"


def read_tiny(path: Path) -> object:
    return read_checkpoint(path, tiny())


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Args:
        name: the name of the file that the input becomes.
        write: writes the corpus into a folder, and other files that the parser needs into a second one.
        parse: reads the path of the input.
        path: what the parser is given, relative to the folder of the input.
    """

    name: str
    write: Callable[[Path, Path], None]
    parse: Callable[[Path], object] = read_tiny
    path: str | None = None


def state() -> dict[str, np.ndarray]:
    """Small arrays for every variable of a network."""
    return {
        f"{layer}/{name}": np.ones((1,) * (4 if name == "kernel" else 1), np.float32)
        for layer in layer_names(tiny())
        for name in variables(layer)
    }


def torch_files(corpus: Path, _: Path) -> None:
    for file in (*FIXTURES.glob("*.pth"), *FIXTURES.glob("*.pt")):
        shutil.copy(file, corpus)
    write_torch(corpus / "state", {"conv_stem.weight": np.ones((2, 3, 3, 3), np.float32)})


def h5_files(corpus: Path, _: Path) -> None:
    for version in ("earliest", "v110"):
        with h5py.File(corpus / f"legacy-{version}", "w", libver=version) as file:
            for name, array in list(state().items())[:12]:
                layer, variable = name.split("/")
                file[f"{layer}/{layer}/{variable}:0"] = array
                file[layer].attrs["weight_names"] = [f"{layer}/{variable}:0".encode()]
            file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
        with h5py.File(corpus / f"weights-{version}", "w", libver=version) as file:
            for i, layer in enumerate(list(layer_names(tiny()))[:6]):
                for j, name in enumerate(variables(layer)):
                    file[f"layers/layer_{i}/vars/{j}"] = state()[f"{layer}/{name}"]
                file[f"layers/layer_{i}/vars"].attrs["name"] = layer


def safetensors_files(corpus: Path, _: Path) -> None:
    write_safetensors(corpus / "timm", {"conv_stem.weight": np.ones((2, 3, 3, 3), np.float32)}, {"format": "pt"})
    normalization = {"normalization": "[[1, 2, 3], [1, 2, 3]]"}
    write_safetensors(corpus / "own", {"stem_conv/kernel": np.ones((3, 3, 3, 2), np.float32)}, normalization)


def index_files(corpus: Path, rest: Path) -> None:
    import tensorflow as tf

    values = {f"m/{place}": np.ones((1, 1), np.float32) for place in tf_names(tiny()).values()}
    tf.raw_ops.SaveV2(
        prefix=str(rest / "ck"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    (rest / "ck.index").rename(corpus / "index")


def graph_files(corpus: Path, rest: Path) -> None:
    import tensorflow as tf

    layers = tf.Module()
    for i, (name, array) in enumerate(state().items()):
        setattr(layers, f"layer_{i}", tf.Variable(array, name=name))
    tf.train.Checkpoint(model=layers).write(str(rest / "ck"))
    (rest / "ck.data-00000-of-00001").rename(corpus / "data")


def record_files(corpus: Path, _: Path) -> None:
    path = corpus / "model"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    append_to_tflite(path, ModelRecord("litert", 32, ((None, "daisy"), ("n1", "rose")), "b0"))


TARGETS = {
    "torch": Target("file", torch_files),
    "h5": Target("file", h5_files),
    "safetensors": Target("file", safetensors_files),
    "checkpoint-index": Target("ck.index", index_files, path="ck"),
    "checkpoint-graph": Target("ck.data-00000-of-00001", graph_files, path="ck"),
    "record": Target("model.tflite", record_files, open_export),
}


def check(target: Target, folder: Path, data: bytes) -> None:
    (folder / target.name).write_bytes(data)
    tracemalloc.reset_peak()
    before, start = tracemalloc.get_traced_memory()[0], time.process_time()
    with suppress(ValueError):  # WeightsError is one
        target.parse(folder / (target.path or target.name))
    seconds = time.process_time() - start
    taken = tracemalloc.get_traced_memory()[1] - before
    if seconds > SECONDS:
        raise RuntimeError(f"{seconds:.1f} s for {len(data)} bytes")
    if taken > 4 * len(data) + ALLOWANCE:
        raise RuntimeError(f"{taken} bytes allocated for {len(data)}")


def main(name: str, seconds: str = "600") -> None:
    warnings.simplefilter("ignore")  # zipfile warns of duplicate names
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as base:
        corpus, rest = Path(base, "corpus"), Path(base, "rest")
        corpus.mkdir()
        rest.mkdir()
        target.write(corpus, rest)
        tracemalloc.start()
        for seed in corpus.iterdir():
            check(target, rest, seed.read_bytes())
        options = [f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: check(target, rest, data))
        atheris.Fuzz()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz_parsers.py {{{','.join(TARGETS)}}} [SECONDS]")
    main(*sys.argv[1:])
