"""Errors about a value name the option that was typed, before TensorFlow or Keras is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from keras_effnet.cli import app

# Valid arguments of each command; a wrong option is added to them. In the folder: photos/ with two classes, and x.jpg.
VALID = {
    "classify": "x.jpg",
    "explain": "x.jpg",
    "evaluate": "photos",
    "finetune": "photos --out new/run",
    "train": "--data photos --out new/run",
    "export": "new/lite0.tflite",
    "search": "--data photos",
    "paper": "table1",
    "serve": "lite0",
    "export --held-out": "new/lite0.tflite --quantize int8 --representative photos",
}
# Wrong values of the options that are neither numbers nor flags, where a value can be wrong.
WRONG = {
    **{f"{verb} --model": "b9" for verb in ("classify", "explain", "evaluate", "finetune", "train", "export")},
    **{f"{verb} --weights": "imagnet" for verb in ("classify", "explain", "evaluate", "finetune", "train", "export")},
    "serve --weights": "imagnet",
    "serve --engine": "tensorrt",
    "classify --sample": "eagle",
    "classify --engine": "tensorrt",
    "classify --out": "labels.txt",
    "explain --sample": "eagle",
    "explain --out": "x.jpg",
    "evaluate --labels": "gone.txt",
    "evaluate --split": "test",
    "finetune --unfreeze": "block9a",
    "train --data": "gone",
    "train --recipe": "nope",
    "train --precision": "float8",
    "train --strategy": "nope",
    "train --epochs": "0",
    "export --format": "nope",
    "export --quantize": "int4",
    "export --representative": "gone",
    "export --held-out": "gone",
    "search --data": "gone",
    "search --target-macs": "many",
    "search --sampler": "nope",
    "search --storage": "nope",
    "paper --out": "x.jpg",
    "weights list --variant": "b9",
}
RUN = '''
import json, sys

from importlib.machinery import ModuleSpec

class Blocked:
    """The backends are installed, but fail when they are imported."""

    def find_spec(self, name, path=None, target=None):
        blocked = name in ("tensorflow", "keras", "tf_keras", "jax", "torch")
        return ModuleSpec(name, self) if blocked else None

    def create_module(self, spec):
        raise RuntimeError(f"{spec.name} was imported")

sys.meta_path.insert(0, Blocked())
from typer.testing import CliRunner
from keras_effnet.cli import app

results = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(app, arguments)
    failure = repr(result.exception) if not isinstance(result.exception, SystemExit) else ""
    results.append({"code": result.exit_code, "stderr": result.stderr, "failure": failure})
print(json.dumps(results))
'''


def numbers() -> dict[str, str]:
    """A wrong value for every option that is a number: none of them may be negative."""
    found = {}
    commands = dict(typer.main.get_command(app).commands)
    commands |= {f"weights {name}": each for name, each in commands.pop("weights").commands.items()}
    for verb, command in commands.items():
        for parameter in command.params:
            kind = str(getattr(getattr(parameter, "type_descriptor", None), "annotation", ""))
            option = max(parameter.opts, key=len)
            if option.startswith("--") and ("int" in kind or "float" in kind):
                found[f"{verb} {option}"] = "-7"
    return found


CASES = numbers() | WRONG


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("options")
    for name in ("red", "blue"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), name).save(folder / "photos" / name / f"{number}.png")
    Image.new("RGB", (8, 8)).save(folder / "x.jpg")
    before = sorted(folder.rglob("*"))
    given = []
    for case, value in CASES.items():
        verb, _, option = case.rpartition(" ")
        valid = VALID.get(case, VALID.get(verb, "")).split()
        if option in valid:
            valid = [*valid[: valid.index(option)], *valid[valid.index(option) + 2 :]]
        given.append([*verb.split(), *valid, option, value])
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(given),
        cwd=folder,
        env=os.environ | {"COLUMNS": "300", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(folder.rglob("*")) == before
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_the_option_and_the_value(case: str, results: dict[str, dict[str, Any]]) -> None:
    result, option = results[case], case.rpartition(" ")[2]
    if case.startswith("search"):
        pytest.importorskip("optuna", reason="Optuna is not installed")
    assert result["failure"] == ""
    assert result["code"] in (1, 2)
    assert option in result["stderr"]
    assert CASES[case] in result["stderr"]
