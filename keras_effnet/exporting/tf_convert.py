"""Convert a Keras model to LiteRT, ONNX and OpenVINO by way of one traced function, in float32 or in 8 bits.

In 8 bits the rounding is part of the graph (arXiv:1712.05877, section 3), so that LiteRT and OpenVINO use the weights
and ranges that were chosen here and collect no statistics of their own. The layers with the largest feature maps stay
in float32: the pixels and the outputs of the first stages cause the largest errors, and these layers are not faster in
8 bits. So does the classifier: 8-bit probabilities have a resolution of 0.004, often coarser than the gap between the
top two labels.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from keras_effnet.exporting.int8_steps import Arithmetic
    from keras_effnet.exporting.tf_int8 import Quantized
    from keras_effnet.inference.layer_steps import Step

# What stays in float32: the fraction of the convolutions, from the first one, and the number of the last ones. In Lite0
# these are 27 of 49 convolutions: with 9 in float32 the first label was the same for 97.3 % of 637 photos, with 18 for
# 98.3 %, with 27 for 99.1 %. They take 0.62, 0.65 and 0.70 of float32's time on a processor with VNNI. If that is not
# enough, the last convolution, before the mean over each map, matters most: in the B0 of benchmarks/eight_bits.py it
# cost 36 % of the first labels, and all others after the first 55 % together 9 %.
LITERT_KEPT = ((0.55, 0), (0.55, 1), (0.75, 1), (0.9, 1))
# With one bit less per weight, 27 convolutions gave 96.5 % of 200 held-out photos, and 32 gave 99.0 %.
OPENVINO_KEPT = ((0.65, 0), (0.65, 1), (0.75, 1), (0.9, 1))

Candidate = tuple[Any, tuple[str, ...]]


def trace(model: Any, size: int, batch: int | None, output: str = "probabilities") -> Any:
    """A module with the traced function of a Keras model, `call`, and its variables.

    Args:
        model: takes images (batch, size, size, 3); may be a function without variables.
        size: side of the images in pixels.
        batch: the number of images, None for any number.
        output: the name of the output.
    """
    import tensorflow as tf

    holder = tf.Module()
    holder.values = tf_variables(model) if hasattr(model, "variables") else []
    call = partial(model, training=False) if holder.values else model
    spec = tf.TensorSpec((batch, size, size, 3), tf.float32, name="images")
    # The key becomes the name of the output in ONNX.
    holder.call = tf.function(lambda images: {output: call(images)}, input_signature=[spec])
    return holder


def tf_variables(model: Any) -> list[Any]:
    """The variables of a Keras model as TensorFlow variables."""
    import tensorflow as tf

    return [v if isinstance(v, tf.Variable) else v.value for v in model.variables]


def to_litert(model: Any, size: int, *, quantize: str | None, output: str = "probabilities") -> bytes:
    """The `.tflite` file of a model for one image at a time; its input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3); for "int8" its graph contains the rounding.
        size: side of the images in pixels.
        quantize: None, "float16", "dynamic" or "int8".
        output: the name of the output.
    """
    import tensorflow as tf

    holder = trace(model, size, 1, output)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([holder.call.get_concrete_function()], holder)
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with warnings.catch_warnings():
        # The ranges are in the graph. The converter warns that the pixels have none: they stay in float32.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")
        return converter.convert()


def to_onnx(model: Any, size: int, *, output: str = "probabilities") -> Any:
    """The ModelProto of a model for any number of images."""
    import tf2onnx

    call = trace(model, size, None, output).call
    proto, _ = tf2onnx.convert.from_function(call, input_signature=call.input_signature, opset=17)
    return proto


def to_openvino(model: Any, size: int, *, output: str = "probabilities") -> Any:
    """The OpenVINO model of a model for any number of images."""
    import openvino

    holder = trace(model, size, None, output)
    converted = openvino.convert_model(holder.call.get_concrete_function())
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({output})
    return converted


def litert_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The `.tflite` files of a model in 8 bits with more and more layers in float32, and the names of these layers.

    Weights have one scale per channel; input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3).
        size: side of the images in pixels.
        images: the calibration photos, float32 of shape (n, size, size, 3).

    Raises:
        ValueError: the model is not a graph of layers, or calls a layer twice.
    """
    from keras_effnet.exporting.int8_steps import LITERT

    return _candidates(model, images, LITERT, LITERT_KEPT, lambda net: to_litert(net.call, size, quantize="int8"))


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """As `litert_candidates`, for OpenVINO, which applies every activation before it rounds; weights have 7 bits."""
    from keras_effnet.exporting.int8_steps import OPENVINO

    return _candidates(model, images, OPENVINO, OPENVINO_KEPT, lambda net: to_openvino(net.call, size))


def _candidates(
    model: Any,
    images: np.ndarray,
    arithmetic: "Arithmetic",
    parts: Sequence[tuple[float, int]],
    convert: Callable[["Quantized"], Any],
) -> Iterator[Candidate]:
    from keras_effnet.exporting.tf_int8 import calibrate
    from keras_effnet.inference.layer_steps import steps_of

    steps = steps_of(model)
    for first, last in parts:
        net = calibrate(steps, images, kept=_ends(steps, first, last), arithmetic=arithmetic)
        yield convert(net), net.float_layers


def _ends(steps: Sequence["Step"], first: float, last: int) -> tuple[str, ...]:
    """The steps with the first convolutions, by their fraction, and the steps from the last convolutions on."""
    from keras_effnet.exporting.int8_steps import is_convolution

    places = [i for i, step in enumerate(steps) if is_convolution(step.layer)]
    places.append(len(steps))
    start, stop = places[round(first * (len(places) - 1))], places[-1 - last]
    return tuple(step.name for step in (*steps[:start], *steps[stop:]))
