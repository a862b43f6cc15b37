"""The file names of a run, and atomic writes: an interrupted write leaves the old file intact."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The files of a training or fine-tuning run.
MODEL = "model.keras"
LABELS = "labels.txt"
REPORT = "report.json"

PREFIX = ".keras_effnet-partial-"
# Temporary folders older than this many seconds (a day) are leftovers of killed processes.
_STALE = 86_400


@contextmanager
def staged(target: Path, *, numbered: bool = False) -> Iterator[Path]:
    """A temporary path that is renamed to `target` if the block succeeds, and deleted otherwise.

    Missing parent folders are created.

    Args:
        target: the file or folder to replace; with `numbered`, the folder that receives the next numbered version.
        numbered: write a folder and rename it to `target/1`, `target/2`, ...

    Raises:
        OSError: no space left, or no permission.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  # replace a link itself, not the file that it points to
    # A rename needs the same disk, and the folder of numbered versions may be a mount point.
    places = (target, *target.parents) if numbered else target.parents
    existing = next(place for place in places if place.exists())
    _remove_stale(existing)
    temporary = Path(tempfile.mkdtemp(prefix=PREFIX, dir=existing))
    try:
        part = temporary / target.name
        yield part
        target.parent.mkdir(parents=True, exist_ok=True)
        if numbered:
            _rename_to_next_number(part, target)
        else:
            part.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    for old in folder.glob(f"{PREFIX}*"):
        # Another process may be removing it too.
        with suppress(FileNotFoundError):
            if time.time() - old.lstat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)


def _rename_to_next_number(part: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    while True:
        number = 1 + latest(folder)
        try:
            part.rename(folder / str(number))
        except OSError:
            # Retry if another process has just taken the number: the rename fails on a folder that is not empty.
            if latest(folder) < number:
                raise
        else:
            return


def latest(folder: Path) -> int:
    """The highest number among the names in a folder, 0 if there is none.

    Example:
        >>> latest(Path("a folder that does not exist"))
        0
    """
    newest = latest_folder(folder)
    return int(newest.name) if newest else 0


def latest_folder(folder: Path) -> Path | None:
    """The entry with the highest number as its name; like TensorFlow Serving, accepts 0001 as well as 1."""
    paths = [path for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
    return max(paths, key=lambda path: int(path.name), default=None)
