"""Files that TensorFlow Serving reads next to a SavedModel: batching parameters and warm-up requests.

Source of the messages: github.com/tensorflow/serving, tensorflow_serving/apis/{prediction_log,predict,model}.proto.
TensorFlow does not contain these few messages, so they are encoded here; a test compares them with the official ones.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

BATCHING_FILE = "batching_params.pbtxt"
# The largest batch of 224 x 224 images: larger ones gain little on a CPU, and delay the first image.
LARGEST_BATCH = 32
WARMUP_FILE = Path("assets.extra", "tf_serving_warmup_requests")


def write_warmup(folder: Path, requests: list[bytes]) -> None:
    """Write serialised `PredictionLog` messages to the file that the model server reads.

    Args:
        folder: the SavedModel.
        requests: results of `prediction_log`, at most 1000.
    """
    import tensorflow as tf

    path = folder / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for request in requests:
            file.write(request)


def prediction_log(name: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    """Serialise a `PredictionLog` with one `PredictRequest`.

    Args:
        name: the name of the model.
        signature: the name of the signature.
        inputs: `TensorProto` messages by the names of the signature's inputs.
    """
    model_spec = _field(1, name.encode()) + _field(3, signature.encode())
    request = _field(1, model_spec)
    for key, tensor in inputs.items():
        request += _field(2, _field(1, key.encode()) + _field(2, tensor.SerializeToString(deterministic=True)))
    predict_log = _field(1, request)
    return _field(6, predict_log)


def _field(number: int, value: bytes) -> bytes:
    """A protobuf field of wire type 2: key, length, bytes."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    head = b""
    while value >= 0x80:
        head += bytes([value & 0x7F | 0x80])
        value >>= 7
    return head + bytes([value])


def batching_parameters(size: int, *, cores: int | None = None) -> str:
    """The batching parameters of TensorFlow Serving for a model, in protobuf's text format.

    Batches are not padded to a few sizes: padding a batch without images would end the server. A request with more
    images than `max_batch_size` is rejected (`INVALID_ARGUMENT`). The queue holds two batches for each thread; if it is
    full, a request is rejected at once (`UNAVAILABLE`) instead of being answered too late.

    Args:
        size: side of the model's images in pixels. The larger the images, the smaller the batches.
        cores: the number of cores of the server, by default those of this machine.

    Returns:
        The text of the file for `--batching_parameters_file`, or of `batching_params.pbtxt` in the folder of a version,
        which the server reads with `--enable_per_model_batching_parameters`.

    Example:
        >>> print(batching_parameters(380, cores=4))
        max_batch_size { value: 8 }
        batch_timeout_micros { value: 2000 }
        num_batch_threads { value: 4 }
        max_enqueued_batches { value: 8 }
        <BLANKLINE>
    """
    threads = cores or os.cpu_count() or 1
    values = {
        "max_batch_size": _batch_sizes(size)[-1],
        "batch_timeout_micros": 2000,
        "num_batch_threads": threads,
        "max_enqueued_batches": 2 * threads,
    }
    return "".join(f"{key} {{ value: {value} }}\n" for key, value in values.items())


def _batch_sizes(size: int) -> list[int]:
    """Powers of two, up to about the number of pixels in `LARGEST_BATCH` images of 224 x 224."""
    most = max(1, min(LARGEST_BATCH, int(LARGEST_BATCH * (224 / size) ** 2)))
    return [2**i for i in range(most.bit_length())]


def warmup_requests(name: str, size: int, signatures: Collection[str]) -> list[bytes]:
    """Requests of each signature in several batch sizes.

    The first request of a signature is slow, because the server makes an executor for each set of outputs, and the
    first one of a size, because kernels are prepared for each shape.
    """
    import tensorflow as tf

    photo = tf.io.encode_jpeg(tf.zeros((size, size, 3), tf.uint8)).numpy()
    requests = []
    for count in _batch_sizes(size):
        # A single value stands for a tensor of equal values.
        blank = [
            ("serving_default", "images", 0.0, tf.float32, (count, size, size, 3)),
            ("images_uint8", "images", 0, tf.uint8, (count, size, size, 3)),
            ("image_bytes", "image_bytes", photo, tf.string, (count,)),
            ("labels", "image_bytes", photo, tf.string, (count,)),
        ]
        requests += [
            prediction_log(name, signature, {key: tf.make_tensor_proto(value, dtype, shape)})
            for signature, key, value, dtype, shape in blank
            if signature in signatures
        ]
    return requests
