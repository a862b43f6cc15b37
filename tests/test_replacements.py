"""Every name exists on the page that lists replacements for tensorflow-addons and keras-cv."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from keras_effnet._keras import LEGACY, keras

PAGE = Path(__file__).parent.parent / "examples" / "from_tensorflow_addons_and_keras_cv.md"
LINES = PAGE.read_text(encoding="utf-8").splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in LINES if line.startswith("| `")]
NAME = r"`((?:tfa|keras_cv|keras|keras_effnet|tf)\.[\w.]+)"


def names(column: int, package: str) -> list[str]:
    """The names of one package in one column, without the package prefix."""
    found = [name for row in ROWS for name in re.findall(NAME, row[column])]
    return [name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")]


def missing(module: object, dotted: list[str]) -> list[str]:
    def exists(name: str) -> bool:
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        return found is not None

    return [name for name in dotted if not exists(name)]


def test_page_is_a_table_with_two_columns() -> None:
    assert {len(row) for row in ROWS} == {2}
    assert [len(names(0, "tfa")) > 40, len(names(0, "keras_cv")) > 20, len(names(1, "keras")) > 40] == [True] * 3


@pytest.mark.skipif(LEGACY, reason="the page is about Keras 3")
def test_replacements_in_keras_exist() -> None:
    assert missing(keras, names(1, "keras")) == []


@pytest.mark.skipif(LEGACY, reason="the page is about Keras 3")
def test_names_without_replacement_are_not_in_keras() -> None:
    gone = [name.rsplit(".", 1)[1] for row in ROWS if row[1].startswith("-") for name in re.findall(NAME, row[0])]
    places = (keras.optimizers, keras.layers, keras.losses, keras.metrics, keras.ops.image, keras.callbacks)
    assert [name for name in gone if any(hasattr(place, name) for place in places)] == []


def test_replacements_in_this_package_exist() -> None:
    for name in names(1, "keras_effnet"):
        module, _, attribute = name.rpartition(".")
        assert missing(import_module(f"keras_effnet.{module}"), [attribute]) == []


@pytest.mark.parametrize(
    ("short", "package"), [("tfa", "tensorflow_addons"), ("keras_cv", "keras_cv"), ("tf", "tensorflow")]
)
def test_replaced_names_existed(short: str, package: str) -> None:
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    assert missing(module, [*names(0, short), *names(1, short)]) == []
