"""A Keras model in 8 bits, for LiteRT and for OpenVINO, with as many of its first layers in float32 as it needs.

Measured on Lite0: of the error of the logits in 8 bits about 60 % came from the weights, most of it from the first
depthwise convolution; rounded as in `rounding` they make less than a third of that. What is left comes from the
activations: first the pixels and the stem's output, which is why the first layers are those that are kept. The
classifier stays in float32 as well: a step of a probability in 8 bits is 0.004, more than what parts the first two
labels of many a photo.
"""

import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_effnet.tf_convert import to_openvino, trace
from keras_effnet.tf_moments import round_weights

# Of the layers, in order, how many stay in float32.
SHARES = (0.0, 0.05, 0.15, 0.3, 0.5)
# And of the last operations: pooling, dense layer, softmax.
HEAD = 3
CONVOLUTIONS = ("Convolution", "GroupConvolution", "MatMul")

Candidate = tuple[Any, tuple[str, ...]]


def litert_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The `.tflite` files of a model in 8 bits, with more and more of its first layers in float32, and their names.

    Weights have a scale for each channel; input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3).
        size: side of the images in pixels.
        images: float32 of shape (n, size, size, 3), to calibrate on.
    """
    rounded = round_weights(model, images)
    operations: list[str] = []
    for share in SHARES:
        # The names are the same whatever the weights.
        operations = operations or _litert_operations(_litert_debugger(model, size, images[:1]))
        kept = [*operations[: round(share * len(operations))], *operations[-HEAD:]]
        layers = _layers(model, kept)
        with _weights(model, rounded, but=layers):
            debugger = _litert_debugger(model, size, images)
        yield _litert_model(debugger, kept), layers


def _litert_debugger(model: Any, size: int, images: np.ndarray) -> Any:
    """What quantizes a model, calibrated, and can be told which operations not to."""
    import tensorflow as tf

    holder = trace(model, size, 1)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    with warnings.catch_warnings():
        # It says that its interpreter has moved to another package.
        warnings.simplefilter("ignore")
        return tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=lambda: ([image[None]] for image in images[:1])
        )


def _litert_operations(debugger: Any) -> list[str]:
    debugger.run()
    statistics = io.StringIO()
    debugger.layer_statistics_dump(statistics)
    statistics.seek(0)
    return [row["tensor_name"] for row in csv.DictReader(statistics)]


def _litert_model(debugger: Any, kept: list[str]) -> bytes:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        debugger.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept)
        return debugger.get_nondebug_quantized_model()


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The same for OpenVINO, by NNCF; the arguments are those of `litert_candidates`."""
    import nncf

    rounded = round_weights(model, images)
    operations: list[str] = []
    for share in SHARES:
        operations = operations or _openvino_operations(to_openvino(model, size))
        kept = [*operations[: round(share * len(operations))], operations[-1]]
        layers = _layers(model, kept)
        with _weights(model, rounded, but=layers):
            converted = to_openvino(model, size)
        yield (
            nncf.quantize(
                converted,
                nncf.Dataset(images, lambda image: image[None]),
                subset_size=len(images),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=kept),
            ),
            layers,
        )


def _openvino_operations(converted: Any) -> list[str]:
    return [op.get_friendly_name() for op in converted.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]


@contextmanager
def _weights(model: Any, values: Mapping[str, list[np.ndarray]], *, but: Sequence[str]) -> Iterator[None]:
    """For a while give the layers of a model, but for some, these weights."""
    layers = [layer for layer in model.layers if layer.name in values and layer.name not in but]
    before = [layer.get_weights() for layer in layers]
    try:
        for layer in layers:
            layer.set_weights(values[layer.name])
        yield
    finally:
        for layer, weights in zip(layers, before, strict=True):
            layer.set_weights(weights)


def _layers(model: Any, operations: Sequence[str]) -> tuple[str, ...]:
    """The layers that operations came from, by their names, in order."""
    known = {layer.name for layer in model.layers if layer.weights}
    parts = (re.sub(r"_\d+$", "", part) for name in operations for part in re.split("[/;]", name))
    return tuple(dict.fromkeys(part for part in parts if part in known))
