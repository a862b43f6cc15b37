"""Files of predictions: what they contain, how an interrupted run resumes, and which files are refused.

The references are the readers of the standard library and of pyarrow.
"""

import csv
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keras_effnet.inference.classify import Prediction, entry
from keras_effnet.inference.result_files import open_results

CAT = Prediction("cat.jpg", ((None, "tabby", 0.75), (None, "lynx", 0.25)))
BAD = Prediction("bad.jpg", error="'bad.jpg' is damaged.")
ODD = Prediction('a "new"\nline, \udcff.jpg', ((None, "tabby", 1.0), (None, "lynx", 0.0)))


def paths(file: Path) -> list[str]:
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            return [row["path"] for row in csv.DictReader(lines)]
    if file.suffix == ".jsonl":
        return [json.loads(line)["path"] for line in file.read_text("utf-8").splitlines()]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    return parquet.read_table(file)["path"].to_pylist()


def write(file: Path, *predictions: Prediction) -> frozenset[str]:
    if file.suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with open_results(file, top=2) as results:
        for prediction in predictions:
            results.write(prediction)
    return results.done


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_second_run_appends_to_the_file(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"labels{suffix}"
    assert write(file, CAT, BAD) == frozenset()
    assert write(file, Prediction("dog.jpg", CAT.labels)) == {"cat.jpg", "bad.jpg"}
    assert paths(file) == ["cat.jpg", "bad.jpg", "dog.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("keep", [1, 5, 20, -1])
def test_an_incomplete_last_line_is_replaced(tmp_path: Path, suffix: str, keep: int) -> None:
    file = tmp_path / f"labels{suffix}"
    write(file, CAT)
    whole = file.read_bytes()
    write(file, ODD)
    last = file.read_bytes()[len(whole) :]
    file.write_bytes(whole + last[:keep])
    assert write(file, ODD, BAD) == {"cat.jpg"}
    assert file.read_bytes().startswith(whole + last)
    assert paths(file) == ["cat.jpg", ODD.path, "bad.jpg"]


def test_an_interrupted_parquet_run_resumes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    file = tmp_path / "labels.parquet"
    write(file, BAD)
    cut = ExitStack()
    results = cut.enter_context(open_results(file, top=2))
    results.write(CAT)
    with pytest.raises(KeyboardInterrupt), cut:
        raise KeyboardInterrupt
    assert paths(file) == ["bad.jpg"]
    assert write(file, Prediction("dog.jpg", CAT.labels)) == {"bad.jpg", "cat.jpg"}
    assert paths(file) == ["bad.jpg", "cat.jpg", "dog.jpg"]


def test_parquet_has_no_duplicate_rows_if_its_journal_was_not_deleted(tmp_path: Path) -> None:
    file, journal = tmp_path / "labels.parquet", tmp_path / ".labels.parquet.jsonl"
    write(file, CAT, ODD)
    journal.write_text("".join(json.dumps(entry(prediction)) + "\n" for prediction in (CAT, ODD)))
    write(file, BAD)
    assert paths(file) == ["cat.jpg", ODD.path.replace("\udcff", "\ufffd"), "bad.jpg"]
    assert not journal.exists()


def test_csv_has_columns_for_each_label(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", CAT, BAD)
    with (tmp_path / "a.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert (rows[0]["label_1"], rows[0]["score_1"], rows[0]["label_2"]) == ("tabby", "0.75", "lynx")
    assert (rows[1]["error"], rows[1]["label_1"]) == ("'bad.jpg' is damaged.", "")


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "path,other\nx,1\n"), ("a.csv", "my notes"), ("a.jsonl", "my notes"), ("a.txt", "")]
)
def test_a_file_of_another_program_is_not_changed(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="Expected"), open_results(tmp_path / name, top=2):
        pass
    assert (tmp_path / name).read_text() == content


@pytest.mark.parametrize("name", ["folder.csv", "folder.parquet", "file/labels.jsonl"])
def test_a_folder_or_a_path_below_a_file_is_refused(tmp_path: Path, name: str) -> None:
    for folder in ("folder.csv", "folder.parquet"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=f"{name}.*Expected"), open_results(tmp_path / name, top=1):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_json_lines_with_other_spacing_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"path":"1.jpg","labels":[]}\n')
    with open_results(tmp_path / "a.jsonl", top=1) as results:
        assert results.done == {"1.jpg"}


def test_a_run_without_predictions_leaves_no_header(tmp_path: Path) -> None:
    for top in (5, 3):
        with open_results(tmp_path / "a.csv", top=top) as results:
            assert not results.done
    assert (tmp_path / "a.csv").read_text() == ""


def test_without_pyarrow_the_error_has_the_pip_command(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"), open_results(tmp_path / "a.parquet", top=1):
        pass


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_keeps_the_predictions_of_one_model(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"labels{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    for photo, name in ((CAT, "lite0 1f3a"), (BAD, "exports/lite0.tflite 1f3a")):  # the digest decides
        with open_results(file, top=2) as results:
            results.claim(name, file)
            results.write(photo)
    with (
        open_results(file, top=2) as results,
        pytest.raises(ValueError, match=r"of the model '.* 1f3a'\. Expected the model 'b0 77aa'"),
    ):
        results.claim("b0 77aa", file)
    assert results.models == {"lite0 1f3a", "exports/lite0.tflite 1f3a"}
