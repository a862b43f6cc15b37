"""Weight files on this machine: from the cache if they are there and whole, else from the network, once for all."""

import errno
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.weights.cache import (
    Part,
    SourceError,
    cache_directories,
    digest_matches,
    find_cached,
    locked,
    offline,
    pin_path,
    pinned,
    trust,
)
from keras_effnet.weights.http_transfer import WEB_PAGE, Limits, transfer
from keras_effnet.weights.registry import Source

Check = Callable[[Path], object]

FULL = (errno.ENOSPC, errno.EDQUOT)


def unchecked(path: Path) -> None:
    """The check of who has none: refuses every file that nobody published a hash of."""
    raise WeightsError("no hash was ever published, and nothing was given to check the structure with (check=)")


def fetch(sources: Sequence[Source], what: str, *, check: Check = unchecked) -> Path:
    """Have the first of these files that can be had whole in the cache, downloaded once however many ask at a time.

    Args:
        sources: in the order to try.
        what: what the files are, for the message.
        check: called with the path of a file that has no published digest, before it is pinned; raises `WeightsError`
            if its structure is wrong.

    Raises:
        WeightsError: none could be had, and why for each; or the cache cannot be written to.
    """
    limits = Limits.from_environment()
    reasons = []
    for source in sources:
        try:
            return _obtain(source, sources, check, limits)
        except (SourceError, WeightsError) as error:
            reasons.append(f"{source.url}: {error}")
        except OSError as error:
            raise WeightsError(
                f"{what} could not be written to the cache folder {cache_directories()[0]}: {error.strerror or error}. "
                f"Expected a folder with room for {source.filename} of {source.url}. Make room, set KERAS_EFFNET_HOME "
                "to another folder, or build without pretrained weights: weights=None."
            ) from error
    first = sources[0]
    raise WeightsError(
        f"{what} could not be fetched ({'; '.join(reasons)}). Expected {first.url} to answer, or the file "
        f"{_target(first)} with {first.digest or 'the right structure'}. Connect to the network, put the file there, "
        "or build without pretrained weights: weights=None."
    )


def _target(source: Source) -> Path:
    return cache_directories()[0] / source.filename


def _part(source: Source, *, hashed: bool) -> Part:
    # Two mirrors may use one file name for different bytes.
    mirror = hashlib.sha256(source.url.encode()).hexdigest()[:8]
    return Part(_target(source).with_name(f"{source.filename}.{mirror}.part"), hashed)


def _obtain(source: Source, sources: Sequence[Source], check: Check, limits: Limits) -> Path:
    if found := find_cached(sources):
        return found.path
    if adopted := _adopt(source, check):
        return adopted
    if offline():
        raise SourceError("KERAS_EFFNET_OFFLINE forbids the network")
    _target(source).parent.mkdir(parents=True, exist_ok=True)
    with locked(_target(source), limits.remaining()):
        # Another process may have downloaded it in the meantime.
        found = find_cached(sources)
        path = found.path if found else _download(source, check, limits)
    _tidy(sources)
    return path


def _adopt(source: Source, check: Check) -> Path | None:
    """A file without a digest that somebody put into the cache by hand: checked and pinned."""
    path = _target(source)
    if source.digest or pinned(path) or not path.is_file():
        return None
    fault = _fault(path, "", check)
    if fault:
        raise SourceError(f"{path}: {fault}")
    trust(path)
    return path


def _download(source: Source, check: Check, limits: Limits) -> Path:
    target = _target(source)
    digest = source.digest or pinned(target)
    part = _part(source, hashed=bool(digest))
    if not digest:
        part.discard()  # what a power failure left of an earlier one could not be told from the file
    try:
        in_one_go = transfer(source.url, part, limits)
        fault = _fault(part.path, digest, check)
        if fault and not in_one_go:
            part.discard()
            transfer(source.url, part, limits)
            fault = _fault(part.path, digest, check)
    except OSError as error:
        if error.errno not in FULL:
            raise
        size = part.recall()[1]
        part.discard()
        needed = f"the file has {size:,} bytes" if size else "the server does not say how large the file is"
        raise OSError(error.errno, f"{error.strerror}; {needed}") from error
    if fault:
        part.discard()
        where = "" if source.digest or not digest else f", pinned in {pin_path(target)}; delete that to trust another"
        raise SourceError(fault + where)
    part.path.replace(target)
    part.discard()
    if not digest:
        trust(target)
    return target


def _fault(path: Path, digest: str, check: Check) -> str:
    """What is wrong with a file, nothing if it is right."""
    if digest and digest_matches(path, digest):
        return ""
    with path.open("rb") as file:
        if file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            return WEB_PAGE
    if digest:
        return f"the file that came does not have {digest}"
    try:
        check(path)
    except WeightsError as error:
        return str(error)
    return ""


def _tidy(sources: Sequence[Source]) -> None:
    """Delete what mirrors left half done, unless another process is at it."""
    for source in sources:
        part = _part(source, hashed=True)
        if part.notes.exists():
            with suppress(SourceError, OSError), locked(_target(source), 0):
                part.discard()
