"""The metadata, extras and files of the installed package, and the table of extras in the documentation."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import keras_effnet

try:
    METADATA = distribution("keras_effnet").metadata
except PackageNotFoundError:
    pytest.skip("keras_effnet is not installed", allow_module_level=True)

REQUIREMENTS = [Requirement(line) for line in METADATA.get_all("Requires-Dist")]
EXTRAS = {
    *("tf", "tf-cpu", "tpu", "jax", "lite0", "lite1", "lite2", "quickstart"),
    *(
        "litert",
        "onnx",
        "onnx-other",
        "openvino",
        "parquet",
        "peers",
        "plots",
        "search",
        "serve",
        "hub",
        "curation",
        "docs",
        "test",
        "dev",
    ),
}
PLATFORMS = {
    #                       sys_platform           platform_machine
    "linux on x86_64":  {"sys_platform": "linux",  "platform_machine": "x86_64"},
    "linux on aarch64": {"sys_platform": "linux",  "platform_machine": "aarch64"},
    "macos on arm64":   {"sys_platform": "darwin", "platform_machine": "arm64"},
    "windows on amd64": {"sys_platform": "win32",  "platform_machine": "AMD64"},
}  # fmt: skip
HAS_TENSORFLOW_CPU = {"linux on x86_64", "windows on amd64"}


def required(extra: str, environment: dict[str, str]) -> dict[str, Requirement]:
    """The requirements that an extra adds in an environment, including extras of extras."""
    found: dict[str, Requirement] = {}
    for requirement in REQUIREMENTS:
        marker = requirement.marker
        if marker is None or not marker.evaluate({**environment, "extra": extra}):
            continue
        if requirement.name == "keras_effnet":
            for inner in requirement.extras:
                found |= required(inner, environment)
        else:
            found[requirement.name] = requirement
    return found


def test_version_matches_the_package() -> None:
    assert METADATA["Version"] == keras_effnet.__version__


def test_licence_is_an_spdx_expression_with_its_files() -> None:
    assert METADATA["License-Expression"] == "Apache-2.0"
    assert set(METADATA.get_all("License-File")) == {"LICENSE", "NOTICE"}


def test_extras_are_the_documented_ones() -> None:
    assert set(METADATA.get_all("Provides-Extra")) == EXTRAS


def test_keras_3_11_0_to_3_11_3_are_excluded() -> None:
    keras = next(requirement.specifier for requirement in REQUIREMENTS if requirement.name == "keras")
    versions = ("3.9.2", "3.10.0", "3.11.0", "3.11.1", "3.11.2", "3.11.3", "3.12.0", "3.15.1")
    assert [version for version in versions if version in keras] == ["3.10.0", "3.12.0", "3.15.1"]


def test_no_backend_is_a_plain_requirement() -> None:
    plain = {requirement.name for requirement in REQUIREMENTS if requirement.marker is None}
    assert not {name for name in plain if "tensorflow" in name or name in ("jax", "torch")}


@pytest.mark.parametrize("extra", ["tf-cpu", "quickstart", "test", "dev"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_platform_gets_one_tensorflow_and_no_torch(platform: str, extra: str) -> None:
    names = set(required(extra, PLATFORMS[platform]))
    expected = "tensorflow-cpu" if platform in HAS_TENSORFLOW_CPU else "tensorflow"
    assert {name for name in names if name in ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "torch")} == {expected}


def test_tpu_extra_applies_only_where_it_has_wheels() -> None:
    assert [name for name, where in PLATFORMS.items() if required("tpu", where)] == ["linux on x86_64"]


def test_console_script_is_installed() -> None:
    scripts = distribution("keras_effnet").entry_points.select(group="console_scripts")
    assert [(script.name, callable(script.load())) for script in scripts] == [("keras-effnet", True)]


def test_installed_package_contains_type_marker_and_labels() -> None:
    names = {path.name for path in files("keras_effnet").iterdir()}
    assert "py.typed" in names
    assert any(name.endswith(".json") for name in names)


def test_installation_page_lists_every_extra(repository: Path) -> None:
    page = (repository / "docs" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| extra |")[2].partition("\n\n")[0]
    first_cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert set(re.findall("`([a-z0-9-]+)`", first_cells)) == EXTRAS


def test_pyproject_contains_no_metadata(repository: Path) -> None:
    assert set(tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))) == {"build-system", "tool"}
