"""A Keras model in 8 bits, for LiteRT and for OpenVINO, with as many of its first layers in float32 as it needs.

Measured on Lite0: in 8 bits the stem and the first depthwise convolution, folded with batch normalisations of small
variances, lose eight times as much as the others. The classifier stays in float32 as well: a step of a probability in 8
bits is 0.004, more than what parts the first two labels of many a photo.
"""

import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_effnet.tf_convert import to_openvino, trace

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
    import tensorflow as tf

    holder = trace(model, size, 1)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    with warnings.catch_warnings():
        # It says that its interpreter has moved to another package.
        warnings.simplefilter("ignore")
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=lambda: ([image[None]] for image in images[:2])
        )
        debugger.run()
        statistics = io.StringIO()
        debugger.layer_statistics_dump(statistics)
        statistics.seek(0)
        tensors = [row["tensor_name"] for row in csv.DictReader(statistics)]
        for share in SHARES:
            kept = [*tensors[: round(share * len(tensors))], *tensors[-HEAD:]]
            debugger.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=kept)
            yield debugger.get_nondebug_quantized_model(), _layers(model, kept)


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The same for OpenVINO, by NNCF; the arguments are those of `litert_candidates`."""
    import nncf

    for share in SHARES:
        converted = to_openvino(model, size)
        names = [op.get_friendly_name() for op in converted.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]
        kept = [*names[: round(share * len(names))], names[-1]]
        yield (
            nncf.quantize(
                converted,
                nncf.Dataset(images, lambda image: image[None]),
                subset_size=len(images),
                fast_bias_correction=False,
                ignored_scope=nncf.IgnoredScope(names=kept),
            ),
            _layers(model, kept),
        )


def _layers(model: Any, operations: Sequence[str]) -> tuple[str, ...]:
    """The layers that operations came from, by their names, in order."""
    known = {layer.name for layer in model.layers if layer.weights}
    parts = (re.sub(r"_\d+$", "", part) for name in operations for part in re.split("[/;]", name))
    return tuple(dict.fromkeys(part for part in parts if part in known))
