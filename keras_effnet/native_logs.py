"""Silence for TensorFlow and LiteRT, which write to stderr before they read their log level, or ignore it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# One thread at a time may redirect stderr. Nobody waits for it: a fork may have copied it while it was held.
_REDIRECTED = RLock()


def wants_logs() -> bool:
    """Whether TF_CPP_MIN_LOG_LEVEL asks for the informative lines, with 0 or 1; by default they are hidden."""
    return os.environ.get(LEVEL) in ("0", "1")


@contextmanager
def muted_stderr() -> Iterator[int | None]:
    """Hide what native code writes to stderr inside the block. Python's own messages are hidden as well.

    Yields:
        A file descriptor of the real stderr; None if nothing is hidden.
    """
    if wants_logs() or not _REDIRECTED.acquire(blocking=False):
        yield None
        return
    try:
        with _redirected() as real:
            yield real
    finally:
        _REDIRECTED.release()


@contextmanager
def _redirected() -> Iterator[int | None]:
    try:
        real = os.dup(2)
    except OSError:  # stderr is closed
        yield None
        return
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield real
    finally:
        os.dup2(real, 2)
        os.close(real)


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import a backend without its log lines; TensorFlow reads its level only then."""
    given = os.environ.get(LEVEL)
    with muted_stderr() as real:
        if given is None and real is not None:
            os.environ[LEVEL] = "2"
        try:
            yield
        finally:
            if given is None:
                os.environ.pop(LEVEL, None)
