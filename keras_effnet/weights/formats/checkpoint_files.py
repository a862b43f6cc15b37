"""Finds a TensorFlow checkpoint: in a folder or a SavedModel, by its prefix or one of its files, or in a .tar.gz."""

import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.checkpoint_bundle import Bundle

GZIP_MAGIC = b"\x1f\x8b"
FILES = re.compile(r"\.index$|\.data-\d{5}-of-\d{5}$")
SAVED_MODEL = "saved_model.pb"


def is_tf_checkpoint(path: Path) -> bool:
    """Whether a path is a folder, a SavedModel, or the prefix or a file of a checkpoint."""
    return path.is_dir() or path.name == SAVED_MODEL or _with_index(path) is not None


def _with_index(path: Path) -> Path | None:
    """The prefix of a checkpoint, given as the prefix or as one of its files."""
    prefixes = (path, path.with_name(FILES.sub("", path.name) or path.name))
    return next((each for each in prefixes if each.with_name(each.name + ".index").is_file()), None)


@contextmanager
def open_bundle(path: Path, limit: int) -> Iterator[Bundle]:
    """Open the checkpoint at a path; the files of an archive exist only within the context.

    Args:
        path: as accepted by `is_tf_checkpoint`, or a gzip archive.
        limit: the most bytes that an archive may unpack to.

    Raises:
        WeightsError: there is no checkpoint or more than one, or the archive contains other things.
    """
    if prefix := _with_index(path):
        yield Bundle(prefix)
    elif path.is_dir() or path.name == SAVED_MODEL:
        yield Bundle(_prefix(path if path.is_dir() else path.parent))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _unpack(path, Path(folder), limit)
            yield Bundle(_prefix(Path(folder)), temporary=True)


def _prefix(folder: Path) -> Path:
    """The checkpoint in a folder: the latest one that its file `checkpoint` names, or else the only one."""
    if latest := _latest(folder):
        return latest
    found = sorted(folder.rglob("*.index"))
    if len(found) != 1:
        raise WeightsError(
            f"There are {len(found)} checkpoints in {folder.name!r}. Expected one: *.index with its *.data files. "
            "Pass the prefix of the one you want: its path without '.index'."
        )
    return found[0].with_suffix("")


def _latest(folder: Path) -> Path | None:
    """The checkpoint that TensorFlow's text file `checkpoint` names as the last one, if it lies in the folder."""
    file = folder / "checkpoint"
    if not file.is_file() or file.stat().st_size > 1 << 20:
        return None
    match = re.search(r'^model_checkpoint_path: "([^"\n]+)"', file.read_text("utf-8", "replace"), re.MULTILINE)
    return _with_index(folder / re.split(r"[/\\]", match[1])[-1]) if match else None


def _unpack(archive: Path, folder: Path, limit: int) -> None:
    """Extract the files of a checkpoint, ignoring folders in the archive, up to `limit` bytes."""
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isdir() or not (member.isfile() and FILES.search(name)):
                if member.issym() or member.islnk() or member.isdev():
                    raise WeightsError(_refuse(f"the link or device {member.name[:100]!r}"))
                continue
            if ".." in Path(member.name).parts or Path(member.name).is_absolute() or (folder / name).exists():
                raise WeightsError(
                    _refuse(f"the member {member.name[:100]!r}, which is outside the archive or a duplicate")
                )
            limit -= member.size
            if limit < 0:
                raise WeightsError(_refuse(f"more bytes than the network can need ({name} has {member.size:,})"))
            source = tar.extractfile(member)
            if source is not None:
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def _refuse(what: str) -> str:
    return (
        f"The archive contains {what}. Expected the files of one checkpoint: *.index and *.data-*. It is not the "
        "published archive: download it again."
    )
