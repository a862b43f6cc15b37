"""Label photos with TensorFlow Serving over gRPC.

command   python examples/serve/grpc_client.py --model efficientnet photo.jpg ...
expected  the best labels of each photo; "invalid" for a file that is not an image
needs     a running server (see README.md); pip install grpcio; pip install --no-deps tensorflow-serving-api, which
          would otherwise install a second TensorFlow
"""

import argparse
import time
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def predict(stub: Any, model: str, files: list[bytes], timeout: float, tries: int = 5) -> list[Any]:
    """Labels and scores of several files: in smaller pieces if the server demands it, and again if it is busy.

    With batching, TensorFlow Serving never answers a request without photos.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "labels"  # image_bytes returns the probabilities of all classes too
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
    for i in range(tries):
        try:
            outputs = stub.Predict(request, timeout=timeout).outputs
        except grpc.RpcError as error:
            if "larger than maximum input batch size" in error.details() and len(files) > 1:
                half = len(files) // 2
                return [row for piece in (files[:half], files[half:]) for row in predict(stub, model, piece, timeout)]
            if error.code() is not grpc.StatusCode.UNAVAILABLE or i == tries - 1:
                raise SystemExit(f"The server answered {error.code().name}: {error.details()}") from error
            time.sleep(2**i / 4)  # the queue is full
        else:
            break
    return list(zip(*(tf.make_ndarray(outputs[key]) for key in ("classes", "scores")), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for each request")
    parser.add_argument("--batch-size", type=int, default=8, help="photos in a request")
    options = parser.parse_args()

    with grpc.insecure_channel(options.server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for start in range(0, len(options.photos), options.batch_size):
            paths = options.photos[start : start + options.batch_size]
            files = [path.read_bytes() for path in paths]
            rows = predict(stub, options.model, files, options.timeout)
            for path, (labels, scores) in zip(paths, rows, strict=True):
                for label, score in zip(labels, scores, strict=True):
                    print(f"{path}\t{score:.4f}\t{label.decode()}")


if __name__ == "__main__":
    main()
