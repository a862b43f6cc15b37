"""Label photos with TensorFlow Serving over REST, using only the standard library.

command   python examples/serve/rest_client.py --model efficientnet photo.jpg ...
expected  the best labels of each photo; "invalid" for a file that is not an image
needs     a running server (see README.md)
"""

import argparse
import base64
import json
import urllib.request
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="http://localhost:8501")
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    options = parser.parse_args()

    files = [{"image_bytes": {"b64": base64.b64encode(path.read_bytes()).decode()}} for path in options.photos]
    request = urllib.request.Request(  # noqa: S310  (the address is the caller's own)
        f"{options.server}/v1/models/{options.model}:predict",
        json.dumps({"signature_name": "image_bytes", "instances": files}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=options.timeout) as response:  # noqa: S310
        predictions = json.load(response)["predictions"]

    for path, prediction in zip(options.photos, predictions, strict=True):
        for label, score in zip(prediction["classes"], prediction["scores"], strict=True):
            print(f"{path}\t{score:.4f}\t{label}")


if __name__ == "__main__":
    main()
