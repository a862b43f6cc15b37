"""Runs the server: one process, or several that accept connections from the same port."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_effnet.http_server.app import create_app
from keras_effnet.http_server.metrics import SLOTS
from keras_effnet.http_server.request_guard import HEADER_BYTES
from keras_effnet.http_server.settings import Settings
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.model_source import find_model

log = logging.getLogger("keras_effnet")

MOST_CONNECTIONS = 1000
HEADER_SECONDS = 10.0


class Protocol(H11Protocol):
    """Uvicorn's HTTP protocol, which waits for the headers of a connection's first request only for a limited time."""

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(HEADER_SECONDS, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.close()


class Server:
    """A model and an open port.

    Args:
        settings: what to serve, and where.

    Raises:
        ImportError, ValueError, WeightsError: as `Predictor` does.
        OSError: the server cannot listen on the address.
    """

    def __init__(self, settings: Settings) -> None:
        self._listener = listen(settings)
        host, port = self._listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            if settings.workers > 1:
                self._run: Callable[[Callable[[], object]], None] = _Workers(settings, self._listener).run
            else:
                self._run = partial(run_app, create_app(settings), settings, self._listener)
        except BaseException:
            self._listener.close()
            raise

    def run(self, ready: Callable[[str], object]) -> None:
        """Serve until SIGTERM or Ctrl-C; requests in progress are answered first.

        Args:
            ready: called with the server's address when it takes requests.

        Raises:
            ChildProcessError: a worker process could not start.
        """
        try:
            self._run(lambda: ready(self.address))
        finally:
            self._listener.close()


def listen(settings: Settings) -> socket.socket:
    """Open the port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(
            f"The server cannot listen on {settings.host}, port {settings.port}: {error.strerror}. Expected a free "
            "port of this machine. Choose another port.",
        ) from error
    return listener


def run_app(app: Any, settings: Settings, listener: socket.socket, ready: Callable[[], object]) -> None:
    """Run an application in this process until SIGTERM or Ctrl-C."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every malformed form
    # Pillow warns of large photos, which are refused anyway.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    with _ending_quietly():
        asyncio.run(make_server(app, settings, ready).serve(sockets=[listener]))


def make_server(app: Any, settings: Settings, ready: Callable[[], object]) -> uvicorn.Server:
    """Uvicorn's server with our limits."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        log_config=None,  # the handlers are those of the process
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 5,
    )
    return _Server(config, ready)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready
        parent = multiprocessing.parent_process()
        if parent is not None:
            threading.Thread(target=self._follow, args=(parent,), daemon=True).start()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()

    def _follow(self, parent: Any) -> None:
        """End when the process that started this worker has ended."""
        parent.join()
        self.should_exit = True


@contextmanager
def _ending_quietly() -> Any:
    """Uvicorn raises the signal that ended it once more; here the process has ended as it was asked to."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Workers:
    """Processes that serve the same port; one that dies is replaced."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings, self._listener = settings, listener
        self._context = multiprocessing.get_context("spawn")
        self._counters = self._context.RawArray("d", SLOTS * settings.workers)
        self._ready = [self._context.Event() for _ in range(settings.workers)]
        self._stopping = False
        # Exported once, before the workers start. It lives as long as this process.
        self._model = find_model(settings.model, settings.engine, settings.weights)
        self._processes: list[BaseProcess] = []

    def run(self, ready: Callable[[], object]) -> None:
        """Start the workers, and wait until they have ended after a signal."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._processes = [self._start(i) for i in range(self._settings.workers)]
        try:
            self._wait_until_ready()
            if not self._stopping:
                ready()
            while not self._stopping:
                wait([process.sentinel for process in self._processes], timeout=1)
                self._replace_dead()
        finally:
            self._end()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._processes:
            with suppress(ValueError, AttributeError):
                process.terminate()

    def _start(self, i: int) -> BaseProcess:
        source = None if isinstance(self._model, Classifier) else self._model.export.path
        arguments = (self._settings, source, self._listener, self._counters, i, self._ready[i])
        process = self._context.Process(target=_work, args=arguments, name=f"keras-effnet-{i}")
        process.start()
        return process

    def _wait_until_ready(self) -> None:
        for process, event in zip(self._processes, self._ready, strict=True):
            while not event.wait(0.1) and not self._stopping:
                if process.exitcode is not None:
                    raise ChildProcessError(
                        f"A worker process ended with status {process.exitcode} before it took requests."
                    )

    def _replace_dead(self) -> None:
        for i, process in enumerate(self._processes):
            if process.exitcode is not None and not self._stopping:
                log.warning("Worker %d ended with status %d and is replaced.", i, process.exitcode)
                time.sleep(1)
                self._processes[i] = self._start(i)

    def _end(self) -> None:
        self._stop()
        end = time.monotonic() + self._settings.limits.seconds + 10
        for process in self._processes:
            process.join(max(0.1, end - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()


def _work(
    settings: Settings, source: str | Path | None, listener: socket.socket, counters: Any, worker: int, ready: Any
) -> None:
    """Serve from a worker process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    app = create_app(settings, source=source, counters=counters, worker=worker)
    run_app(app, settings, listener, ready.set)
