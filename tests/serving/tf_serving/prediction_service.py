"""A PredictionService for a SavedModel, for tests: with the messages of TensorFlow Serving, but not its server.

Like the server with batching, it refuses requests that are larger than max_batch_size, and never answers one without
images.
"""

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers `Predict` with the highest version of a model, in a session, as the server does."""

    def __init__(self, model):
        self.name = model.name
        self.version = max(int(folder.name) for folder in model.iterdir() if folder.name.isdigit())
        parameters = (model / str(self.version) / "batching_params.pbtxt").read_text()
        self.largest = int(re.search(r"max_batch_size \{ value: (\d+) \}", parameters)[1])
        graph = tf.Graph()
        self.session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            folder = str(model / str(self.version))
            self.signatures = tf.compat.v1.saved_model.load(self.session, ["serve"], folder).signature_def

    def Predict(self, request, context):  # noqa: N802  (the name is the protocol's)
        spec = request.model_spec
        if spec.name != self.name or (spec.HasField("version") and spec.version.value != self.version):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")
        name = spec.signature_name or "serving_default"
        signature = self.signatures.get(name)
        if signature is None or set(request.inputs) != set(signature.inputs):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"The signature {name!r} or its inputs do not exist.")
        sizes = [tensor.tensor_shape.dim[0].size for tensor in request.inputs.values() if tensor.tensor_shape.dim]
        if sizes == [0]:
            given_up = threading.Event()
            context.add_callback(given_up.set)
            given_up.wait()
        if max(sizes, default=0) > self.largest:
            fault = f"Task size {max(sizes)} is larger than maximum input batch size {self.largest}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault)
        try:
            return self.respond(name, signature, request)
        except (KeyError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:1000])

    def respond(self, name, signature, request):
        feeds = {}
        for key, tensor in request.inputs.items():
            if tensor.dtype != signature.inputs[key].dtype:
                raise ValueError(f"The input {key!r} has another type than the signature says.")
            feeds[signature.inputs[key].name] = tf.make_ndarray(tensor)
        wanted = request.output_filter or signature.outputs
        fetches = {key: signature.outputs[key].name for key in wanted}
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = self.name, name
        response.model_spec.version.value = self.version
        for key, value in self.session.run(fetches, feeds).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response


def serve(model, port=0):
    """Start a service on the loopback interface. Returns its port and the server, which stops when it is deleted."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 1 << 26)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(Path(model)), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


if __name__ == "__main__":
    running, port = serve(sys.argv[1])
    print(port, flush=True)  # noqa: T201
    running.wait_for_termination()
