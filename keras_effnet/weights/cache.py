"""The cache folders of weight files: partial downloads, locks, pinned digests, and how to find a file."""

import errno
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keras_effnet.artifacts import staged
from keras_effnet.weights.registry import Source

log = logging.getLogger("keras_effnet")


class LocalFile(NamedTuple):
    """A weight file on this machine that has the expected digest.

    Args:
        path: of the file.
        digest: its whole digest, in the algorithm in which it was published: "sha256:..." or "md5:...".
    """

    path: Path
    digest: str


class SourceError(Exception):
    """A source failed in a way that a retry would not fix."""


class UnreachableError(SourceError):
    """No connection to a server; `silent` if it did not answer in time, otherwise it failed at once."""

    def __init__(self, reason: str, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


@dataclass(frozen=True)
class PartialFile:
    """A download in progress: the bytes received so far, and what the server reported about the file.

    Args:
        path: of the bytes.
        hashed: whether the finished file is checked against a digest, which would reveal bytes of two files joined.
    """

    path: Path
    hashed: bool

    @property
    def metadata_path(self) -> Path:
        """Where the server's validator and the file's size are saved."""
        return self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def save_metadata(self, validator: str, size: int | None) -> None:
        """Save the validator (ETag or date) and the total size of the file."""
        self.metadata_path.write_text(json.dumps({"validator": validator, "size": size}), encoding="utf-8")

    def load_metadata(self) -> tuple[str, int | None]:
        """The saved validator and size, ("", None) if there are none."""
        try:
            metadata = json.loads(self.metadata_path.read_text(encoding="utf-8"))
            return str(metadata["validator"]), metadata["size"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # missing, or truncated by a power failure
            return "", None

    def delete(self) -> None:
        """Delete the bytes, then the metadata."""
        self.path.unlink(missing_ok=True)
        self.metadata_path.unlink(missing_ok=True)


@contextmanager
def locked(target: Path, timeout: float) -> Iterator[None]:
    """Hold the lock of a file. The operating system releases it when the process ends, even if it is killed."""
    import filelock

    lock = filelock.FileLock(f"{target}.lock")
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout as error:
        raise SourceError(
            f"another process still held {target}.lock after {timeout:.0f} s (KERAS_EFFNET_TOTAL_TIMEOUT)"
        ) from error
    except NotImplementedError as error:
        raise OSError(errno.ENOLCK, "the file system does not support locks") from error
    try:
        yield
    finally:
        # Before the release: a process that opened the file meanwhile notices that it is gone, and tries again.
        with suppress(OSError):  # Windows does not delete an open file
            Path(lock.lock_file).unlink()
        lock.release()


def pin_path(path: Path) -> Path:
    """Where the digest of a file is pinned: next to it."""
    return path.with_name(path.name + ".sha256")


def pinned(path: Path) -> str:
    """The digest pinned when the file was first downloaded, "" if there is none."""
    try:
        return "sha256:" + pin_path(path).read_text(encoding="utf-8", errors="replace").partition(" ")[0]
    except (FileNotFoundError, NotADirectoryError):
        return ""


def pin(path: Path) -> str:
    """Save the sha256 of a file next to it; from then on the file is checked against it."""
    digest = compute_digest(path).partition(":")[2]
    with staged(pin_path(path)) as draft:
        draft.write_text(f"{digest}  {path.name}\n", encoding="utf-8")  # the format of sha256sum --check
    return digest


def pin_unpublished(path: Path) -> None:
    """Pin a file without a published digest, after its structure was checked, and log a warning."""
    log.warning("%s has no published hash. Its structure was checked, and its sha256 %s is pinned.", path, pin(path))


def cache_directories() -> list[Path]:
    """The folders of weight files: KERAS_EFFNET_HOME if set (written to), then Keras's own cache, `~/.keras/models`.

    Without a home folder, Keras's cache is in the system's temporary folder.
    """
    keras_home = Path(os.environ.get("KERAS_HOME") or _home() / ".keras") / "models"
    ours = os.environ.get("KERAS_EFFNET_HOME")
    return [Path(ours), keras_home] if ours else [keras_home]


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the system does not know the user
        return Path(tempfile.gettempdir())


def offline() -> bool:
    """Whether KERAS_EFFNET_OFFLINE forbids the network."""
    return os.environ.get("KERAS_EFFNET_OFFLINE", "").lower() in ("1", "true", "yes")


def compute_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file, as in "sha256:0123..."."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def verify_digest(path: Path, digest: str) -> LocalFile | None:
    """Hash a file once and compare.

    Args:
        path: of the file.
        digest: the expected digest, as in `Source`: "sha256:...", "md5:..." or "sha256-prefix:...".

    Returns:
        The file with its whole digest, or None if the digest differs.

    Raises:
        OSError: the file cannot be read.
    """
    algorithm, _, expected = digest.partition(":")
    found = compute_digest(path, algorithm.removesuffix("-prefix"))
    digits = found.partition(":")[2]
    matches = digits.startswith(expected) if algorithm.endswith("-prefix") else digits == expected
    return LocalFile(path, found) if matches else None


def digest_matches(path: Path, digest: str) -> bool:
    """Whether a file has the digest of a `Source`."""
    return verify_digest(path, digest) is not None


def find_cached(sources: Sequence[Source]) -> LocalFile | None:
    """The first of these files that is in a cache folder and has the right digest, published or pinned."""
    for source in sources:
        for directory in cache_directories():
            path = directory / source.filename
            try:
                digest = source.digest or pinned(path)
                if digest and path.is_file() and (found := verify_digest(path, digest)):
                    return found
            except OSError:  # an unreadable file counts as missing
                continue
    return None
