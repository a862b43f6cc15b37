"""Imports run one way, down the list of floors, and cost nothing until a name needs them."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import keras_effnet

# A file may import only from the files before it.
PAPER = (
    *("errors", "blocks", "scaling", "shared_grid", "grid"),
    *("normalization", "variants", "complexity", "registry", "layer_names"),
    *("rival_tables", "mnas", "proxies", "study"),
    *("paper_data", "paper_report", "recipes", "augment_policies"),
    *("clusters", "shares"),
)
READERS = (
    "arrays",
    "pickles",
    "torch_files",
    "torch_writer",
    "h5_files",
    "safetensors_files",
    "keras_names",
    "frameworks",
    "keras_config",
    "tf_bundle",
    "tf_names",
    "tf_checkpoints",
    "checkpoints",
    "parts",
    "resume",
    "download",
    "flat",
    "sets",
    *("staging", "sidecar"),
)
GRAPH = (
    *("_keras", "layers", "network", "introspection", "weights", "saving", "models", "imagenet", "bicubic", "images"),
    *("layer_graph", "twins", "fusion", "rounding", "quantized"),
    *("heads", "overlays"),
    "transfer",
    *("schedules", "optimizers", "ema", "positions", "odd_files", "run_state", "saver"),
    "jax_distribute",
    *("latency", "budget", "rivals", "paper_tables", "paper_transfer", "paper_figures", "paper_plots", "paper"),
)
ENGINE = (
    "tf_data",
    "tf_operations",
    "tf_augment",
    *("tf_crops", "tf_sources", "tf_pipeline", "tf_blame"),
    *("tf_distribute", "tf_processes", "tf_batch_norm", "tf_rmsprop"),
    "tf_gradcam",
    *("tf_convert", "tf_calibrate", "tf_quantize", "tf_saved_model"),
    *("tf_headers", "tf_decode", "tf_warmup", "tf_export"),
    "tf_steady",
)
FACE = (
    *("engines", "classifier", "classify", "matching", "labelled", "evaluate"),
    *("export_check", "export_writers", "exporting", "export_cache", "predictor", "result_files"),
    *("activation_maps", "figure7"),
    "training_speed",
    *("training_photos", "photo_views", "run_plots", "run_report", "run_folder"),
    *("finetune_settings", "finetune_run", "finetune_phases", "finetuning"),
    *("photo_arrays", "short_training"),
    *("training_data", "training_plan", "training_devices", "fitting", "training"),
    *(
        "terminal",
        "cli_classify",
        "cli_export",
        "cli_explain",
        "cli_evaluate",
        "cli_finetune",
        "cli_search",
        "cli_train",
        "cli_summary",
        "cli_weights",
        "paper_cli",
    ),
    *("cli", "__main__"),
)
ORDER = (*PAPER, *READERS, *GRAPH, *ENGINE, *FACE)

# What a file of the paper floor asks for only when it is used: packages of an extra.
EXTRAS = {"shared_grid": {"optuna", "sqlalchemy"}, "study": {"optuna"}}

PACKAGE = Path(keras_effnet.__file__).parent
FILES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports(module: str) -> set[str]:
    """Every module that a file imports, wherever in the file; `from keras_effnet import x` counts as keras_effnet.x."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "keras_effnet":
            names |= {f"keras_effnet.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or ".")
    return names


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_file_has_its_place_in_the_order() -> None:
    assert sorted(ORDER) == FILES


@pytest.mark.parametrize("module", FILES)
def test_a_file_imports_only_from_the_files_before_it(module: str) -> None:
    inside = {name.split(".")[1] for name in imports(module) if name.startswith("keras_effnet.")} & set(FILES)
    assert inside <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", PAPER)
def test_the_paper_floor_needs_the_standard_library_only(module: str) -> None:
    outside = {name.split(".")[0] for name in imports(module)} - {"keras_effnet"}
    assert outside - EXTRAS.get(module, set()) <= sys.stdlib_module_names


@pytest.mark.parametrize("module", FILES)
def test_only_the_engine_imports_tensorflow_and_only_when_it_is_used(module: str) -> None:
    tensorflow = {name for name in imports(module) if name.split(".")[0] in ("tensorflow", "tensorflow_datasets")}
    assert not tensorflow or module in ENGINE


def test_importing_the_engine_imports_no_tensorflow() -> None:
    # All but what works on layers of Keras: Keras imports its backend.
    modules = ", ".join(f"keras_effnet.{name}" for name in ENGINE if name != "tf_calibrate")
    assert python(f"import sys, {modules}; print('tensorflow' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("module", [name for name in FILES if name != "_keras"])
def test_only_one_file_decides_which_keras(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] in ("keras", "tf_keras")}


def test_importing_the_package_imports_no_keras_and_no_backend() -> None:
    heavy = "{'keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'numpy', 'PIL', 'h5py'}"
    assert python(f"import sys, keras_effnet; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_importing_the_command_line_imports_no_keras_and_no_backend() -> None:
    heavy = "{'keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'PIL', 'h5py'}"
    assert python(f"import sys, keras_effnet.cli; print(sorted({heavy} & set(sys.modules)))").strip() == "[]"


def test_the_readers_import_with_keras_and_tensorflow_blocked() -> None:
    modules = ", ".join(f"keras_effnet.{name}" for name in READERS)
    code = f"""
import sys
for name in ("keras", "tf_keras", "tensorflow"):
    sys.modules[name] = None
import {modules}
print("imported")
"""
    assert python(code).strip() == "imported"


def test_the_paper_floor_works_with_keras_numpy_and_tensorflow_blocked() -> None:
    modules = ", ".join(f"keras_effnet.{name}" for name in PAPER)
    code = f"""
import sys
for name in ("keras", "tf_keras", "numpy", "tensorflow"):
    sys.modules[name] = None
import {modules}
print(keras_effnet.complexity.complexity(keras_effnet.variants.VARIANTS["b0"]).trainable)
"""
    assert python(code).strip() == "5288548"  # arXiv:1905.11946, Table 2: 5.3M


@pytest.mark.builders
@pytest.mark.skipif(find_spec("jax") is None, reason="jax, a backend to import with, is not installed")
def test_the_graph_floor_imports_with_tensorflow_blocked() -> None:
    modules = ", ".join(f"keras_effnet.{name}" for name in (*READERS, *GRAPH))
    code = f"""
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
sys.modules["tensorflow"] = None
import {modules}
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
