"""Where the HTTP server listens, what it serves, and its limits."""

import ipaddress
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from keras_effnet.errors import COUNT, Range

SHORTEST_KEY = 16


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client may ask for. A request above a limit is refused before its photos are decoded.

    Args:
        body_bytes: size of the body of a request.
        pending_bytes: size of the bodies of all requests in progress, in each worker.
        photos: photos in a request.
        pixels: pixels in a photo, checked before it is decoded.
        values: numbers, lists and objects in a JSON body, which need up to 20 times the memory of their text.
        waiting: photos that may wait when a request arrives; a full queue answers 503.
        seconds: time to receive a request, and time to answer it.
    """

    body_bytes: int = 64 * 2**20
    pending_bytes: int = 256 * 2**20
    photos: int = 1000
    pixels: int = 50_000_000
    values: int = 4_000_000
    waiting: int = 256
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "pending_bytes", "photos", "pixels", "values", "waiting"):
            COUNT.check(name, getattr(self, name))
        Range(above=0).check("seconds", self.seconds)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to serve a model.

    Args:
        model: the name of a network, or the path of a saved or an exported model.
        engine, weights: as in `Predictor`.
        name: the model's name in the REST API; by default that of the network or file.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        workers: number of processes that answer requests on this port.
        api_key: clients have to send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`. It is required unless the
            address is a loopback address.
        limits: what a client may ask for.

    Raises:
        ValueError: a value is out of its range, or the address needs a key.
    """

    model: str
    engine: str = "auto"
    weights: str | None = None
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8501
    workers: int = 1
    api_key: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        Range(least=0, most=65535, whole=True).check("port", self.port)
        Range(least=1, most=256, whole=True).check("workers", self.workers)
        object.__setattr__(self, "name", self.name or default_name(self.model))
        if not re.fullmatch(r"[\w.+-]{1,100}", self.name, re.ASCII):
            raise ValueError(
                f"name is {self.name!r}. Expected 1 to 100 letters, digits, dots, hyphens or underscores, because the "
                "name is part of addresses."
            )
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(
                f"host is {self.host!r}, which other machines can reach. Expected an API key with such an address. "
                f"Pass a secret of at least {SHORTEST_KEY} characters as api_key=, or listen on 127.0.0.1."
            )
        key = self.api_key
        if key is not None and (len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key):
            raise ValueError(
                f"api_key is a text of {len(key)} characters. Expected at least {SHORTEST_KEY} printable ASCII "
                "characters without spaces."
            )


def default_name(model: str) -> str:
    """The name of a model in addresses: that of its network, file or folder.

    Example:
        >>> default_name("lite0"), default_name("runs/my flowers.tflite")
        ('lite0', 'my_flowers')
    """
    path = Path(model)
    stem = path.parent.name if path.name == "model.keras" and path.parent.name else path.stem
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", stem)[:100] or "model"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


def retry_after(seconds: float) -> str:
    """The header Retry-After: whole seconds, at least one."""
    return str(max(1, math.ceil(seconds)))
