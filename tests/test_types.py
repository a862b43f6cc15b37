"""What type checkers and editors see of the package: every public name with its signature, and nothing else."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import keras_effnet
from keras_effnet.builder_signature import Builder, Options
from keras_effnet.finetuning.settings import Settings, SettingsArguments
from keras_effnet.models import EfficientNet, create

# What a user might write. A comment names the error that mypy and pyright are expected to report on that line.
USER = """\
import keras_effnet
from keras_effnet import EfficientNet, EfficientNetB0, EfficientNetLite0, Predictor, VARIANTS

model = EfficientNetB0(weights=None, classes=5, pooling="avg", dtype="mixed_bfloat16")
model.predict([])
EfficientNetLite0(False, None, None, (None, None, 3)).summary()
EfficientNet(1.0, 1.1, 240, classes=10, weights=None).summary()
EfficientNet(VARIANTS["b3"], classes=10).summary()
EfficientNet("b3", resolution=64).summary()
VARIANTS["b0"].resolution + keras_effnet.complexity.complexity(VARIANTS["b0"]).macs
keras_effnet.latency.__name__ + keras_effnet.registry.__name__
with Predictor("lite0") as predictor:
    list(predictor("photos/"))
    predictor.predict("photo.jpg")[0].labels
EfficientNetB0(weigths="imagenet")  # call-arg reportCallIssue
EfficientNetB0(classes="five")  # arg-type reportArgumentType
EfficientNetB0(pooling="mean")  # arg-type reportArgumentType
EfficientNet(1.0, 1.1, 240, weigths=None)  # call-arg reportCallIssue
EfficientNet(1.0, 1.1, 240, classes="ten")  # arg-type reportArgumentType
keras_effnet.finetune("photos/", epoch=3)  # call-arg reportCallIssue
keras_effnet.fuse(1, 2, 3)  # call-arg reportCallIssue
keras_effnet.nonsense  # attr-defined reportAttributeAccessIssue
keras_effnet.re  # attr-defined reportAttributeAccessIssue
keras_effnet.Callable  # attr-defined reportAttributeAccessIssue
keras_effnet.create  # attr-defined reportAttributeAccessIssue
"""
REVEAL = "".join(f"reveal_type(keras_effnet.{name})\n" for name in keras_effnet.__all__)
SOURCE = Path(keras_effnet.__file__).read_text(encoding="utf-8")


def type_checking_imports() -> dict[str, str]:
    """What is imported under `if TYPE_CHECKING:` in the package, by name: "keras_effnet.module.name"."""
    (branch,) = (node for node in ast.parse(SOURCE).body if isinstance(node, ast.If))
    aliases = [(node.module, alias) for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.asname for _, alias in aliases] == [alias.name for _, alias in aliases]  # "as" makes them public
    return {alias.name: f"{module}.{alias.name}" for module, alias in aliases}


def test_type_checkers_see_the_names_of_the_lazy_table() -> None:
    names = {name: f"keras_effnet.{module}.{name}" for name, module in keras_effnet._HOME.items()}
    modules = {name: f"keras_effnet.{module}" for name, module in keras_effnet._MODULES.items()}
    assert type_checking_imports() == names | modules


def test_dir_lists_the_public_names_and_the_documented_modules() -> None:
    assert dir(keras_effnet) == sorted([*keras_effnet.__all__, *keras_effnet._MODULES])
    assert not [name for name in dir(keras_effnet) if not hasattr(keras_effnet, name)]


def test_help_of_a_builder_has_the_numbers_of_its_variant() -> None:
    text = inspect.getdoc(keras_effnet.EfficientNetB8)
    assert text.startswith("Build EfficientNetB8, for images of 672 x 672 pixels, and load its weights.")
    for part in (
        'weights="advprop"',
        "dropout_rate=0.5",
        "Args:",
        "Raises:",
        ">>> EfficientNetB8(weights=None, classes=10)",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["re", "importlib", "typing", "Any", "Callable", "TYPE_CHECKING", "create"])
def test_imports_of_the_package_are_not_its_attributes(name: str) -> None:
    assert not hasattr(keras_effnet, name)


def test_a_name_is_looked_up_once() -> None:
    vars(keras_effnet).pop("list_models", None)
    assert keras_effnet.list_models is vars(keras_effnet)["list_models"]


def arguments(function: object) -> dict[str, object]:
    return {name: parameter.kind for name, parameter in inspect.signature(function).parameters.items()}


def test_builders_declare_the_arguments_of_create() -> None:
    declared, (variant, *parameters) = arguments(Builder.__call__), arguments(create).items()
    assert variant[0] == "variant"
    assert list(declared.items())[1:] == parameters
    assert arguments(keras_effnet.EfficientNetB0) == dict(parameters)


def test_efficientnet_takes_the_remaining_arguments_of_a_builder() -> None:
    hints = get_type_hints(Builder.__call__)
    shared = {name: hints[name] for name in list(arguments(keras_effnet.EfficientNetB0)) if name != "dropout_rate"}
    assert get_type_hints(Options) == shared
    assert "dropout_rate" in arguments(EfficientNet)


def test_finetune_takes_the_fields_of_settings() -> None:
    assert get_type_hints(SettingsArguments) == get_type_hints(Settings)


def test_a_misspelt_argument_is_reported_with_the_name_of_the_function() -> None:
    with pytest.raises(TypeError, match=r"^EfficientNetB0\(\) got an unexpected keyword argument 'weigths'$"):
        keras_effnet.EfficientNetB0(weigths=None)


def mypy(file: Path) -> list[dict[str, Any]]:
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--output=json", "--cache-dir", str(file.parent)]
    lines = run([*command, str(file)], timeout=300).splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in found if Path(entry["file"]).name == file.name]  # not those of the package's own files


def pyright(file: Path) -> list[dict[str, Any]]:
    command = shutil.which("pyright", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if command is None:
        pytest.skip("pyright is not installed")
    try:  # the Python package downloads the program itself when it is first used
        run([command, "--version"], timeout=30)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("pyright does not start without the network")
    output = run([command, "--outputjson", "--pythonpath", sys.executable, str(file)], timeout=300)
    return [
        {
            "line": entry["range"]["start"]["line"] + 1,
            "code": entry.get("rule"),
            "message": entry["message"],
            "severity": entry["severity"],
        }
        for entry in json.loads(output)["generalDiagnostics"]
    ]


def run(command: list[str], *, timeout: float) -> str:
    """Run a type checker on the package under test, installed or not."""
    settings = {"PYTHONPATH": str(Path(keras_effnet.__file__).parents[1]), "npm_config_offline": "true"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | settings)
    if done.returncode not in (0, 1):  # 1: errors were found
        raise subprocess.SubprocessError(done.stdout + done.stderr)
    return done.stdout


@pytest.fixture(scope="module", params=[mypy, pyright])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What a type checker reports on the user's file: entries with line, code, message and severity."""
    file = tmp_path_factory.mktemp("user") / "user.py"
    file.write_text(USER + REVEAL, encoding="utf-8")
    return [entry | {"checker": request.param.__name__} for entry in request.param(file)]


def test_type_checkers_report_the_errors_of_a_user_and_no_others(report: list[dict[str, Any]]) -> None:
    column = ["mypy", "pyright"].index(report[0]["checker"])
    comments = {i: line.partition("  # ")[2].split() for i, line in enumerate(USER.splitlines(), 1)}
    expected = {i: codes[column] for i, codes in comments.items() if codes}
    assert {entry["line"]: entry["code"] for entry in report if entry["severity"] == "error"} == expected


def test_type_checkers_know_the_signature_of_every_public_name(report: list[dict[str, Any]]) -> None:
    first = USER.count("\n") + 1
    types = {entry["line"] - first: entry["message"] for entry in report if entry["line"] >= first}
    assert sorted(types) == list(range(len(keras_effnet.__all__)))
    unknown = r'is "(Any|Unknown|\(\.\.\.\) ->|def \(\*\w*: ?Any|def \(\*Any)'
    assert not [keras_effnet.__all__[i] for i, text in types.items() if re.search(unknown, text)]
