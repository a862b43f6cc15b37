"""Find image files in folders: links are followed once, and the files that operating systems add are ignored."""

import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

# HEIC needs a Pillow plugin. Without it, an error for the file is better than skipping it.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif", ".heic", ".heif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm"),
)
# Files and folders of macOS, Windows, Linux and Synology; those that begin with a dot are ignored as well.
SYSTEM_FILES = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir"),
)


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or was added by the operating system, by its name.

    Example:
        >>> [is_ignored(name) for name in (".DS_Store", "__MACOSX", "._1.jpg", "Thumbs.db", "1.jpg")]
        [True, True, True, True, False]
    """
    return name.startswith(".") or name.casefold() in SYSTEM_FILES


def normal_name(name: str) -> str:
    """A name in the normal form NFC, in which names are compared: macOS writes accents as separate characters (NFD).

    In the C locale, Python reads accents in file names as undecoded bytes of UTF-8; these are decoded.

    Example:
        >>> normal_name("Cafe" + chr(0x301)) == normal_name(b"Caf\\xc3\\xa9".decode("ascii", "surrogateescape"))
        True
    """
    with suppress(UnicodeError):
        name = name.encode("utf-8", "surrogateescape").decode("utf-8")
    return unicodedata.normalize("NFC", name)


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """List the images in files, folders (recursively, sorted) and patterns such as "photos/*.jpg".

    Links to folders are followed; each folder is listed once. Hidden files and system files are ignored. Nothing else
    is silently dropped: a path that does not exist, a broken link, a folder that cannot be listed or has no images, and
    a pattern without matches are returned unchanged, so that `load_image` raises an error for them.

    Example:
        >>> list(find_images(["missing.jpg"])) == [Path("missing.jpg")]
        True
    """
    # Not pathlib: it raises for impossible file names, and does not accept absolute patterns.
    for path in [os.fspath(path) for path in paths]:
        matches = [] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))  # noqa: PTH110, PTH207
        for match in matches or [path]:
            yield from images_below(Path(match)) if os.path.isdir(match) else [Path(match)]  # noqa: PTH112


def images_below(folder: Path) -> Iterator[Path]:
    """The images in a folder, sorted, then those behind links to other folders; the folder itself if there are none."""
    empty, listed, folders = True, set[str](), [folder]
    while folders:
        start = folders.pop(0)
        links: list[Path] = []
        for path in _walk(start, listed, links):
            empty = False
            yield path
        folders[:0] = links
    if empty:
        yield folder


def _walk(start: Path, listed: set[str], links: list[Path]) -> Iterator[Path]:
    """The images below a folder, without following links to folders; these are added to `links`."""
    if os.path.realpath(start) in listed:
        return
    failed: list[OSError] = []
    for parent, folders, names in os.walk(start, onerror=failed.append):
        here = os.path.realpath(parent)
        inside = [] if here in listed else sorted(name for name in folders if not is_ignored(name))
        linked = [name for name in inside if Path(parent, name).is_symlink()]
        links += [Path(parent, name) for name in linked]
        folders[:] = [name for name in inside if name not in linked]
        if here not in listed:
            listed.add(here)
            yield from (Path(parent, name) for name in sorted(names) if _is_image(parent, name))
    yield from (Path(str(error.filename)) for error in failed)


def _is_image(parent: str, name: str) -> bool:
    if is_ignored(name):
        return False
    # A broken link may have been a folder of photos.
    return Path(name).suffix.lower() in SUFFIXES or (not Path(name).suffix and not Path(parent, name).exists())
