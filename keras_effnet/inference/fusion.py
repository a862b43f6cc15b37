"""The inference twin of a model: batch normalisation inside the convolutions, the pixels' scale inside the stem.

Source of the arithmetic: arXiv:1712.05877, section 3.2 (batch normalisation folding).
"""

from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.inference.layer_graph import LayerGraph, Reference, change, name_of, trains_when_called, without
from keras_effnet.inference.rebuild import give_weights

# What a batch normalisation can be folded into; a class of one's own may compute something else.
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
LINEAR = (*CONVOLUTIONS, keras.layers.Dense)
# What a model that is not in training passes through.
IDENTITY = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def fuse(model: Any) -> Any:
    """Make the inference twin of a model: the same function with fewer operations, as a plain Keras model.

    Batch normalisation is folded into the convolution or dense layer before it, or into the dense layer behind it; of
    the normalisation of the pixels the scale goes into the stem and the subtraction of the mean stays, since the
    stem's zero padding stands for a mean pixel. Layers keep their names; all others are kept as they are. Models
    nested in the model are fused too. The twin has weights of its own, and is not for training.

    Args:
        model: a built functional or sequential model, such as the builders of this package make. It stays as it is.

    Returns:
        The twin, of the same inputs, outputs, name and dtype policies.

    Raises:
        TypeError: no such model.
        ValueError: a batch normalisation that can be folded into nothing, or a layer that its configuration does not
            rebuild; the message names the layer.

    Example:
        >>> import keras_effnet
        >>> twin = fuse(keras_effnet.EfficientNetB0(weights=None))
        >>> [layer.name for layer in twin.layers[1:4]]
        ['normalization', 'stem_conv', 'stem_activation']
    """
    if not isinstance(model, keras.Model) or not _is_graph(model) or not model.built:
        raise TypeError(
            f"The model {getattr(model, 'name', model)!r} is a {type(model).__name__} without a graph of layers. "
            "Expected a functional model, or a sequential one that has been built. Wrap it in keras.Model(inputs, "
            "outputs), or use it as it is."
        )
    plan = _Plan(model)
    kind = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    try:
        with keras.utils.custom_object_scope(_own_classes(model)):
            twin = kind.from_config(plan.config())
    except Exception as error:  # a layer's from_config may raise anything
        raise ValueError(
            f"The model {model.name!r} cannot be built again from its configuration: {error} Expected layers whose "
            "get_config() holds all their arguments. Complete it, or use the model as it is."
        ) from error
    plan.assign(twin)
    return twin


def _is_graph(model: Any) -> bool:
    try:
        return isinstance(model, keras.Sequential) or "input_layers" in model.get_config()
    except NotImplementedError:  # a subclass with arguments of its own
        return False


def _own_classes(model: Any) -> dict[str, Any]:
    """The classes that Keras does not have by itself, nested models included."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        if not _is_of_keras(layer):
            found[type(layer).__name__] = type(layer)
        if isinstance(layer, keras.Model):
            found |= _own_classes(layer)
    return found


def _is_of_keras(layer: Any) -> bool:
    """Whether Keras has the class of a layer by itself."""
    return type(layer).__module__.startswith(("keras.", "tf_keras."))


class _Plan:
    """What becomes of the layers of one model: which go, which change, and what weights they get."""

    def __init__(self, model: Any) -> None:
        self.layers = {layer.name: layer for layer in model.layers}
        self.original = model.get_config()
        self.graph = LayerGraph(self.original)
        self.removed: dict[str, Reference] = {}
        self.changes: dict[str, dict[str, Any]] = {}
        self.weights: dict[str, list[np.ndarray]] = {}
        self.nested: dict[str, _Plan] = {}
        for layer in model.layers:
            if isinstance(layer, keras.Model) and _is_graph(layer):
                self.nested[layer.name] = self.plan_nested(layer)
            elif isinstance(layer, keras.layers.BatchNormalization):
                self.fold_batch_norm(layer)
            elif type(layer) is keras.layers.Rescaling:
                self.fold_scale(layer)

    def layer(self, name: str | None) -> Any:
        return self.layers.get(name or "")

    def config(self) -> dict[str, Any]:
        """The configuration of the twin."""
        nested = {name: plan.config() for name, plan in self.nested.items()}
        # A subclassed model's own configuration has no name, and it would get another one.
        names = {name: {"name": name} for name in map(name_of, self.original["layers"])}
        return change(without(self.original, self.removed), names | self.changes | nested)

    def assign(self, twin: Any) -> None:
        """Give the layers of the twin their weights."""
        for layer in twin.layers:
            if layer.name in self.nested:
                self.nested[layer.name].assign(layer)
            elif layer.weights:
                give_weights(layer, self.weights.get(layer.name) or self.layers[layer.name].get_weights())

    def plan_nested(self, layer: Any) -> "_Plan":
        plan = _Plan(layer)
        if plan.removed and trains_when_called(self.original, layer.name):
            raise _refusal(layer, "it is called with training=True")
        return plan

    def fold_batch_norm(self, layer: Any) -> None:
        scale, offset = _affine(layer)
        origin = self.graph.source(layer.name)
        source = self.layer(origin and origin[0])
        dense = self.dense_behind(layer)
        if not _is_of_keras(layer):
            raise _refusal(layer, f"what a {type(layer).__name__} computes is not known")
        if trains_when_called(self.original, layer.name):
            raise _refusal(layer, "it normalises with the batch's own statistics (training=True)")
        if self.is_linear_before(source, layer):
            kernel, bias = self.kernel_and_bias(source)
            self.put(source, kernel * _as_outputs(scale, kernel, source), bias * scale + offset)
        elif origin and dense is not None and _axis(layer) == -1:
            kernel, bias = self.kernel_and_bias(dense)
            self.put(dense, kernel * scale[:, None], bias + offset @ kernel)
        else:
            raise _refusal(layer, f"it follows {getattr(source, 'name', 'several layers or calls')!r}")
        self.removed[layer.name] = self.graph.remove(layer.name)

    def is_linear_before(self, source: Any, layer: Any) -> bool:
        return (
            type(source) in LINEAR
            and source.activation is keras.activations.linear
            and self.can_change(source)
            and self.graph.consumer(source.name) == layer.name
            and _axis(layer) == _channels(source)
        )

    def dense_behind(self, layer: Any) -> Any:
        """The dense layer that alone takes this one's output, past layers that only act in training."""
        behind = self.layer(self.graph.consumer(layer.name))
        while isinstance(behind, IDENTITY) and not trains_when_called(self.original, behind.name):
            behind = self.layer(self.graph.consumer(behind.name))
        return behind if type(behind) is keras.layers.Dense and self.can_change(behind) else None

    def can_change(self, layer: Any) -> bool:
        """Whether a layer is called once, and holds a kernel and a bias rather than low-rank or quantized ones."""
        adapted = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
        return self.graph.source(layer.name) is not None and not adapted

    def fold_scale(self, layer: Any) -> None:
        """Leave of `x * scale + offset` the subtraction of a mean pixel, if a convolution follows."""
        behind = self.layer(self.graph.consumer(layer.name))
        if type(behind) is keras.layers.ZeroPadding2D:
            behind = self.layer(self.graph.consumer(behind.name))
        if type(behind) not in CONVOLUTIONS or not self.can_change(behind):
            return
        kernel, bias = self.kernel_and_bias(behind)
        scale, offset = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
        axis = _channels(behind)
        per_channel = scale.size == 1 or (scale.ndim >= -axis and scale.shape[axis] == scale.size == kernel.shape[2])
        if per_channel and scale.all():
            self.changes[layer.name] = {"scale": 1.0, "offset": (offset / scale).tolist()}
            self.put(behind, kernel * scale.reshape(-1, 1), bias)

    def kernel_and_bias(self, layer: Any) -> tuple[np.ndarray, np.ndarray]:
        kernel, *bias = self.weights.get(layer.name) or layer.get_weights()
        outputs = kernel.shape[2] * kernel.shape[3] if is_depthwise(layer) else kernel.shape[-1]
        return kernel.astype(np.float64), bias[0].astype(np.float64) if bias else np.zeros(outputs)

    def put(self, layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
        dtype = layer.get_weights()[0].dtype
        self.weights[layer.name] = [kernel.astype(dtype), bias.astype(dtype)]
        # Random kernels would be drawn only to be overwritten.
        drawn = "depthwise_initializer" if is_depthwise(layer) else "kernel_initializer"
        self.changes[layer.name] = {"use_bias": True, drawn: "zeros"}


def _affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Batch normalisation in inference as `x * scale + offset`."""
    *learned, mean, variance = (value.astype(np.float64) for value in layer.get_weights())
    gamma = learned.pop(0) if layer.scale else np.ones_like(mean)
    beta = learned.pop(0) if layer.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale


def is_depthwise(layer: Any) -> bool:
    """Whether each channel is convolved by itself."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _channels(layer: Any) -> int:
    """The axis of the channels, counted from behind."""
    return -3 if getattr(layer, "data_format", None) == "channels_first" else -1


def _axis(layer: Any) -> int:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    return axis if axis < 0 else axis - len(layer.input.shape)


def _as_outputs(scale: np.ndarray, kernel: np.ndarray, layer: Any) -> np.ndarray:
    """One factor for each output, in the axes of the kernel."""
    return scale.reshape(kernel.shape[2:]) if is_depthwise(layer) else scale


def _refusal(layer: Any, reason: str) -> ValueError:
    return ValueError(
        f"The layer {layer.name!r} cannot be folded: {reason}. Expected a batch normalisation that alone follows a "
        "Conv2D, DepthwiseConv2D or Dense without activation, called once, or that a Dense follows. Use the model as "
        "it is, unfused."
    )
