"""Files of features, `.npz` or `.parquet`, written in shards, so that an interrupted run resumes."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.artifacts import staged
from keras_effnet.curation.features import Embedding
from keras_effnet.errors import require_packages

SUFFIXES = (".npz", ".parquet")
SHARD = 1000  # photos


@dataclass(frozen=True)
class Features:
    """The vectors of many photos.

    Args:
        names: paths or names.
        vectors: float32 (photos, features).
        model: name and fingerprint of the model that computed them.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    model: str


def check_feature_file(path: str | os.PathLike[str]) -> Path:
    """Check the suffix of a file for features, before anything is computed.

    Raises:
        ImportError: pyarrow is needed and not installed.
        ValueError: another suffix, or a folder.
    """
    file = Path(path)
    if file.suffix not in SUFFIXES or file.is_dir():
        raise ValueError(f"The file for features is {str(path)!r}. Expected a name that ends in .npz or .parquet.")
    if file.suffix == ".parquet":
        require_packages("A .parquet file", "pyarrow", otherwise="or write a .npz file")
    return file


def read_features(path: str | os.PathLike[str]) -> Features:
    """Read a file that `write_features` or `keras-effnet embed` wrote. No code in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of features.
    """
    file = check_feature_file(path)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as found:
                return Features(tuple(found["names"].tolist()), found["vectors"], str(found["model"]))
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        model = (table.schema.metadata or {}).get(b"model", b"").decode()
        vectors = np.stack(table["vector"].to_numpy()).astype(np.float32) if table.num_rows else np.zeros((0, 0))
        return Features(tuple(table["name"].to_pylist()), vectors, model)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {str(path)!r}. Make one with keras-effnet embed.") from None
    except Exception as error:  # damaged files raise many types
        raise ValueError(
            f"{str(path)!r} cannot be read as features ({type(error).__name__}). Expected a file written by "
            "keras-effnet embed."
        ) from error


def write_features(path: str | os.PathLike[str], features: Features) -> None:
    """Write features to a `.npz` or `.parquet` file, which is replaced in one step."""
    file = check_feature_file(path)
    with staged(file) as partial:
        if file.suffix == ".npz":
            with partial.open("wb") as opened:
                names = np.array(features.names, dtype=np.str_)
                np.savez(opened, names=names, vectors=features.vectors, model=np.array(features.model))
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            vectors = pa.FixedSizeListArray.from_arrays(features.vectors.ravel(), features.vectors.shape[1] or 1)
            table = pa.table({"name": list(features.names), "vector": vectors}, metadata={"model": features.model})
            pq.write_table(table, partial)


class Shards:
    """The folder of shards beside a file of features that is being written.

    Args:
        path: the file.
        model: name and fingerprint of the model; shards of another model are refused.

    Raises:
        ValueError: the folder contains shards of another model.
    """

    def __init__(self, path: str | os.PathLike[str], model: str) -> None:
        self.file, self.model = check_feature_file(path), model
        self.folder = self.file.with_name(self.file.name + ".parts")
        self.done: dict[str, Path] = {}
        for part in sorted(self.folder.glob("*.npz")):
            found = read_features(part)
            if found.model != model:
                raise ValueError(
                    f"The folder {str(self.folder)!r} contains features of the model {found.model}. Expected those of "
                    f"{model}, with which it was to be resumed. Delete the folder, or choose another file."
                )
            self.done.update(dict.fromkeys(found.names, part))

    def write(self, rows: Iterable[Embedding]) -> Iterator[Embedding]:
        """Write rows with a vector in shards as they pass; what has passed is kept if the iteration stops early."""
        pending: list[Embedding] = []
        try:
            for row in rows:
                if row.vector is not None:
                    pending.append(row)
                if len(pending) >= SHARD:
                    self._flush(pending)
                yield row
        finally:
            self._flush(pending)

    def join(self, names: Iterable[str]) -> Features:
        """Write the file with the vectors of `names`, in this order, and remove the shards."""
        parts = {part: read_features(part) for part in sorted(set(self.done.values()))}
        where = {name: (part, i) for part in parts for i, name in enumerate(parts[part].names)}
        known = [name for name in dict.fromkeys(names) if name in where]
        vectors = [parts[where[name][0]].vectors[where[name][1]] for name in known]
        joined = Features(tuple(known), np.stack(vectors) if vectors else np.zeros((0, 0), np.float32), self.model)
        write_features(self.file, joined)
        shutil.rmtree(self.folder, ignore_errors=True)
        return joined

    def _flush(self, pending: list[Embedding]) -> None:
        if not pending:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{len(set(self.done.values())):06}.npz"
        names = tuple(row.path for row in pending)
        write_features(
            part, Features(names, np.stack([row.vector for row in pending if row.vector is not None]), self.model)
        )
        self.done.update(dict.fromkeys(names, part))
        pending.clear()
