"""Files of predictions: CSV, JSON Lines or Parquet. An interrupted run resumes, and skips the photos in the file."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from keras_effnet.artifacts import staged
from keras_effnet.errors import require_packages
from keras_effnet.inference.classify import Prediction, entry

SUFFIXES = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 10_000
JSON_OPENING = '{"path":'


@dataclass
class Results:
    """An open file of predictions.

    Args:
        done: the paths that were already in the file.
        failed: those of them that have an error.
        models: the models that made the predictions in the file.
        append: appends a prediction with the name of its model.
        model: the model that makes the predictions that are written.
    """

    done: frozenset[str]
    failed: frozenset[str]
    models: frozenset[str]
    append: Callable[[Prediction, str], None]
    model: str = ""

    def claim(self, model: str, path: str | os.PathLike[str]) -> None:
        """Say which model makes the predictions that are written.

        Args:
            model: its identity: its name, its engine, and a digest as the last word.
            path: of the file, for the message.

        Raises:
            ValueError: the file contains predictions of another model.
        """
        others = sorted(other for other in self.models if other.split()[-1:] != model.split()[-1:])
        if others:
            raise ValueError(
                f"The file {os.fspath(path)!r} contains predictions of the model {others[0]!r}. Expected the model "
                f"{model!r}, with the same weights, labels and crop. Choose another file, or delete this one."
            )
        self.model = model

    def write(self, prediction: Prediction) -> None:
        """Append a prediction, which is kept even if the run is killed afterwards."""
        self.append(prediction, self.model)


# Whether the photo has failed, and the model.
Row = tuple[bool, str]


def _results(rows: Mapping[str, Row], append: Callable[[Prediction, str], None]) -> Results:
    failed = frozenset(name for name, (has_failed, _) in rows.items() if has_failed)
    return Results(frozenset(rows), failed, frozenset(model for _, model in rows.values()), append)


@contextmanager
def open_results(path: str | os.PathLike[str], top: int) -> Iterator[Results]:
    """Create a file of predictions or append to it. An incomplete last line is removed, and its photo is not in `done`.

    Args:
        path: `*.csv`, one line per photo; `*.jsonl`, one object per photo; or `*.parquet`, which is written at the end:
            until then the predictions are in a hidden file next to it.
        top: the number of labels for each photo.

    Raises:
        ImportError: the file is Parquet and pyarrow is not installed.
        ValueError: the suffix is unknown, the file was not written by this function, or it is a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in range(2):
        ...         with open_results(f"{folder}/labels.jsonl", top=1) as results:
        ...             print(sorted(results.done))
        ...             results.write(Prediction("cat.jpg", ((None, "cat", 1.0),)))
        []
        ['cat.jpg']
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        advice = " For JSON, choose .jsonl: one object per line." if path.suffix.lower() == ".json" else ""
        raise ValueError(
            f"The file {str(path)!r} has an unknown suffix. Expected one of {', '.join(SUFFIXES)}.{advice}"
        )
    if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.parents):
        raise ValueError(
            f"The file {str(path)!r} cannot be written: it is a folder, or one of its parents is a file. Expected a "
            "new file or the file of an earlier run. Choose another path."
        )
    kind = path.suffix.lower()
    opened = _csv(path, top) if kind == ".csv" else _json_lines(path) if kind == ".jsonl" else _parquet(path)
    with opened as results:
        yield results


@contextmanager
def _csv(path: Path, top: int) -> Iterator[Results]:
    head = ",".join(_head(top)) + "\n"
    with _lines(path, _csv_paths, head) as (done, file):
        writer = csv.writer(file, lineterminator="\n")

        def append(prediction: Prediction, model: str) -> None:
            # Write the header lazily: a run without predictions must not leave one that the next run would reject.
            if not file.tell():
                file.write(head)
            writer.writerow(_cells(prediction, model, top))
            file.flush()

        yield _results(done, append)


@contextmanager
def _json_lines(path: Path) -> Iterator[Results]:
    with _lines(path, _json_paths, JSON_OPENING) as (done, file):

        def append(prediction: Prediction, model: str) -> None:
            file.write(json.dumps({**entry(prediction), "model": model}) + "\n")
            file.flush()

        yield _results(done, append)


def _head(top: int) -> list[str]:
    columns = [f"{name}_{i}" for i in range(1, top + 1) for name in ("wnid", "label", "score")]
    return ["path", "error", "model", *columns]


def _cells(prediction: Prediction, model: str, top: int) -> list[Any]:
    labels = list(chain.from_iterable(prediction.labels))
    return [prediction.path, prediction.error, model, *labels, *[None] * (3 * top - len(labels))]


@contextmanager
def _lines(
    path: Path, read: Callable[[Path], tuple[dict[str, Row], int]], opening: str
) -> Iterator[tuple[dict[str, Row], IO[str]]]:
    """The paths in a file of lines, and the file, open at the end of its last complete line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Row] = {}
    length = 0
    if path.exists():
        with path.open("rb") as old:
            start = old.read(len(opening))
        # An incomplete first line is accepted too. Files of other programs are never truncated.
        if start != opening.encode()[: len(start)]:
            raise ValueError(
                f"The file {str(path)!r} does not contain predictions with this number of labels. Expected it to start "
                f"with {opening.strip()}. Choose another file, or delete this one to start again."
            )
        try:
            done, length = read(path)
        except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
            raise _damaged(path) from error
    # Keeps file names that are not valid Unicode.
    with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.truncate(length)
        file.seek(length)
        yield done, file


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"The file {str(path)!r} has lines that are not predictions. Expected only the lines of an earlier run. "
        "Correct the file, or choose another one."
    )


def _json_paths(path: Path) -> tuple[dict[str, Row], int]:
    done: dict[str, Row] = {}
    length = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                row = json.loads(line)
                done[os.fspath(row["path"])] = "error" in row, str(row.get("model", ""))
                length += len(line)
    return done, length


def _csv_paths(path: Path) -> tuple[dict[str, Row], int]:
    done: dict[str, Row] = {}
    length, record = 0, b""
    with path.open("rb") as file:
        for line in file:
            record += line
            # A line break inside quotes is part of a file name.
            if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
                text = record.decode("utf-8", "surrogateescape")
                name, error, model, *_ = next(csv.reader(io.StringIO(text, newline="")))
                # The first line is the header.
                done |= {name: (bool(error), model)} if length else {}
                length, record = length + len(record), b""
    return done, length


@contextmanager
def _parquet(path: Path) -> Iterator[Results]:
    """Predictions are stored as JSON lines until the end, because an incomplete Parquet file cannot be read."""
    require_packages(f"The file {str(path)!r}", "pyarrow", otherwise="or choose a .csv or .jsonl file")
    journal = path.with_name(f".{path.name}.jsonl")
    before = _parquet_paths(path) if path.exists() else {}
    with _json_lines(journal) as results:
        earlier = _results(before, results.append)
        done, failed = results.done | earlier.done, results.failed | earlier.failed
        yield Results(done, failed, results.models | earlier.models, results.append)
    with staged(path) as part, journal.open(encoding="utf-8") as lines:
        rows = (_unicode(json.loads(line)) for line in lines)
        # If an earlier run was killed before it deleted its journal, both files contain the same rows.
        _write_parquet(part, path if before else None, (row for row in rows if row["path"] not in before))
    journal.unlink()


def _schema() -> Any:
    import pyarrow as pa

    label = pa.struct([("wnid", pa.string()), ("label", pa.string()), ("score", pa.float64())])
    return pa.schema(
        [("path", pa.string()), ("error", pa.string()), ("model", pa.string()), ("labels", pa.list_(label))]
    )


def _parquet_paths(path: Path) -> dict[str, Row]:
    import pyarrow.parquet as parquet

    try:
        known = parquet.read_schema(path).equals(_schema())
    except (ValueError, OSError) as error:
        raise _damaged(path) from error
    if not known:
        raise _damaged(path)
    rows = parquet.read_table(path, columns=["path", "error", "model"]).to_pydict()
    columns = zip(rows["path"], rows["error"], rows["model"], strict=True)
    return {name: (error is not None, model or "") for name, error, model in columns}


def _write_parquet(part: Path, before: Path | None, rows: Iterator[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    schema = _schema()
    with parquet.ParquetWriter(part, schema) as writer:
        old: Iterable[Any] = parquet.ParquetFile(before).iter_batches(ROW_GROUP) if before else ()
        for batch in old:
            writer.write_batch(batch)
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_batch(pa.RecordBatch.from_pylist(group, schema))


def _unicode(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"path": os.fsencode(row["path"]).decode("utf-8", "replace")}
