"""Weight files on this machine: from the cache if they are intact, otherwise downloaded once and verified."""

import errno
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from keras_effnet.errors import OfflineError, WeightsError
from keras_effnet.weights.cache import (
    PartialFile,
    SourceError,
    UnreachableError,
    cache_directories,
    digest_matches,
    find_cached,
    locked,
    offline,
    pin_path,
    pin_unpublished,
    pinned,
)
from keras_effnet.weights.http_transfer import MIRROR_CONNECT, WEB_PAGE, Limits, resume_download
from keras_effnet.weights.registry import Source

Check = Callable[[Path], object]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def reject_unpublished(path: Path) -> None:
    """Default check: rejects any file without a published hash."""
    raise WeightsError("it has no published hash, and no check= of its structure was passed")


def fetch(sources: Sequence[Source], what: str, *, check: Check = reject_unpublished) -> Path:
    """Find a file in the cache, or download it. Concurrent processes download it only once.

    Args:
        sources: the same file from several publishers, tried in order.
        what: what the file is, for error messages.
        check: called with the path of a file without a published digest before its digest is pinned; raises
            `WeightsError` if the structure is wrong.

    Raises:
        WeightsError: every source failed (the message lists each reason), or the cache cannot be written to.
    """
    limits = Limits.from_environment()
    reasons: list[SourceError | WeightsError] = []
    for source in sources:
        try:
            return _fetch_one(source, sources, check, limits)
        except (SourceError, WeightsError) as error:
            reasons.append(error)
            if isinstance(error, UnreachableError) and error.silent:
                limits = replace(limits, connect=MIRROR_CONNECT)
        except OSError as error:
            raise WeightsError(
                f"{what} could not be written to the cache folder {cache_directories()[0]}: {error.strerror or error}. "
                f"Expected a folder with room for {source.filename} from {source.url}. Free some space, set "
                "KERAS_EFFNET_HOME to another folder, or build without pretrained weights: weights=None."
            ) from error
    first = sources[0]
    if all(isinstance(reason, UnreachableError) for reason in reasons):
        hosts = dict.fromkeys(f"{urlsplit(s.url).netloc}: {why}" for s, why in zip(sources, reasons, strict=True))
        hint = "" if "'lite0'" in what else "; lite0 works without a network"
        raise OfflineError(
            f"{what} could not be fetched ({'; '.join(hosts)}){hint}.\n"
            f"Expected {first.url} to answer, or the file {_target(first)} with "
            f"{first.digest or 'the right structure'}.\n"
            "Connect to the network, or put the file there. In Python, weights=None builds without pretrained weights."
        )
    listed = "; ".join(f"{source.url}: {reason}" for source, reason in zip(sources, reasons, strict=True))
    raise WeightsError(
        f"{what} could not be fetched ({listed}). Expected {first.url} to answer, or the file "
        f"{_target(first)} with {first.digest or 'the right structure'}. Connect to the network, put the file there, "
        "or build without pretrained weights: weights=None."
    )


def _target(source: Source) -> Path:
    return cache_directories()[0] / source.filename


def _partial_file(source: Source, *, hashed: bool) -> PartialFile:
    # Two mirrors may use the same file name for different bytes.
    mirror = hashlib.sha256(source.url.encode()).hexdigest()[:8]
    return PartialFile(_target(source).with_name(f"{source.filename}.{mirror}.part"), hashed)


def _fetch_one(source: Source, sources: Sequence[Source], check: Check, limits: Limits) -> Path:
    if found := find_cached(sources):
        return found.path
    if adopted := _adopt(source, check):
        return adopted
    if offline():
        raise UnreachableError("KERAS_EFFNET_OFFLINE forbids the network")
    _target(source).parent.mkdir(parents=True, exist_ok=True)
    with locked(_target(source), limits.remaining()):
        # Another process may have downloaded it in the meantime.
        found = find_cached(sources)
        path = found.path if found else _download(source, check, limits)
    _delete_partial_files(sources)
    return path


def _adopt(source: Source, check: Check) -> Path | None:
    """Check and pin a file without a published digest that the user put into the cache."""
    path = _target(source)
    if source.digest or pinned(path) or not path.is_file():
        return None
    if fault := _find_fault(path, "", check):
        raise SourceError(f"{path}: {fault}")
    pin_unpublished(path)
    return path


def _download(source: Source, check: Check, limits: Limits) -> Path:
    target = _target(source)
    digest = source.digest or pinned(target)
    part = _partial_file(source, hashed=bool(digest))
    if not digest:
        part.delete()  # without a digest, bytes left by an earlier process cannot be trusted
    try:
        fault = _transfer_and_check(source, part, digest, check, limits)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        size = part.load_metadata()[1]
        part.delete()
        needed = f"the file has {size:,} bytes" if size else "the server does not report the size of the file"
        raise OSError(error.errno, f"{error.strerror}; {needed}") from error
    if fault:
        part.delete()
        hint = "" if source.digest or not digest else f", pinned in {pin_path(target)}; delete that to accept a new one"
        raise SourceError(fault + hint)
    part.path.replace(target)
    part.delete()
    if not digest:
        pin_unpublished(target)
    return target


def _transfer_and_check(source: Source, part: PartialFile, digest: str, check: Check, limits: Limits) -> str:
    """Download a file and return what is wrong with it; a resumed download that is wrong is repeated from scratch."""
    in_one_go = resume_download(source.url, part, limits)
    fault = _find_fault(part.path, digest, check)
    if fault and not in_one_go:
        part.delete()
        resume_download(source.url, part, limits)
        fault = _find_fault(part.path, digest, check)
    return fault


def _find_fault(path: Path, digest: str, check: Check) -> str:
    """What is wrong with a file, "" if nothing is."""
    if digest and digest_matches(path, digest):
        return ""
    with path.open("rb") as file:
        if file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            return WEB_PAGE
    if digest:
        return f"the downloaded file does not have {digest}"
    try:
        check(path)
    except WeightsError as error:
        return str(error)
    return ""


def _delete_partial_files(sources: Sequence[Source]) -> None:
    """Delete unfinished downloads of all mirrors, unless another process is using them."""
    for source in sources:
        part = _partial_file(source, hashed=True)
        if part.metadata_path.exists():
            with suppress(SourceError, OSError), locked(_target(source), 0):
                part.delete()
