"""The README's Python and commands run, it is short, and the paths in README and CONTRIBUTING exist."""

import re
from pathlib import Path

import pytest
from documents import (
    ROOT,
    commands,
    fenced,
    inline_commands,
    python_blocks,
    quickstart,
    read,
    run_commands,
    run_python,
    write_photos,
)
from typer.testing import CliRunner

from keras_effnet.cli import app

README = read("README.md")
CONTRIBUTING = read("CONTRIBUTING.md")
# The others take minutes, or run until they are stopped; they have tests of their own.
COMMANDS = [
    words for words in inline_commands(README) if words[:2] != ["paper", "all"] and words[0] not in ("serve", "train")
]


def test_readme_has_at_most_90_lines() -> None:
    assert len(README.splitlines()) <= 90


def test_the_three_first_commands_are_single_lines_that_create_their_environment() -> None:
    lines = [line for block in fenced(README, "sh") for line in block.splitlines() if "pip install" in line]
    assert [line.startswith("python3 -m venv .venv && .venv/bin/pip install ") for line in lines] == [True] * 3


@quickstart
@pytest.mark.parametrize(("block", "output"), python_blocks(README))
def test_a_python_block_prints_the_text_after_it(
    block: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_python(block) == output


@quickstart
@pytest.mark.parametrize("words", [words for block in commands(README) for words in block] + COMMANDS, ids=" ".join)
def test_a_command_runs(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # the command sets it, and it would leak into other tests
    run_commands([words])


def test_the_table_of_commands_names_every_command() -> None:
    listed = {words[0] for words in inline_commands(README)}
    also = set(re.findall(r"`(\w+)`", re.search(r"^Also: .*", README, re.MULTILINE)[0]))
    help_page = CliRunner().invoke(app, ["--help"]).output
    assert listed | also == set(re.findall(r"^│ ([a-z]+)  ", help_page, re.MULTILINE))


def test_paths_in_readme_exist() -> None:
    paths = set(re.findall(r"\]\(([\w./-]+)\)", README)) | set(re.findall(r"`(docs/[\w.]+\.md)`", README))
    assert len(paths) > 12
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_paths_in_contributing_exist() -> None:
    words = {word for text in re.findall(r"`([^`\n]+)`", CONTRIBUTING) for word in text.split()}
    paths = {word for word in words if re.fullmatch(r"[\w./-]+", word) and ("/" in word or word.endswith(".md"))}
    assert len(paths) > 30
    written = {"docs/_build"}  # by a command on that page
    assert [path for path in sorted(paths - written) if not (ROOT / path).exists()] == []


def test_layout_in_contributing_matches_the_package() -> None:
    tree = CONTRIBUTING.partition("## Layout")[2].split("```")[1]
    listed = set(re.findall(r"^    (\w+(?:\.py|/))", tree, re.MULTILINE))
    package = ROOT / "keras_effnet"
    files = {path.name for path in package.glob("*.py") if not path.stem.endswith("__")}
    assert listed == files | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
