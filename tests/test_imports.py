"""Imports run one way, down the list of rooms, and cost nothing until a name is used."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

import keras_effnet

# The top-level files fall into three groups; every sub-package is a room of its own.
TABLE = ("errors", "forks", "native_logs", "blocks", "scaling", "normalization", "variants", "complexity")
GRAPH = ("_keras", "_keras_private", "layers", "network", "introspection", "artifacts")
BUILDERS = ("builder_signature", "models", "center_crop", "image_files", "image_metadata", "images", "imagenet")
# A file may import from its own room and from the rooms before it.
ROOMS = (
    *("table", "weights.formats", "graph", "weights", "builders", "data", "reports", "inference", "exporting"),
    *("training", "serving", "finetuning", "curation", "design", "http_server", "sharing", "paper", "cli", "__main__"),
)

# These files must work with nothing but Python installed ...
STANDARD_LIBRARY_ONLY = (
    "errors",
    "forks",
    "native_logs",
    "blocks",
    "scaling",
    "normalization",
    "variants",
    "complexity",
    "weights.registry",
    "weights.formats.layer_names",
    "design.shared_grid",
    "design.grid",
    "design.rival_tables",
    "design.mnas",
    "design.search",
    "paper.data",
    "paper.report",
    "training.recipes",
    "data.augment_policies",
    "training.cluster_env",
    "data.sharding",
)
# ... except for the packages of an extra, imported when they are used.
EXTRAS = {"design.shared_grid": {"optuna", "sqlalchemy"}, "design.search": {"optuna"}}
# With all of weights.formats, these must work without Keras and TensorFlow.
READERS = (
    "weights.cache",
    "weights.http_transfer",
    "weights.download",
    "weights.fast_copy",
    "weights.published",
    "artifacts",
    "serving.model_record",
)
# Works on Keras's layers, and Keras imports its backend.
USES_KERAS = "exporting.tf_int8"

PACKAGE = Path(keras_effnet.__file__).parent
PUBLIC_FUNCTIONS = {name for name in keras_effnet.__all__ if name.islower()}


def dotted(path: Path) -> str:
    """The name of a module below the package; a sub-package has that of its folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}
SUB_PACKAGES = sorted(name for name, path in FILES.items() if path.stem == "__init__")
MODULES = sorted(set(FILES) - set(SUB_PACKAGES))


def room(module: str) -> str:
    """Where a module belongs."""
    for name, files in (("table", TABLE), ("graph", GRAPH), ("builders", BUILDERS)):
        if module in files:
            return name
    return module if module in ROOMS else module.rpartition(".")[0]


def imports(module: str) -> set[str]:
    """Every module that a file imports, at the top or inside a function; those of this package without its name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            found = {child for child in children if child.removeprefix("keras_effnet.") in FILES}
            names |= found or {node.module or "."}
    return {name.removeprefix("keras_effnet.") for name in names}


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_extra(module: str) -> bool:
    """Whether a module needs the extra `serve` or `onnx`, which is not installed."""
    writes_onnx = module in ("exporting.onnx_graph", "exporting.onnx_layers", "exporting.published_onnx")
    missing = {name for name in ("starlette", "onnx") if find_spec(name) is None}
    return (room(module) == "http_server" and "starlette" in missing) or (writes_onnx and "onnx" in missing)


def import_lines(modules: list[str]) -> str:
    return ", ".join(f"keras_effnet.{name}" for name in sorted(modules))


@pytest.mark.parametrize("module", sorted(FILES))
def test_every_file_has_a_room(module: str) -> None:
    assert room(module) in ROOMS


@pytest.mark.parametrize("module", sorted(FILES))
def test_a_file_imports_only_from_its_own_room_and_earlier_ones(module: str) -> None:
    place = ROOMS.index(room(module))
    later = {name for name in imports(module) & set(FILES) if ROOMS.index(room(name)) > place}
    assert not later


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: (imports(module) & set(FILES)) - {module} for module in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES)  # raises CycleError with the circle


@pytest.mark.parametrize("package", [name for name in SUB_PACKAGES if name not in ("cli", "paper")])
def test_a_sub_package_is_only_its_docstring(package: str) -> None:
    (docstring,) = ast.parse(FILES[package].read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)


def test_no_module_at_the_top_has_the_name_of_a_public_function() -> None:
    # Importing such a module would replace the function.
    assert not PUBLIC_FUNCTIONS & {name.partition(".")[0] for name in FILES}


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_the_tables_need_the_standard_library_only(module: str) -> None:
    outside = {name.split(".")[0] for name in imports(module) - set(FILES)} - {"keras_effnet"}
    assert outside - EXTRAS.get(module, set()) <= sys.stdlib_module_names


def is_tf(module: str) -> bool:
    return module.rpartition(".")[2].startswith("tf_")


@pytest.mark.parametrize("module", sorted(FILES))
def test_the_prefix_tf_means_that_a_file_imports_tensorflow(module: str) -> None:
    tensorflow = {name for name in imports(module) if name.split(".")[0] in ("tensorflow", "tensorflow_datasets")}
    assert bool(tensorflow) == is_tf(module)


def test_importing_the_tf_files_imports_no_tensorflow() -> None:
    modules = import_lines([name for name in MODULES if is_tf(name) and name != USES_KERAS])
    assert python(f"import sys, {modules}; print('tensorflow' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("module", sorted(set(FILES) - {"_keras"}))
def test_only_one_file_decides_which_keras(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in ("keras", "tf_keras")}


def test_importing_the_package_imports_no_keras_and_no_backend() -> None:
    heavy = "{'keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'numpy', 'PIL', 'h5py'}"
    assert python(f"import sys, keras_effnet; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_importing_the_command_line_imports_no_keras_and_no_backend() -> None:
    heavy = "{'keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'PIL', 'h5py'}"
    assert python(f"import sys, keras_effnet.cli; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_the_readers_import_with_keras_and_tensorflow_blocked() -> None:
    modules = import_lines([*READERS, *(name for name in MODULES if room(name) == "weights.formats")])
    code = f"""
import sys
for name in ("keras", "tf_keras", "tensorflow"):
    sys.modules[name] = None
import {modules}
print("imported")
"""
    assert python(code).strip() == "imported"


def test_the_tables_work_with_keras_numpy_and_tensorflow_blocked() -> None:
    code = f"""
import sys
for name in ("keras", "tf_keras", "numpy", "tensorflow"):
    sys.modules[name] = None
import {import_lines(list(STANDARD_LIBRARY_ONLY))}
print(keras_effnet.complexity.complexity(keras_effnet.variants.VARIANTS["b0"]).trainable)
"""
    assert python(code).strip() == "5288548"  # arXiv:1905.11946, Table 2: 5.3M


@pytest.mark.builders
@pytest.mark.skipif(find_spec("jax") is None, reason="jax, a backend to import with, is not installed")
def test_everything_imports_with_tensorflow_blocked() -> None:
    code = f"""
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None
import {import_lines([name for name in MODULES if name != "__main__" and not needs_extra(name)])}
print("imported")
"""
    assert python(code).strip() == "imported"


def test_dir_lists_every_export_and_every_export_resolves() -> None:
    assert set(keras_effnet.__all__) <= set(dir(keras_effnet))
    missing = [name for name in keras_effnet.__all__ if not hasattr(keras_effnet, name)]
    assert not missing


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="EfficientNetB9"):
        _ = keras_effnet.EfficientNetB9
