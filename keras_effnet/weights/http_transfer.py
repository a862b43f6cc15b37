"""One file over HTTP into a part on the disk, which goes on where it was cut off (ranges: RFC 9110, section 14)."""

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
from keras_effnet.weights.cache import Part, SourceError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, Retry

ATTEMPTS = 4  # in a row that bring nothing new
FIRST_WAIT = 0.5  # seconds, doubled after every such attempt
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is left
CONNECT = 5.0  # seconds
CHUNK = 1 << 20  # bytes
WEB_PAGE = "a web page came instead of the file, as from a login page or a proxy"

Show = Callable[[int, int | None], None]


class CutError(Exception):
    """An attempt ended early; another one, after `wait` seconds at least, may do better."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Limits:
    """How long a download may take.

    Args:
        stall: seconds without a byte after which an attempt is given up.
        total: seconds for everything, waiting for another process included.
        deadline: when the total is up, in seconds of `time.monotonic`.
    """

    stall: float
    total: float
    deadline: float

    @classmethod
    def from_environment(cls) -> "Limits":
        """Those of KERAS_EFFNET_STALL_TIMEOUT (30 s) and KERAS_EFFNET_TOTAL_TIMEOUT (6 h), the clock started.

        Raises:
            WeightsError: one of them is no number of seconds.
        """
        total = _seconds("KERAS_EFFNET_TOTAL_TIMEOUT", 6 * 3600.0)
        return cls(_seconds("KERAS_EFFNET_STALL_TIMEOUT", 30.0), total, monotonic() + total)

    def remaining(self) -> float:
        """Seconds until the deadline.

        Raises:
            SourceError: it is past.
        """
        seconds = self.deadline - monotonic()
        if seconds <= 0:
            raise SourceError(f"not done after {self.total:g} s (KERAS_EFFNET_TOTAL_TIMEOUT)")
        return seconds


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:  # an endless wait is no time-out: sockets take no infinity
        raise WeightsError(f"{name} is {text!r}. Expected seconds above 0, as in {name}={default:g}. Set or unset it.")
    return seconds


def transfer(url: str, part: Part, limits: Limits) -> bool:
    """Bring a part to its end, in as many attempts as it takes while they bring something new.

    Returns:
        Whether all bytes came in one answer; else they were joined, and a wrong digest may be the joint's fault.

    Raises:
        SourceError: the source does not give the file, or not in time; what came stays in the part.
        OSError: the disk does not take it.
    """
    reached, attempts, retry = part.size(), 0, _new_retry()
    with _progress(url.rsplit("/", 1)[-1]) as show:
        while not part.size() or part.size() != part.recall()[1]:
            attempts += 1
            try:
                return _attempt(url, part, limits, show)
            except CutError as cut:
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


def _attempt(url: str, part: Part, limits: Limits, show: Show) -> bool:
    import requests  # a quarter of a second that only a download needs
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    stall = min(limits.stall, limits.remaining())
    try:
        timeout = min(CONNECT, stall), stall
        with requests.get(url, headers=_headers(part), stream=True, timeout=timeout) as response:
            start, size = _begin(response, part)
            _receive(response.raw, part, start, size, limits, show)
    except (requests.ReadTimeout, ReadTimeoutError) as error:
        raise CutError(f"no byte came for {stall:.3g} s (KERAS_EFFNET_STALL_TIMEOUT)") from error
    except requests.exceptions.SSLError as error:  # a kind of ConnectionError, but a certificate does not heal
        raise SourceError(_innermost(error)) from error
    except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
        raise CutError(_innermost(error)) from error
    except requests.RequestException as error:
        raise SourceError(_innermost(error)) from error
    return start == 0


def _headers(part: Part) -> dict[str, str]:
    """What to ask for: the rest of the part if it can be told that it is the same file's, else everything."""
    headers = {"Accept-Encoding": "identity"}  # the bytes on the disk are those that the server counts
    validator, _ = part.recall()
    if part.size() and (validator or part.hashed):
        headers["Range"] = f"bytes={part.size()}-"
        if validator:
            headers["If-Range"] = validator
    return headers


def _begin(response: Any, part: Part) -> tuple[int, int | None]:
    """Judge an answer by its status and headers: the byte its body starts at, and the size of the whole file."""
    status, headers = response.status_code, response.headers
    answer = f"HTTP {status} {response.reason}"
    if status in (408, 425, 429) or status >= 500:
        wait = _retry_after(response.raw)
        raise CutError(answer + f", Retry-After {wait:.0f} s" * bool(wait), wait)
    if status not in (200, 206, 416):
        raise SourceError(answer)
    if status == 200 and headers.get("Content-Type", "").lower().startswith("text/html"):
        raise SourceError(WEB_PAGE)  # the part, if there is one, is not touched
    validator, length = _validator(headers), headers.get("Content-Length", "")
    if status == 200:
        part.discard()
        part.remember(validator, int(length) if length.isdigit() else None)
        return 0, part.recall()[1]
    known, size = part.recall()
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    sizes = ("*", str(size)) if size is not None or not given else (given[2],)
    if not given or int(given[1]) != part.size() or validator not in ("", known) or given[2] not in sizes:
        part.discard()
        raise CutError(f"{answer}: not the rest of the file that had begun to come")
    return part.size(), size


def _validator(headers: Mapping[str, str]) -> str:
    """What If-Range takes: a strong ETag, else a date, else nothing."""
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


def _receive(raw: Any, part: Part, start: int, size: int | None, limits: Limits, show: Show) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if size is not None and size - start > free:
        raise OSError(errno.ENOSPC, f"No space left on device, {free:,} bytes are free")
    with part.path.open("ab") as file:
        show(start, size)
        # read1 returns what is there: read would wait for a full chunk, and a trickle could outlast the deadline.
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
    """A bar on standard error, if somebody looks at it."""
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
    """What went wrong, without the layers of requests and urllib3 around it."""
    while True:
        inner = [getattr(error, "reason", None), *reversed(error.args)]
        causes = [cause for cause in inner if isinstance(cause, BaseException)]
        if not causes:
            return str(error).rpartition(">: ")[2].rpartition("): ")[2]
        error = causes[0]
