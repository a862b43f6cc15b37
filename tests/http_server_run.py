"""The HTTP server in a thread of the tests' process, and a plain client for it."""

import asyncio
import http.client
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from keras_effnet.http_server.app import create_app
from keras_effnet.http_server.run import listen, make_server
from keras_effnet.http_server.settings import Settings


def png(colour: str = "#ff0000", size: tuple[int, int] = (40, 40), suffix: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, suffix)
    return file.getvalue()


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A server that runs."""

    port: int
    server: Any

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Answer:
        """Send a request over a connection of its own. Underscores in names of headers become hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps(body) if isinstance(body, dict | list) else body
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, data, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def form(self, path: str, *files: tuple[str, bytes], **headers: str) -> Answer:
        """Send files as a form."""
        parts = [
            b'--limit\r\nContent-Disposition: form-data; name="photo"; filename="%s"\r\n\r\n%s\r\n'
            % (name.encode(), data)
            for name, data in files
        ]
        kind = {"Content-Type": "multipart/form-data; boundary=limit"}
        return self.ask(path, b"".join([*parts, b"--limit--\r\n"]), **kind, **headers)


@contextmanager
def running(settings: Settings, **options: Any) -> Iterator[Running]:
    """Serve in a thread."""
    listener, ready = listen(settings), threading.Event()
    server = make_server(create_app(settings, **options), settings, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    port = listener.getsockname()[1]
    thread.start()
    try:
        assert ready.wait(60)
        yield Running(port, server)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """Run `keras-effnet serve` on a free port."""
    words = [sys.executable, "-m", "keras_effnet", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"(\S+) at http://127\.0\.0\.1:(\d+) \(Ctrl-C to stop\)\n", line)
            assert found, line
            yield process, Running(int(found[2]), None)
        finally:
            process.kill()
