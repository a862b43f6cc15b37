"""Downloads one file over HTTP and resumes where an earlier attempt was cut off (ranges: RFC 9110, section 14)."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from keras_effnet.errors import WeightsError
from keras_effnet.weights.cache import PartialFile, SourceError, UnreachableError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, Retry

ATTEMPTS = 4  # consecutive attempts without progress
FIRST_WAIT = 0.5  # seconds; doubled after each such attempt
LONGEST_WAIT = 60.0  # seconds; if a server asks for more, the next mirror is tried
CONNECT = 3.0  # seconds
MIRROR_CONNECT = 0.5  # seconds, after another server did not answer
CHUNK = 1 << 20  # bytes
WEB_PAGE = "received a web page instead of the file, perhaps from a login page or a proxy"

Show = Callable[[int, int | None], None]


class CutError(Exception):
    """An attempt ended early; a retry after at least `wait` seconds may succeed."""

    def __init__(self, reason: str, wait: float = 0.0, unreachable: UnreachableError | None = None) -> None:
        super().__init__(reason)
        self.wait, self.unreachable = wait, unreachable


@dataclass(frozen=True)
class Limits:
    """How long a download may take.

    Args:
        stall: seconds without data after which an attempt is abandoned.
        total: seconds for everything, including waiting for another process.
        deadline: when `total` is used up, in seconds of `time.monotonic`.
        connect: seconds for a connection.
    """

    stall: float
    total: float
    deadline: float
    connect: float = CONNECT

    @classmethod
    def from_environment(cls) -> "Limits":
        """Read KERAS_EFFNET_STALL_TIMEOUT (30 s) and KERAS_EFFNET_TOTAL_TIMEOUT (6 h), and start the clock.

        Raises:
            WeightsError: one of them is not a positive number of seconds.
        """
        total = _seconds("KERAS_EFFNET_TOTAL_TIMEOUT", 6 * 3600.0)
        return cls(_seconds("KERAS_EFFNET_STALL_TIMEOUT", 30.0), total, monotonic() + total)

    def remaining(self) -> float:
        """Seconds until the deadline.

        Raises:
            SourceError: the deadline has passed.
        """
        seconds = self.deadline - monotonic()
        if seconds <= 0:
            raise SourceError(f"not finished after {self.total:g} s (KERAS_EFFNET_TOTAL_TIMEOUT)")
        return seconds


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:  # sockets do not accept infinity
        raise WeightsError(f"{name} is {text!r}. Expected seconds above 0, as in {name}={default:g}. Set or unset it.")
    return seconds


def resume_download(url: str, part: PartialFile, limits: Limits) -> bool:
    """Complete a partial file, retrying as long as attempts make progress.

    Returns:
        Whether all bytes came in one response. If not, a wrong digest may come from joining bytes of different files.

    Raises:
        SourceError: the source failed or took too long; the bytes received so far are kept.
        OSError: the file cannot be written.
    """
    reached, attempts, retry = part.size(), 0, _new_retry()
    with _progress(url.rsplit("/", 1)[-1]) as show:
        while not part.size() or part.size() != part.load_metadata()[1]:
            attempts += 1
            try:
                return _attempt(url, part, limits, show)
            except CutError as cut:
                if cut.unreachable and attempts == 1:  # without a network, retrying would only take time
                    raise cut.unreachable from cut
                if part.size() > reached:
                    reached, retry = part.size(), _new_retry()
                last = not retry.total
                retry = retry if last else retry.increment()
                wait = max(cut.wait, retry.get_backoff_time())
                if last or wait > min(LONGEST_WAIT, limits.remaining()):
                    raise SourceError(f"{cut} (attempt {attempts}, the last)") from cut
                sleep(wait)
    return False


def _new_retry() -> "Retry":
    """Back-off that doubles, with jitter, so that clients that were cut off together do not all return together."""
    from urllib3 import Retry

    retry = Retry(total=ATTEMPTS, backoff_factor=FIRST_WAIT / 4, backoff_jitter=FIRST_WAIT / 2)
    return retry.increment()  # urllib3 retries at once after the first error; counting one in advance makes it wait


def _attempt(url: str, part: PartialFile, limits: Limits, show: Show) -> bool:
    import requests  # takes a quarter of a second to import, and only downloads need it
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    stall = min(limits.stall, limits.remaining())
    try:
        timeout = min(limits.connect, stall), stall
        with requests.get(url, headers=_headers(part), stream=True, timeout=timeout) as response:
            start, size = _check_response(response, part)
            _receive(response.raw, part, start, size, limits, show)
    except (requests.ReadTimeout, ReadTimeoutError) as error:
        raise CutError(f"received no data for {stall:.3g} s (KERAS_EFFNET_STALL_TIMEOUT)") from error
    except requests.exceptions.SSLError as error:  # a ConnectionError, but retrying does not fix a certificate
        raise SourceError(_innermost(error)) from error
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        raise CutError(_innermost(error), unreachable=_unreachable(error, limits.connect)) from error
    except requests.RequestException as error:
        raise SourceError(_innermost(error)) from error
    return start == 0


def _unreachable(error: Exception, seconds: float) -> UnreachableError | None:
    """The error, if there was no connection at all; None if the server ended one."""
    import requests
    from urllib3.exceptions import NewConnectionError

    if isinstance(error, requests.ConnectTimeout):
        return UnreachableError(f"no answer within {seconds:g} s", silent=True)
    reason = getattr(error.args[0], "reason", None) if error.args else None  # of urllib3's MaxRetryError
    failed = isinstance(error, requests.exceptions.ProxyError) or isinstance(reason, NewConnectionError)
    return UnreachableError(_innermost(error)) if failed else None


def _headers(part: PartialFile) -> dict[str, str]:
    """Request headers: for the rest of the file if a change of the file would be noticed, otherwise for all of it."""
    headers = {"Accept-Encoding": "identity"}  # so that the bytes on disk are those that the server counts
    validator, _ = part.load_metadata()
    if part.size() and (validator or part.hashed):
        headers["Range"] = f"bytes={part.size()}-"
        if validator:
            headers["If-Range"] = validator
    return headers


def _check_response(response: Any, part: PartialFile) -> tuple[int, int | None]:
    """Check status and headers; return the offset at which the body starts, and the size of the whole file."""
    status, headers = response.status_code, response.headers
    answer = f"HTTP {status} {response.reason}"
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response.raw)
        raise CutError(answer + f", Retry-After {wait:.0f} s" * bool(wait), wait)
    if status not in (200, 206, 416):
        raise SourceError(answer)
    if status == 200 and headers.get("Content-Type", "").lower().startswith("text/html"):
        raise SourceError(WEB_PAGE)  # keeps the partial file
    validator, length = _validator(headers), headers.get("Content-Length", "")
    if status == 200:
        part.delete()
        part.save_metadata(validator, int(length) if length.isdigit() else None)
        return 0, part.load_metadata()[1]
    known, size = part.load_metadata()
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    sizes = ("*", str(size)) if size is not None or not given else (given[2],)
    if not given or int(given[1]) != part.size() or validator not in ("", known) or given[2] not in sizes:
        part.delete()
        raise CutError(f"{answer}: not the rest of the partly downloaded file")
    return part.size(), size


def _validator(headers: Mapping[str, str]) -> str:
    """The value for If-Range: a strong ETag, otherwise the modification date, otherwise ""."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _retry_after(response: "BaseHTTPResponse") -> float:
    """Seconds that the server asks clients to wait, 0 without a readable Retry-After header."""
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    try:
        return Retry().get_retry_after(response) or 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _receive(raw: Any, part: PartialFile, start: int, size: int | None, limits: Limits, show: Show) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if size is not None and size - start > free:
        raise OSError(errno.ENOSPC, f"No space left on device, {free:,} bytes are free")
    with part.path.open("ab") as file:
        show(start, size)
        # read1 returns what is available; read would wait for a full chunk, which a slow server could delay for hours.
        while chunk := raw.read1(CHUNK, decode_content=False):
            file.write(chunk)
            file.flush()
            show(file.tell(), size)
            limits.remaining()
        os.fsync(file.fileno())
    if size is not None and part.size() < size:
        raise CutError(f"cut off after {part.size():,} of {size:,} bytes")


@contextmanager
def _progress(name: str) -> Iterator[Show]:
    """A progress bar on standard error, if that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, size: bar.update(task, completed=done, total=size)


def _innermost(error: BaseException) -> str:
    """The message of the original error, without those of requests and urllib3 around it."""
    while True:
        inner = [getattr(error, "reason", None), *reversed(error.args)]
        causes = [cause for cause in inner if isinstance(cause, BaseException)]
        if not causes:
            return str(error).rpartition(">: ")[2].rpartition("): ")[2]
        error = causes[0]
