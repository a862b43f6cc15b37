"""Convert a Keras model to LiteRT, ONNX and OpenVINO by way of one traced function, in float32 or in 8 bits.

In 8 bits the rounding is part of the graph (arXiv:1712.05877, section 3), so that LiteRT and OpenVINO get the same
weights and ranges, chosen beforehand, and collect no statistics of their own. The layers on the largest maps stay in
float32: pixels and the outputs of the first stages make the largest errors, and in 8 bits these layers are not faster.
The classifier stays too: 8-bit probabilities have a resolution of 0.004, often coarser than the gap between the top two
labels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np


def trace(model: Any, size: int, batch: int | None) -> Any:
    """A TensorFlow function of a Keras model, and what holds its variables.

    Args:
        model: takes images (batch, size, size, 3); a function that has no variables will do.
        size: side of the images in pixels.
        batch: how many images at a time, None for any number.
    """
    import tensorflow as tf

    holder = tf.Module()
    holder.values = tf_variables(model) if hasattr(model, "variables") else []
    call = partial(model, training=False) if holder.values else model
    spec = tf.TensorSpec((batch, size, size, 3), tf.float32, name="images")
    # Its name is that of the output in ONNX.
    holder.call = tf.function(lambda images: {"probabilities": call(images)}, input_signature=[spec])
    return holder


def tf_variables(model: Any) -> list[Any]:
    """The variables of a Keras model as TensorFlow's own."""
    import tensorflow as tf

    return [v if isinstance(v, tf.Variable) else v.value for v in model.variables]


def to_litert(model: Any, size: int, *, quantize: str | None) -> bytes:
    """The `.tflite` file of a model for one image at a time; its input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3); for "int8" with the rounding in its graph.
        size: side of the images in pixels.
        quantize: None, "float16", "dynamic" or "int8".
    """
    import tensorflow as tf

    holder = trace(model, size, 1)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with warnings.catch_warnings():
        # The ranges are in the graph; the converter misses those of the photos, which stay in float32.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")
        return converter.convert()


def to_onnx(model: Any, size: int) -> Any:
    """The ModelProto of a model for any number of images."""
    import tf2onnx

    call = trace(model, size, None).call
    proto, _ = tf2onnx.convert.from_function(call, input_signature=call.input_signature, opset=17)
    return proto


def to_openvino(model: Any, size: int) -> Any:
    """The OpenVINO model of a model for any number of images."""
    import openvino

    holder = trace(model, size, None)
    converted = openvino.convert_model(holder.call.get_concrete_function())
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({"probabilities"})
    return converted


if TYPE_CHECKING:
    from keras_effnet.serving.int8_steps import Arithmetic, Step
    from keras_effnet.serving.tf_int8 import Quantized

# What stays in float32: which part of the convolutions, of the first, on the largest maps, and how many of the last. In
# Lite0 27 of 49: with 9 the first label was the same for 97.3 % of 637 photos, with 18 for 98.3 %, with 27 for 99.1 %;
# they take 0.62, 0.65 and 0.70 of float32's time where the processor has VNNI. Where that is too little, the last one,
# before the mean over each map, counts most: in the B0 of benchmarks/eight_bits.py it cost 36 % of the first labels,
# and all others behind the first 55 % together 9 %.
LITERT_KEPT = ((0.55, 0), (0.55, 1), (0.75, 1), (0.9, 1))
# With one bit less for a weight, 27 gave 96.5 % of 200 photos held out, and 32 gave 99.0 %.
OPENVINO_KEPT = ((0.65, 0), (0.65, 1), (0.75, 1), (0.9, 1))

Candidate = tuple[Any, tuple[str, ...]]


def litert_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The `.tflite` files of a model in 8 bits, with more and more of its layers in float32, and the names of these.

    Weights have a scale for each channel; input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3).
        size: side of the images in pixels.
        images: float32 of shape (n, size, size, 3), to calibrate on.

    Raises:
        ValueError: the model is no graph of layers, or calls one of them twice.
    """
    from keras_effnet.serving.int8_steps import LITERT

    return _candidates(model, images, LITERT, LITERT_KEPT, lambda net: to_litert(net.call, size, quantize="int8"))


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The same for OpenVINO, which applies every activation before it rounds, and has 7 bits for a weight."""
    from keras_effnet.serving.int8_steps import OPENVINO

    return _candidates(model, images, OPENVINO, OPENVINO_KEPT, lambda net: to_openvino(net.call, size))


def _candidates(
    model: Any,
    images: np.ndarray,
    arithmetic: "Arithmetic",
    parts: Sequence[tuple[float, int]],
    convert: Callable[["Quantized"], Any],
) -> Iterator[Candidate]:
    from keras_effnet.serving.int8_steps import steps_of
    from keras_effnet.serving.tf_int8 import calibrate

    steps = steps_of(model)
    for first, last in parts:
        net = calibrate(steps, images, kept=_ends(steps, first, last), arithmetic=arithmetic)
        yield convert(net), net.float_layers


def _ends(steps: Sequence["Step"], first: float, last: int) -> tuple[str, ...]:
    """The first steps, with that part of the convolutions and what follows them, and those from the last ones on."""
    from keras_effnet.serving.int8_steps import is_convolution

    places = [i for i, step in enumerate(steps) if is_convolution(step.layer)]
    places.append(len(steps))
    start, stop = places[round(first * (len(places) - 1))], places[-1 - last]
    return tuple(step.name for step in (*steps[:start], *steps[stop:]))
