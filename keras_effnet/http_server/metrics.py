"""Counters in Prometheus's text format, added up over all worker processes."""

from bisect import bisect_left
from collections.abc import Iterator, MutableSequence

ROUTES = ("page", "classify", "explain", "predict", "status", "health", "metrics", "other")
STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 431, 500, 501, 503, 504, 0)
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_PHOTOS = len(ROUTES) * len(STATUSES)
_WAITING = _PHOTOS + 2
_TIMES = _WAITING + 1
_TIME = len(BOUNDS) + 2  # the buckets, the one without a bound, and the sum
SLOTS = _TIMES + len(ROUTES) * _TIME


class Metrics:
    """The counters of one worker; every worker can read those of all.

    Args:
        values: `SLOTS` numbers for each worker, in memory that the workers share.
        worker: index of this worker, which writes only its own numbers.
        info: labels that describe the model.

    Example:
        >>> metrics = Metrics([0.0] * SLOTS, 0, {"model": "lite0"})
        >>> metrics.add_request("predict", 200, 0.02)
        >>> 'keras_effnet_requests_total{route="predict",status="200"} 1' in metrics.text()
        True
    """

    def __init__(self, values: MutableSequence[float], worker: int, info: dict[str, str]) -> None:
        self._values, self._start, self._info = values, worker * SLOTS, info

    def _add(self, slot: int, value: float) -> None:
        self._values[self._start + slot] += value

    def add_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer, and the time from the request's headers to the end of the answer."""
        row = ROUTES.index(route)
        column = STATUSES.index(status) if status in STATUSES else len(STATUSES) - 1
        self._add(row * len(STATUSES) + column, 1)
        self._add(_TIMES + row * _TIME + bisect_left(BOUNDS, seconds), 1)
        self._add(_TIMES + row * _TIME + _TIME - 1, seconds)

    def add_photos(self, good: int, bad: int) -> None:
        """Count photos that got labels, and photos that could not be read."""
        self._add(_PHOTOS, good)
        self._add(_PHOTOS + 1, bad)

    def set_waiting(self, count: int) -> None:
        """Set the number of photos that wait for the engine or are in it."""
        self._values[self._start + _WAITING] = count

    def text(self) -> str:
        """All metrics in Prometheus's text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        total = [sum(self._values[i::SLOTS]) for i in range(SLOTS)]
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in self._info.items())
        yield from _head("model_info", "gauge", "The model that is served.")
        yield f"keras_effnet_model_info{{{labels}}} 1"
        yield from _head("requests_total", "counter", "Answered requests.")
        for i, route in enumerate(ROUTES):
            for j, status in enumerate(STATUSES):
                count = total[i * len(STATUSES) + j]
                if count:
                    code = status or "other"
                    yield f'keras_effnet_requests_total{{route="{route}",status="{code}"}} {count:.0f}'
        yield from _head("photos_total", "counter", "Photos by result.")
        for i, result in enumerate(("labelled", "unreadable")):
            yield f'keras_effnet_photos_total{{result="{result}"}} {total[_PHOTOS + i]:.0f}'
        yield from _head("photos_waiting", "gauge", "Photos in the queue and in the engine.")
        yield f"keras_effnet_photos_waiting {total[_WAITING]:.0f}"
        yield from _head("request_seconds", "histogram", "Time from the headers of a request to the end of its answer.")
        for i, route in enumerate(ROUTES):
            yield from _histogram(route, total[_TIMES + i * _TIME : _TIMES + (i + 1) * _TIME])


def _histogram(route: str, times: list[float]) -> Iterator[str]:
    *buckets, seconds = times
    if not any(buckets):
        return
    count = 0.0
    for bound, more in zip((*BOUNDS, "+Inf"), buckets, strict=True):
        count += more
        yield f'keras_effnet_request_seconds_bucket{{route="{route}",le="{bound}"}} {count:.0f}'
    yield f'keras_effnet_request_seconds_sum{{route="{route}"}} {seconds:.6f}'
    yield f'keras_effnet_request_seconds_count{{route="{route}"}} {count:.0f}'


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP keras_effnet_{name} {text}", f"# TYPE keras_effnet_{name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
