"""Predictions in a CSV, JSON Lines or Parquet file that a cut run goes on with: what is in it is not done again."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from keras_effnet.artifacts import staged
from keras_effnet.inference.classify import Prediction, entry

SUFFIXES = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 10_000
JSON_OPENING = '{"path":'


@dataclass(frozen=True)
class Results:
    """An open file of predictions.

    Args:
        done: the paths that were in it already.
        failed: those of them that have an error.
        write: adds the next prediction; what is written stays, should the run be cut.
    """

    done: frozenset[str]
    failed: frozenset[str]
    write: Callable[[Prediction], object]


def _results(failed: Mapping[str, bool], write: Callable[[Prediction], object]) -> Results:
    """Results from whether each path that is done has failed."""
    return Results(frozenset(failed), frozenset(name for name, yes in failed.items() if yes), write)


@contextmanager
def open_results(path: str | os.PathLike[str], top: int) -> Iterator[Results]:
    """Open a file of predictions, or go on with it; half a last line is done again.

    Args:
        path: `*.csv`, a line a photo; `*.jsonl`, an object a photo; `*.parquet`, complete only in the end: until then
            the predictions are in a hidden file beside it.
        top: labels for each photo.

    Raises:
        ImportError: Parquet without the package pyarrow.
        ValueError: another kind of file, one that was not written by this, or a folder.

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
        raise ValueError(f"The file is {str(path)!r}. Expected a name in {', '.join(SUFFIXES)}. Choose another name.")
    if path.is_dir() or any(parent.exists() and not parent.is_dir() for parent in path.parents):
        raise ValueError(
            f"The file {str(path)!r} cannot be there: it is a folder, or lies in a file. Expected a new file, or one "
            "of an earlier run, in a folder. Choose another name."
        )
    if path.suffix.lower() == ".csv":
        head = ",".join(_head(top)) + "\n"
        with _lines(path, _csv_paths, head) as (done, file):
            writer = csv.writer(file, lineterminator="\n")

            def write(prediction: Prediction) -> None:
                # Not sooner: a run that comes to nothing leaves no head that is in the next one's way.
                if not file.tell():
                    file.write(head)
                writer.writerow(_cells(prediction, top))
                file.flush()

            yield _results(done, write)
    elif path.suffix.lower() == ".jsonl":
        with _lines(path, _json_paths, JSON_OPENING) as (done, file):
            yield _results(done, lambda prediction: (file.write(json.dumps(entry(prediction)) + "\n"), file.flush()))
    else:
        with _parquet(path) as results:
            yield results


def _head(top: int) -> list[str]:
    columns = [f"{name}_{i}" for i in range(1, top + 1) for name in ("wnid", "label", "score")]
    return ["path", "error", *columns]


def _cells(prediction: Prediction, top: int) -> list[Any]:
    labels = list(chain.from_iterable(prediction.labels))
    return [prediction.path, prediction.error, *labels, *[None] * (3 * top - len(labels))]


@contextmanager
def _lines(
    path: Path, read: Callable[[Path], tuple[dict[str, bool], int]], opening: str
) -> Iterator[tuple[dict[str, bool], IO[str]]]:
    """What a file of lines has already, and the file, open at the end of its last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, bool] = {}
    length = 0
    if path.exists():
        with path.open("rb") as old:
            start = old.read(len(opening))
        # Half a first line is ours as well; what is not ours is not cut.
        if start != opening.encode()[: len(start)]:
            raise ValueError(
                f"The file {str(path)!r} does not hold predictions of this kind. Expected it to begin with "
                f"{opening.strip()}, for this number of labels (--top). Give another name, or delete it to begin anew."
            )
        try:
            done, length = read(path)
        except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
            raise _damaged(path) from error
    # Names that are no Unicode come back as they were.
    with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.truncate(length)
        file.seek(length)
        yield done, file


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"The file {str(path)!r} holds lines that are no predictions. Expected those of an earlier run alone. Correct "
        "it, or give another name."
    )


def _json_paths(path: Path) -> tuple[dict[str, bool], int]:
    done: dict[str, bool] = {}
    length = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                row = json.loads(line)
                done[os.fspath(row["path"])] = "error" in row
                length += len(line)
    return done, length


def _csv_paths(path: Path) -> tuple[dict[str, bool], int]:
    done: dict[str, bool] = {}
    length, record = 0, b""
    with path.open("rb") as file:
        for line in file:
            record += line
            # A line break between quotes belongs to a name.
            if record.endswith(b"\n") and record.count(b'"') % 2 == 0:
                text = record.decode("utf-8", "surrogateescape")
                name, error, *_ = next(csv.reader(io.StringIO(text, newline="")))
                # The first line is the head.
                done |= {name: bool(error)} if length else {}
                length, record = length + len(record), b""
    return done, length


@contextmanager
def _parquet(path: Path) -> Iterator[Results]:
    """Predictions are kept as lines of JSON until the end, since half a Parquet file cannot be read."""
    if find_spec("pyarrow") is None:
        raise ImportError(
            f"The file {str(path)!r} is to be Parquet. Expected the package pyarrow. Run pip install pyarrow, or "
            "choose a name in .csv or .jsonl."
        )
    journal = path.with_name(f".{path.name}.jsonl")
    before = _parquet_paths(path) if path.exists() else {}
    with _lines(journal, _json_paths, JSON_OPENING) as (done, file):
        yield _results(
            before | done,
            lambda prediction: (file.write(json.dumps(entry(prediction)) + "\n"), file.flush()),
        )
    with staged(path) as part, journal.open(encoding="utf-8") as lines:
        rows = (_unicode(json.loads(line)) for line in lines)
        # A run that was cut just before the journal's end left both.
        _write_parquet(part, path if before else None, (row for row in rows if row["path"] not in before))
    journal.unlink()


def _schema() -> Any:
    import pyarrow as pa

    label = pa.struct([("wnid", pa.string()), ("label", pa.string()), ("score", pa.float64())])
    return pa.schema([("path", pa.string()), ("error", pa.string()), ("labels", pa.list_(label))])


def _parquet_paths(path: Path) -> dict[str, bool]:
    import pyarrow.parquet as parquet

    try:
        known = parquet.read_schema(path).equals(_schema())
    except (ValueError, OSError) as error:
        raise _damaged(path) from error
    if not known:
        raise _damaged(path)
    rows = parquet.read_table(path, columns=["path", "error"]).to_pydict()
    return {name: error is not None for name, error in zip(rows["path"], rows["error"], strict=True)}


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
