"""A Keras model as an ONNX graph, layer by layer, on any backend of Keras."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet.exporting.onnx_graph import ACTIVATIONS, OnnxGraph, Tensor
from keras_effnet.inference.layer_steps import IMAGES, Step, activation_of, steps_and_outputs


class UnknownLayerError(ValueError):
    """A layer that the writer does not know; the message names it."""


def to_onnx(model: Any, output: str = "probabilities") -> Any:
    """The ModelProto of a Keras model for any number of images, with outputs as the model has them.

    Several outputs have the names of their layers.

    Args:
        model: a functional or sequential model from images (batch, height, width, channels).
        output: the name of a single output.

    Raises:
        UnknownLayerError: the model has a layer that cannot be written, or is not a graph of layers.

    Example:
        >>> import keras_effnet
        >>> to_onnx(keras_effnet.EfficientNetLite0(weights=None)).opset_import[0].version
        17
    """
    try:
        steps, outputs = steps_and_outputs(model)
    except ValueError as error:
        raise UnknownLayerError(str(error)) from error
    graph = OnnxGraph(tuple(model.input_shape[1:]))
    values = {IMAGES: graph.images}
    for step in steps:
        values[step.name] = _write(graph, step, [values[source] for source in step.sources])
    names = [output] if len(outputs) == 1 else outputs
    return graph.model([(name, values[output]) for name, output in zip(names, outputs, strict=True)])


def _write(graph: OnnxGraph, step: Step, inputs: list[Tensor]) -> Tensor:
    layer, name = step.layer, step.name
    write = WRITERS.get(type(layer))
    if write is None or getattr(layer, "data_format", "channels_last") != "channels_last":
        raise _unknown(layer)
    activation = activation_of(layer)
    if activation not in (*ACTIVATIONS, ""):
        raise _unknown(layer, f" with the activation {activation!r}")
    if activation in ("", "linear") or type(layer) is keras.layers.Activation:
        return write(graph, layer, inputs, name)
    x = write(graph, layer, inputs, f"{name}/linear")
    return graph.activate(x, _checked(layer, activation, x), name=name)


def _checked(layer: Any, activation: str, x: Tensor) -> str:
    if activation == "softmax" and len(x.shape) > 1:
        raise _unknown(layer, " with a softmax of feature maps")
    return activation


def _unknown(layer: Any, detail: str = "") -> UnknownLayerError:
    return UnknownLayerError(f"The layer {layer.name!r} ({type(layer).__name__}{detail}) cannot be written to ONNX.")


def _array(value: Any) -> np.ndarray:
    return np.asarray(value if LEGACY else keras.ops.convert_to_numpy(value))


# --- one function for each kind of layer ---


def _conv(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    kernel, *bias = layer.get_weights()
    groups = getattr(layer, "groups", 1)
    if type(layer) is keras.layers.DepthwiseConv2D:
        # Keras stores (height, width, in, multiplier).
        groups = kernel.shape[2]
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    if layer.padding not in ("same", "valid"):
        raise _unknown(layer, f" with padding={layer.padding!r}")
    return graph.conv(
        inputs[0],
        kernel,
        bias[0] if bias else None,
        name=name,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        groups=groups,
        same=layer.padding == "same",
    )


def _dense(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    if len(inputs[0].shape) > 1 or getattr(layer, "quantization_mode", None):
        raise _unknown(layer, " on feature maps" if len(inputs[0].shape) > 1 else ", quantized")
    kernel = _array(layer.kernel)  # with the updates of LoRA, if there are any
    return graph.dense(inputs[0], kernel, _array(layer.bias) if layer.use_bias else None, name=name)


def _batch_norm(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    if axis not in (-1, len(inputs[0].shape)):
        raise _unknown(layer, f" with axis={axis}")
    *learned, mean, variance = layer.get_weights()
    gamma = learned.pop(0) if layer.scale else np.ones_like(mean)
    beta = learned.pop(0) if layer.center else np.zeros_like(mean)
    return graph.normalize(inputs[0], (gamma, beta, mean, variance), layer.epsilon, name=name)


def _rescaling(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    return graph.scale(inputs[0], layer.scale, layer.offset, name=name)


def _normalization(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    mean, variance = _array(layer.mean).astype(np.float64), _array(layer.variance).astype(np.float64)
    if layer.invert or mean.size not in (1, inputs[0].shape[0]):
        raise _unknown(layer, " that inverts" if layer.invert else " with statistics for each pixel")
    factor = 1 / np.maximum(np.sqrt(variance), keras.backend.epsilon())
    return graph.scale(inputs[0], factor, -mean * factor, name=name)


def _relu(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    kinds = {None: "relu", 6.0: "relu6"}
    if layer.max_value not in kinds or layer.negative_slope or layer.threshold:
        raise _unknown(layer, " with a slope, a threshold or a maximum other than 6")
    return graph.activate(inputs[0], kinds[layer.max_value], name=name)


def _softmax(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    if layer.axis not in (-1, 1):
        raise _unknown(layer, f" with axis={layer.axis}")
    return graph.activate(inputs[0], _checked(layer, "softmax", inputs[0]), name=name)


def _reshape(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    # Only what squeeze-and-excitation of keras.applications does.
    if tuple(layer.target_shape) not in ((1, 1, -1), (1, 1, *inputs[0].shape)) or len(inputs[0].shape) > 1:
        raise _unknown(layer, f" to {tuple(layer.target_shape)}")
    return graph.unsqueeze(inputs[0], name=name)


def _activation(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    return graph.activate(inputs[0], _checked(layer, activation_of(layer), inputs[0]), name=name)


def _add(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    return graph.add(inputs, name=name)


def _multiply(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    return graph.multiply(inputs, name=name)


def _concatenate(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    if layer.axis not in (-1, len(inputs[0].shape)):
        raise _unknown(layer, f" with axis={layer.axis}")
    return graph.concatenate(inputs, name=name)


def _pooling(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    pool = graph.mean if type(layer) is keras.layers.GlobalAveragePooling2D else graph.maximum
    return pool(inputs[0], keepdims=layer.keepdims, name=name)


def _zero_padding(graph: OnnxGraph, layer: Any, inputs: list[Tensor], name: str) -> Tensor:
    return graph.pad(inputs[0], layer.padding, name=name)


WRITERS: dict[type, Callable[[OnnxGraph, Any, list[Tensor], str], Tensor]] = {
    keras.layers.Activation: _activation,
    keras.layers.Add: _add,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.Concatenate: _concatenate,
    keras.layers.Conv2D: _conv,
    keras.layers.Dense: _dense,
    keras.layers.DepthwiseConv2D: _conv,
    keras.layers.GlobalAveragePooling2D: _pooling,
    keras.layers.GlobalMaxPooling2D: _pooling,
    keras.layers.Multiply: _multiply,
    keras.layers.Normalization: _normalization,
    keras.layers.ReLU: _relu,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Reshape: _reshape,
    keras.layers.Softmax: _softmax,
    keras.layers.ZeroPadding2D: _zero_padding,
}
