"""Writing so that a cut leaves what was there before: aside first, then renamed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# The files of a training or a fine-tuning run.
MODEL = "model.keras"
LABELS = "labels.txt"
REPORT = "report.json"

PREFIX = ".keras_effnet-partial-"
# Seconds after which what lies aside is nobody's any more: a day.
_STALE = 86_400


@contextmanager
def staged(target: Path, *, numbered: bool = False) -> Iterator[Path]:
    """A place to write to, which becomes `target` if all goes well, and else is gone.

    Args:
        target: a file, which is replaced; or a folder that gets a folder with the next number.
        numbered: whether it is the folder.

    Raises:
        OSError: there is no room, or no permission.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  # a link is replaced where it points from
    # What is renamed has to be on the same disk: the folder that gets the number may be another one's mount point.
    places = (target, *target.parents) if numbered else target.parents
    existing = next(place for place in places if place.exists())
    _sweep(existing)
    aside = Path(tempfile.mkdtemp(prefix=PREFIX, dir=existing))
    try:
        part = aside / target.name
        yield part
        target.parent.mkdir(parents=True, exist_ok=True)
        if numbered:
            _take_next_number(part, target)
        else:
            part.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Take away what processes that were killed have left aside."""
    for old in folder.glob(f"{PREFIX}*"):
        # Another process may be doing the same.
        with suppress(FileNotFoundError):
            if time.time() - old.lstat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)


def _take_next_number(part: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    while True:
        number = 1 + latest(folder)
        try:
            part.rename(folder / str(number))
        except OSError:
            # Somebody else may just have taken the number; the folder then is there, and not empty.
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
    """The one of the highest number among those in a folder; TensorFlow Serving takes 0001 as well as 1."""
    paths = [path for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
    return max(paths, key=lambda path: int(path.name), default=None)
