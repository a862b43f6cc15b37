"""Writing so that a cut leaves what was there before: aside first, then renamed."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".partial-"
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
    existing = next(parent for parent in target.parents if parent.exists())
    _sweep(existing)
    aside = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=existing))
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
    for old in folder.glob(f"{_PREFIX}*"):
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
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)
