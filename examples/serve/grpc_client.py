"""Label photos with TensorFlow Serving over gRPC. All files are sent in one request.

command   python examples/serve/grpc_client.py --model efficientnet photo.jpg ...
expected  the best labels of each photo; "invalid" for a file that is not an image
needs     a running server (see README.md); pip install grpcio; pip install --no-deps tensorflow-serving-api, which
          would otherwise install a second TensorFlow
"""

import argparse
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--model", default="efficientnet")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds")
    options = parser.parse_args()

    request = predict_pb2.PredictRequest()
    request.model_spec.name = options.model
    request.model_spec.signature_name = "image_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([path.read_bytes() for path in options.photos]))
    request.output_filter.extend(["classes", "scores"])  # not the probabilities

    with grpc.insecure_channel(options.server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=options.timeout).outputs

    classes, scores = (tf.make_ndarray(outputs[key]) for key in ("classes", "scores"))
    for path, labels, values in zip(options.photos, classes, scores, strict=True):
        for label, value in zip(labels, values, strict=True):
            print(f"{path}\t{value:.4f}\t{label.decode()}")


if __name__ == "__main__":
    main()
