"""What every request passes first: who may send it, how large it may be, and how long it may take.

Source of the check of Host: DNS rebinding; of Origin: cross-site requests of a browser to a local server.
"""

import asyncio
import hmac
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keras_effnet.http_server.failures import Refused, answer_refused, busy
from keras_effnet.http_server.metrics import Metrics
from keras_effnet.http_server.settings import Settings, is_loopback

# These show nothing of the model, and the page asks its reader for the key.
WITHOUT_KEY = ("/", "/health")
# The key in the scope of a request under which its handler leaves the name of its route for the metrics.
ROUTE = "keras_effnet.route"
HEADER_BYTES = 32 * 2**10
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class RequestGuard:
    """ASGI middleware that refuses requests before the application sees them, and counts all of them."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._pending = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, body = time.perf_counter(), 500, _Body(self, receive, self._settings)
        scope[ROUTE] = ["other"]

        async def reply(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_added(message, body)]}
            await send(message)

        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > HEADER_BYTES:
                raise Refused(431, f"The headers are larger than {HEADER_BYTES:,} bytes.")
            self._check(scope)
            body.check_length(Headers(scope=scope))
            await self._app(scope, body, reply)
        except Refused as error:
            await (await answer_refused(Request(scope), error))(scope, receive, reply)
        finally:
            self._pending -= body.size
            self._metrics.add_request(scope[ROUTE][0], status, time.perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        headers, key = Headers(scope=scope), self._settings.api_key
        if key is None:
            self._check_local(headers)
        elif scope["path"] not in WITHOUT_KEY and not hmac.compare_digest(_key(headers), key.encode()):
            raise Refused(
                401,
                "The API key is missing or wrong. Send it as Authorization: Bearer KEY.",
                {"WWW-Authenticate": "Bearer"},
            )

    def _check_local(self, headers: Headers) -> None:
        """Refuse what a web page of another site can send to this machine."""
        host = headers.get("host", "")
        if not is_loopback(_name(host)):
            raise Refused(
                421, f"The Host {host[:100]!r} is not this machine. Expected localhost or a loopback address."
            )
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, f"Requests of {origin[:100]!r} are refused. Expected the page of this server.")
        # Following a link to this server is no such request.
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(403, "Requests of other sites are refused. Expected the page of this server.")

    def reserve(self, size: int) -> None:
        """Add to the bytes of all bodies in progress.

        Raises:
            Refused: they would be too many.
        """
        if self._pending + size > max(self._settings.limits.pending_bytes, self._settings.limits.body_bytes):
            raise busy("The server receives too many bytes at once. Send the request again later.")
        self._pending += size


class _Body:
    """Receives the body of a request, within its limits of size and time."""

    def __init__(self, guard: RequestGuard, receive: Receive, settings: Settings) -> None:
        self._guard, self._receive, self._limits = guard, receive, settings.limits
        self._end = asyncio.get_running_loop().time() + settings.limits.seconds
        self.size, self._read, self.complete = 0, 0, False

    def check_length(self, headers: Headers) -> None:
        """Refuse a body by its headers, and reserve its size."""
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(415, "The body is compressed. Expected a plain one.")
        length = headers.get("content-length", "0")
        self._reserve(int(length) if length.isdecimal() else 0)
        self.complete = length == "0" and "transfer-encoding" not in headers

    def _reserve(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise Refused(413, f"The body has {size:,} bytes or more. Expected at most {self._limits.body_bytes:,}.")
        if size > self.size:
            self._guard.reserve(size - self.size)
            self.size = size

    async def __call__(self) -> Message:
        if self.complete:
            return await self._receive()  # waits until the client disconnects
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError as error:
            raise Refused(408, f"The body did not arrive within {self._limits.seconds:g} seconds.") from error
        self._read += len(message.get("body", b""))
        self._reserve(self._read)
        self.complete = not message.get("more_body", False)
        return message


def _added(message: Message, body: _Body) -> list[tuple[bytes, bytes]]:
    """The headers of every answer. A connection with an unread body is closed: nobody will read the rest."""
    present = {name.lower() for name, _ in message["headers"]}
    extra: dict[str, str] = {} if body.complete else {"connection": "close"}
    named = [(name.encode(), value.encode()) for name, value in (HEADERS | extra).items()]
    return [pair for pair in named if pair[0] not in present]


def _key(headers: Headers) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given: Any = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return given.encode("latin-1", "replace")


def _name(host: str) -> str:
    """The host name of a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
