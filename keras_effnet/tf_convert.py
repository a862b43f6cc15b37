"""A Keras model into the formats of LiteRT, ONNX Runtime and OpenVINO, by way of one traced function."""

import warnings
from functools import partial
from typing import Any


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
