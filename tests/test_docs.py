"""Every block in `docs/` runs alone, its tables match the code, and it names every command, extra and public name."""

import re
from pathlib import Path

import pytest
from documents import (
    ROOT,
    commands,
    fenced,
    python_blocks,
    quickstart,
    read,
    run_commands,
    run_python,
    table_rows,
    write_photos,
)
from typer.testing import CliRunner

import keras_effnet
from keras_effnet.cli import app
from keras_effnet.complexity import complexity
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.registry import WEIGHTS

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
BUILDERS = {"b8": "advprop", "l2": "noisy-student", "v2-xl": "imagenet21k-ft1k"}
PYTHON = [
    pytest.param(block, output, id=f"{page}-{i}")
    for page in PAGES
    for i, (block, output) in enumerate(python_blocks(read(page)))
]
COMMANDS = [pytest.param(block, id=f"{page}-{i}") for page in PAGES for i, block in enumerate(commands(read(page)))]


@pytest.mark.slow
@quickstart
@pytest.mark.parametrize(("block", "output"), PYTHON)
def test_a_python_block_runs_alone_and_prints_the_text_after_it(
    block: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_python(block)
    assert not output or printed == output


@pytest.mark.slow
@quickstart
@pytest.mark.parametrize("block", COMMANDS)
def test_commands_of_a_block_run_in_order(
    block: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # the command sets it, and it would leak into other tests
    run_commands(block)


def test_table_of_networks_matches_the_code() -> None:
    expected = []
    for name, variant in VARIANTS.items():
        cost, record = complexity(variant), WEIGHTS[name, BUILDERS.get(name, "imagenet")]
        size, macs = str(variant.resolution), f"{cost.macs / 1e9:.3f} G"
        expected.append([name, f"{cost.trainable:,}", macs, size, str(record.top1), record.name])
    assert table_rows(read("docs/networks.md"), 6) == expected


def test_every_command_is_described_with_two_examples() -> None:
    page = read("docs/commands.md")
    shown = [words[0] for block in commands(page) for words in block]
    shown += re.findall(r"^\$ keras-effnet (\w+)", "\n".join(fenced(page, "console")), re.MULTILINE)
    help_page = CliRunner().invoke(app, ["--help"]).output
    names = re.findall(r"^│ ([a-z]+)  ", help_page, re.MULTILINE)
    assert len(names) > 10
    assert [name for name in names if shown.count(name) < 2 or f"| `{name}` |" not in page] == []


def test_api_reference_lists_every_public_name() -> None:
    page = read("docs/api.md")
    relatives = re.compile(r"EfficientNet(B[1-8]|L2|Lite[1-4]|V2B[1-3]|V2M|V2L|V2XL)")
    missing = [
        name
        for name in keras_effnet.__all__
        if not relatives.fullmatch(name) and not re.search(rf"(^   |`){name}(`|$)", page, re.MULTILINE)
    ]
    assert missing == []
