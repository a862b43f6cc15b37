"""Label photos with TensorFlow Serving or `keras-effnet serve` over REST, using only the standard library.

command   python examples/serve/rest_client.py --model efficientnet photo.jpg ...
expected  the best labels of each photo; "invalid" for a file that is not an image
needs     a running server (see README.md)
"""

import argparse
import base64
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class TooLargeError(Exception):
    """The server takes fewer photos in a request."""


def send(address: str, files: list[bytes], signature: str, timeout: float) -> list[Any]:
    """The predictions of one request. With batching, TensorFlow Serving never answers a request without photos."""
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310  (the address is the caller's)
            return json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")
        if "larger than maximum input batch size" in reason and len(files) > 1:
            raise TooLargeError from error
        if error.code == 503:  # the queue is full
            raise
        raise SystemExit(f"The server answered {error.code}: {reason}") from error
    except urllib.error.URLError as error:
        raise SystemExit(
            f"There is no server at {address}: {error.reason}. README.md shows how to start one."
        ) from error


def predict(address: str, files: list[bytes], signature: str, timeout: float, tries: int = 5) -> list[Any]:
    """The predictions of several files: in smaller pieces if the server demands it, and again if it is busy."""
    for i in range(tries):
        try:
            return send(address, files, signature, timeout)
        except TooLargeError:
            half = len(files) // 2
            return [
                row for piece in (files[:half], files[half:]) for row in predict(address, piece, signature, timeout)
            ]
        except urllib.error.HTTPError as error:
            time.sleep(float(error.headers.get("Retry-After") or 2**i / 4))
    raise SystemExit(f"The server was busy {tries} times. Try again later.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="http://localhost:8501")
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument(
        "--signature", default="labels", help="image_bytes returns the probabilities of all classes too"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each request")
    parser.add_argument("--batch-size", type=int, default=8, help="photos in a request")
    options = parser.parse_args()

    address = f"{options.server}/v1/models/{options.model}:predict"
    for start in range(0, len(options.photos), options.batch_size):
        paths = options.photos[start : start + options.batch_size]
        files = [path.read_bytes() for path in paths]
        for path, row in zip(paths, predict(address, files, options.signature, options.timeout), strict=True):
            for label, score in zip(row["classes"], row["scores"], strict=True):
                print(f"{path}\t{score:.4f}\t{label}")


if __name__ == "__main__":
    main()
