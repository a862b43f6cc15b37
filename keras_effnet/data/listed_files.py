"""Lists of photos as other systems write them: separators, encodings and normal forms of names."""

import csv
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from keras_effnet.image_files import SUFFIXES, normal_name

log = logging.getLogger("keras_effnet")

DELIMITERS = (",", ";", "\t")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(file: Path) -> str:
    """Read a text file in UTF-8 or UTF-16, with or without a byte order mark, or else in cp1252.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: it is not text in one of these encodings.
    """
    data = file.read_bytes()
    if data.startswith(_UTF16):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in data:  # a binary file
            raise
        text = data.decode("cp1252")
        log.warning("The list %r is not UTF-8 and was read as cp1252.", str(file))
        return text


def read_rows(file: Path) -> list[tuple[int, list[str]]]:
    """The non-empty lines of a CSV with their numbers; its cells are separated by commas, semicolons or tabs.

    Raises:
        OSError, UnicodeDecodeError, csv.Error: the file cannot be read.
    """
    text = read_text(file)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.lstrip().partition("\n")[0]))
    return [(number, row) for number, row in enumerate(rows, 1) if any(map(str.strip, row))]


def _delimiter(line: str) -> str:
    for delimiter in DELIMITERS:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
        if len(cells) > 1 and (cells[0].lower() == "path" or cells[0].lower().endswith(SUFFIXES)):
            return delimiter
    return DELIMITERS[0]


def plain_path(name: str) -> str:
    """A relative path for comparisons: with forward slashes, without "./", in the normal form NFC.

    Example:
        >>> plain_path(".\\\\photos\\\\1.jpg")
        'photos/1.jpg'
    """
    return normal_name(os.path.normpath(name.replace("\\", "/")).replace("\\", "/"))


def report_missing(file: Path, missing: Sequence[str], total: int) -> tuple[str, ...]:
    """A note on the photos of a list that do not exist; training leaves them out, as it does unreadable ones.

    Raises:
        ValueError: none of them exists.
    """
    if missing and len(missing) == total:
        raise ValueError(
            f"None of the {total} photos of the list {str(file)!r} exists; the first is {missing[0]}. Expected "
            f"absolute paths, or paths relative to the folder of the list, {str(file.parent)!r}. Correct the paths."
        )
    if not missing:
        return ()
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    shown = ", ".join(missing[:10])
    return (f"{len(missing)} of the {total} photos of the list {str(file)!r} do not exist: {shown}{more}.",)


class Folder:
    """Finds the files that a list names, whatever separators and normal form the list and the disk use.

    Args:
        path: the folder to which the names are relative.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inside: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> Path:
        """The file of this name; if there is none, the path as it is written in the list."""
        written = self.path / name
        if os.path.lexists(written):
            return written
        found = self.path
        for part in Path(name.replace("\\", "/")).parts:
            found /= part if os.path.lexists(found / part) else self._names(found).get(normal_name(part), part)
        return found if os.path.lexists(found) else written

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._inside:
            files = folder.iterdir() if folder.is_dir() else ()
            self._inside[folder] = {normal_name(file.name): file.name for file in files}
        return self._inside[folder]
