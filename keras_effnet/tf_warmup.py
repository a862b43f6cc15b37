"""Requests that a model server answers for itself before its first client comes: TensorFlow Serving's warm-up file.

Source of the messages: github.com/tensorflow/serving, tensorflow_serving/apis/{prediction_log,predict,model}.proto.
They are few and TensorFlow does not carry them, so they are written here; a test compares them with the official ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write_warmup(folder: Path, requests: list[bytes]) -> None:
    """Write serialised `PredictionLog` messages to where the model server looks for them.

    Args:
        folder: the SavedModel.
        requests: from `prediction_log`, at most 1000.
    """
    import tensorflow as tf

    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for request in requests:
            file.write(request)


def prediction_log(name: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """Serialise a `PredictionLog` that holds one `PredictRequest`.

    Args:
        name: of the model.
        signature: of the model.
        inputs: `TensorProto` messages by the names of the signature's inputs.
    """
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, tensor in inputs.items():
        request += _field(2, _field(1, key.encode()) + _field(2, tensor.SerializeToString(deterministic=True)))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, value: bytes) -> bytes:
    """A field of protobuf's wire type 2: its key, its length, its bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    head = b""
    while value >= 0x80:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])
