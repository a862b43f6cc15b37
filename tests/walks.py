"""Count the steps from file to file that five uses of the package take: `python tests/walks.py [--steps] [WALK...]`.

A call is a call from one file of the package into another; consecutive repeats of the same two files count once. Steps
are these calls with every loop counted once too, so that they do not depend on the number of layers, photos or batches.
Files at the top level are left out: a call through one of them counts as a call by the file before it. Calls made
during an import do not count. PYTHONPATH decides which package is measured; the old flat layout works as well.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from argparse import ArgumentParser
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

SPEC = find_spec("keras_effnet")
PACKAGE = Path(SPEC.origin).parent
FLAT = (PACKAGE / "weights.py").is_file()
# The files that stayed at the top level when the flat folder was split into sub-packages.
TOP_LEVEL = {
    *("__init__", "__main__", "_keras", "errors", "staging", "bicubic", "blocks", "scaling", "normalization"),
    *("variants", "complexity", "layers", "network", "introspection", "models", "images", "imagenet"),
}
START = "start"  # outside the package, or the beginning of a thread
Step = tuple[str, str]


class Recorder:
    """A profile function that records steps: `main` in order, those of other threads as a set, whatever their order."""

    def __init__(self) -> None:
        self.main: list[Step] = []
        self.threads: set[Step] = set()
        self._names: dict[str, str | None] = {}
        self._of_thread = threading.local()
        self._main_thread = threading.get_ident()

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self._enter(frame)
        elif event == "return":
            self._leave(frame)

    def _enter(self, frame: FrameType) -> None:
        if (name := self._name(frame.f_code.co_filename)) is None:
            return
        stack = self._stack()
        if frame.f_code.co_name == "<module>" or (stack and stack[-1][1] == ""):
            name = ""  # an import, or what it calls
        elif name != (before := stack[-1][1] if stack else START):
            self._add((before, name))
        stack.append((frame, name))

    def _leave(self, frame: FrameType) -> None:
        stack = self._stack()
        if stack and stack[-1][0] is frame:
            stack.pop()

    def _stack(self) -> list[tuple[FrameType, str]]:
        if not hasattr(self._of_thread, "stack"):
            self._of_thread.stack = []
        return self._of_thread.stack

    def _add(self, step: Step) -> None:
        if threading.get_ident() != self._main_thread:
            self.threads.add(step)
        elif not self.main or self.main[-1] != step:
            self.main.append(step)

    def _name(self, file: str) -> str | None:
        """The path of a file below the package; None outside of it and at its top level."""
        if file not in self._names:
            path = Path(file)
            name = path.relative_to(PACKAGE).with_suffix("").as_posix() if path.is_relative_to(PACKAGE) else None
            top = name is not None and (name in TOP_LEVEL if FLAT else "/" not in name)
            self._names[file] = None if top else name
        return self._names[file]

    def result(self) -> dict[str, Any]:
        calls = [*self.main, *sorted(self.threads)]
        files = sorted({name for call in calls for name in call} - {START})
        return {"files": files, "calls": len(calls), "steps": without_loops(calls)}


def without_loops(calls: list[Step]) -> list[Step]:
    """Leave out every block of calls that repeats the block right before it, the shortest blocks first."""
    size = 1
    while size <= len(calls) // 2:
        kept: list[Step] = []
        position = 0
        while position < len(calls):
            kept.append(calls[position])
            position += 1
            while len(kept) >= size and calls[position : position + size] == kept[-size:]:
                position += size
        size = 1 if len(kept) < len(calls) else size + 1
        calls = kept
    return calls


def command(*words: str | Path) -> None:
    from typer.testing import CliRunner

    from keras_effnet.cli import app

    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exit_code != 0:
        raise SystemExit(f"{words} failed: {result.exception!r}\n{result.output}")


def classify(folder: Path) -> None:
    command("classify", folder / "photo.jpg", "--model", "lite0")


def load(folder: Path) -> None:
    import keras_effnet

    keras_effnet.EfficientNetB0(weights=str(folder / "b0.weights.h5"))


def finetune(folder: Path) -> None:
    small = ("--resolution", "64", "--epochs", "2", "--batch-size", "4")
    command("finetune", folder / "photos", "--out", folder / "finetuned", *small)


def train(folder: Path) -> None:
    small = ("--model", "lite0", "--size", "32", "--epochs", "2", "--batch-size", "4")
    command("train", "--data", folder / "photos", "--out", folder / "trained", *small)


def export(folder: Path) -> None:
    command("export", folder / "lite0.tflite", "--model", "lite0")


WALKS: dict[str, Callable[[Path], None]] = {
    "classify": classify,
    "load": load,
    "finetune": finetune,
    "train": train,
    "export": export,
}


def prepare(folder: Path) -> None:
    """Write what the walks start from: photos, a weight file, and the cached export of lite0."""
    import numpy as np
    from PIL import Image

    from keras_effnet._keras import keras

    rng = np.random.default_rng(0)
    for name in (
        "photo",
        *(f"photos/{part}/{i}" for part in ("train/a", "train/b", "val/a", "val/b") for i in range(4)),
    ):
        path = folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 100, 3), "uint8")).save(path)
    keras.applications.EfficientNetB0(weights=None).save_weights(folder / "b0.weights.h5")
    classify(folder)


def record(name: str, folder: Path) -> None:
    recorder = Recorder()
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        WALKS[name](folder)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    (folder / f"{name}.json").write_text(json.dumps(recorder.result()))


def measure(names: list[str]) -> dict[str, dict[str, Any]]:
    """Take each walk in a process of its own, so that none finds what another has loaded."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "KERAS_EFFNET_HOME": f"{folder}/cache",
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        for name in ("prepare", *names):
            done = subprocess.run(
                [sys.executable, __file__, "--child", name, folder], env=environ, capture_output=True, text=True
            )
            if done.returncode != 0:
                raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
            if name != "prepare":
                found[name] = json.loads(Path(folder, f"{name}.json").read_text())
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        name, folder = sys.argv[2], Path(sys.argv[3])
        prepare(folder) if name == "prepare" else record(name, folder)
        return
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("walks", nargs="*", metavar="WALK", help=f"some of: {', '.join(WALKS)}; by default all")
    parser.add_argument("--steps", action="store_true", help="print every step")
    options = parser.parse_args()
    if unknown := set(options.walks) - set(WALKS):
        parser.error(f"Unknown walks: {', '.join(sorted(unknown))}. Expected some of: {', '.join(WALKS)}.")
    for name, walk in measure(options.walks or list(WALKS)).items():
        print(f"{name:9} {len(walk['files']):3} files  {len(walk['steps']):4} steps  {walk['calls']:4} calls")
        if options.steps:
            print("".join(f"    {before} -> {after}\n" for before, after in walk["steps"]), end="")


if __name__ == "__main__":
    main()
