"""Wrong arguments are reported before TensorFlow is imported and before any file is written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

# Runs each command line in one process, until one of them has imported TensorFlow or Keras.
RUN = """
import json, sys
from typer.testing import CliRunner
from keras_effnet.cli import app

results = []
for arguments in json.load(sys.stdin):
    result = CliRunner().invoke(app, arguments)
    loaded = sorted({"tensorflow", "keras", "tf_keras", "jax", "torch"} & set(sys.modules))
    results.append({"code": result.exit_code, "stderr": result.stderr, "stdout": result.stdout, "loaded": loaded})
print(json.dumps(results))
"""
# Arguments, and a part of the message. In the folder: photos/ with two classes, one/ with one class, empty/, list.csv
# without photos and colours.keras.
CASES = {
    "classify x.jpg --model b9": "There is no network 'b9'",
    "classify x.jpg --model gone.keras": "There is no model 'gone.keras'",
    "classify x.jpg --engine tensorrt": "tensorrt",
    "classify x.jpg --model b0 --weights imagnet": "There are no weights 'imagnet' for 'b0'",
    "classify x.jpg --model b0 --engine keras --weights gone.h5": "There are no weights 'gone.h5'",
    "classify x.jpg --model b9 --out new/labels.csv": "There is no network 'b9'",
    "classify x.jpg --out new/labels.txt": "has an unknown suffix",
    "classify x.jpg --out new/labels.json": "For JSON, choose .jsonl",
    "classify x.jpg --model run": "no file or folder of this name either",
    "classify x.jpg --model colours.keras --weights imagenet": "has its own weights",
    "explain x.jpg --model b9 --out maps": "There is no network 'b9'",
    "explain x.jpg --model gone.h5 --out maps": "There is no model 'gone.h5'",
    "explain x.jpg --weights imagnet --out maps": "There are no weights 'imagnet'",
    "evaluate gone": "There is no data 'gone'",
    "evaluate photos --model b9": "There is no network 'b9'",
    "evaluate photos --labels gone.txt": "The label file 'gone.txt' cannot be read",
    "evaluate photos --weights imagnet": "There are no weights 'imagnet'",
    "finetune gone --out new/run": "There is no data 'gone'",
    "finetune empty --out new/run": "contains 0 folders",
    "finetune one --out new/run": "1 class",
    "finetune list.csv --out new/run": "list.csv",
    "finetune photos --out new/run --model nope": "There is no network 'nope'",
    "finetune photos --out new/run --weights nope": "There are no weights 'nope'",
    "finetune photos --out new/run --learning-rate -1": "--learning-rate is -1.0. Expected a number of at least 0",
    "finetune photos --out new/run --val-share 2": "--val-share is 2.0",
    "finetune photos --out new/run --unfreeze 99": "Expected a number of stages from 0 to 7",
    "finetune photos --out new/run --unfreeze block9a": "Expected a number of stages from 0 to 7",
    "finetune photos --out photos": "is not empty",
    "finetune photos --out list.csv/run": "cannot be written to",
    "train --data gone --out new/run": "There is no data 'gone'",
    "train --data photos --out new/run --model b9": "There is no network 'b9'",
    "train --data photos --out new/run --recipe nope": "nope",
    "train --data photos --out new/run --epochs 0": "--epochs is 0.0",
    "train --data photos --out new/run --strategy nope": "Expected one of auto",
    "train --data photos --out new/run --precision nope": "Expected one of",
    "train --data photos --out new/run --weights nope": "There are no weights 'nope'",
    "search --data gone": "There is no data 'gone'",
    "search --data photos --sampler nope": "Expected one of",
    "export new/lite0 --format nope": "Expected one of",
    "export new/lite0.txt": "has the suffix '.txt'",
    "export new/lite0.onnx --format litert": "does not fit the format",
    "export new/lite0.tflite --quantize int4": "--quantize is 'int4'",
    "export new/lite0.tflite --quantize int8": "Pass --representative, for example",
    "export new/lite0.tflite --quantize int8 --representative gone": "There is no data 'gone'",
    "export new/lite0.tflite --model b9": "There is no network 'b9'",
    "summary b9": "There is no network 'b9'",
    "weights path b0 nope": "There are no weights 'nope'",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("photos/red", "photos/blue", "one/red"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), name.rpartition("/")[2]).save(folder / name / f"{number}.png")
    (folder / "empty").mkdir()
    (folder / "list.csv").write_text("path,label\n", encoding="utf-8")
    (folder / "colours.keras").touch()
    shutil.copy(folder / "one" / "red" / "0.png", folder / "x.jpg")
    before = files(folder)
    environment = os.environ | {"COLUMNS": "300", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN]
    given = json.dumps([case.split() for case in CASES])
    done = subprocess.run(command, input=given, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert files(folder) == before
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("case", CASES)
def test_wrong_arguments_are_reported_before_anything_is_imported_or_written(
    case: str, results: dict[str, dict[str, Any]]
) -> None:
    result = results[case]
    assert CASES[case] in result["stderr"]
    assert len(result["stderr"].splitlines()) == 1
    assert (result["code"], result["stdout"], result["loaded"]) == (1, "", [])


def test_without_a_network_b0_gets_three_lines_and_the_first_names_lite0(tmp_path: Path) -> None:
    environment = os.environ | {"KERAS_EFFNET_HOME": str(tmp_path), "KERAS_HOME": str(tmp_path / "keras")}
    environment |= {"KERAS_EFFNET_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "keras_effnet", "weights", "fetch", "b0", "imagenet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 3)
    assert "lite0 works without a network" in lines[0]


@pytest.mark.parametrize(
    ("missing", "arguments", "command"),
    [
        (("onnx", "onnxruntime"), "export new/b0.onnx", "pip install onnx onnxruntime"),
        (("onnx",), "export new/b0.onnx", "pip install onnx onnxruntime"),
        (("tensorflow",), "train --data . --out new", "pip install tensorflow"),
    ],
)
def test_missing_packages_are_reported_with_one_command(
    missing: tuple[str, ...], arguments: str, command: str, tmp_path: Path
) -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({missing!r}))"
    code = f"{block}; from keras_effnet.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    needed = re.search(r"needs (.*), not installed here\. Run (.*)\.", done.stderr)  # others may be missing as well
    assert set(needed[1].split(", ")) >= set(missing)
    assert needed[2] == command
    assert list(tmp_path.iterdir()) == []
