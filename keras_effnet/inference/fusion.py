"""Fused models for inference: batch normalisation is folded into the convolutions, the pixel scale into the stem.

Source of the arithmetic: arXiv:1712.05877, section 3.2 (batch normalisation folding).
"""

from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.inference.layer_graph import LayerGraph, Reference, change, name_of, trains_when_called, without
from keras_effnet.inference.rebuild import give_weights

# Layers that a batch normalisation can be folded into, but not their subclasses, which may compute something else.
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
LINEAR = (*CONVOLUTIONS, keras.layers.Dense)
# Layers that do nothing at inference.
IDENTITY = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout2D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def fuse(model: Any) -> Any:
    """Make a faster copy of a model for inference, which computes the same function with fewer operations.

    Batch normalisation is folded into the convolution or dense layer before it, or into the dense layer after it. The
    scale of the pixel normalisation is folded into the stem; the subtraction of the mean stays, because the zero
    padding of the stem corresponds to a mean pixel. The remaining layers are copied with their names. Nested models
    are fused too. The copy has its own weights and should not be trained.

    Args:
        model: a built functional or sequential model, such as those of the builders. It is not changed.

    Returns:
        A plain Keras model with the same inputs, outputs, name and dtype policies.

    Raises:
        TypeError: the model is not a built functional or sequential model.
        ValueError: a batch normalisation cannot be folded, or a layer cannot be rebuilt from its configuration. The
            message names the layer.

    Example:
        >>> import keras_effnet
        >>> fused = fuse(keras_effnet.EfficientNetB0(weights=None))
        >>> [layer.name for layer in fused.layers[1:4]]
        ['normalization', 'stem_conv', 'stem_activation']
    """
    if not isinstance(model, keras.Model) or not _is_graph(model) or not model.built:
        raise TypeError(
            f"The model {getattr(model, 'name', model)!r} is a {type(model).__name__} without a graph of layers. "
            "Expected a functional model, or a sequential one that has been built. Convert it with "
            "keras.Model(inputs, outputs), or use it without fusing."
        )
    plan = _Plan(model)
    kind = keras.Sequential if isinstance(model, keras.Sequential) else keras.Model
    try:
        with keras.utils.custom_object_scope(_own_classes(model)):
            fused = kind.from_config(plan.config())
    except Exception as error:  # a layer's from_config may raise anything
        raise ValueError(
            f"The model {model.name!r} cannot be rebuilt from its configuration: {error} Expected layers whose "
            "get_config() contains all their arguments. Complete it, or use the model without fusing."
        ) from error
    plan.assign(fused)
    return fused


def _is_graph(model: Any) -> bool:
    try:
        return isinstance(model, keras.Sequential) or "input_layers" in model.get_config()
    except NotImplementedError:  # a subclass with its own arguments
        return False


def _own_classes(model: Any) -> dict[str, Any]:
    """The custom classes of layers, including those in nested models."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        if not _is_of_keras(layer):
            found[type(layer).__name__] = type(layer)
        if isinstance(layer, keras.Model):
            found |= _own_classes(layer)
    return found


def _is_of_keras(layer: Any) -> bool:
    """Whether the class of a layer is part of Keras."""
    return type(layer).__module__.startswith(("keras.", "tf_keras."))


class _Plan:
    """The changes to the layers of one model: which are removed, which are changed, and their new weights."""

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
        """The configuration of the fused model."""
        nested = {name: plan.config() for name, plan in self.nested.items()}
        # A subclassed model has no name in its own configuration, and would get a new one.
        names = {name: {"name": name} for name in map(name_of, self.original["layers"])}
        return change(without(self.original, self.removed), names | self.changes | nested)

    def assign(self, fused: Any) -> None:
        """Set the weights of the fused model."""
        for layer in fused.layers:
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
        dense = self.dense_after(layer)
        if not _is_of_keras(layer):
            raise _refusal(layer, f"{type(layer).__name__} is a custom class")
        if trains_when_called(self.original, layer.name):
            raise _refusal(layer, "it uses the statistics of the batch (training=True)")
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

    def dense_after(self, layer: Any) -> Any:
        """The dense layer that is the only consumer of this layer, ignoring layers that only act in training."""
        follower = self.layer(self.graph.consumer(layer.name))
        while isinstance(follower, IDENTITY) and not trains_when_called(self.original, follower.name):
            follower = self.layer(self.graph.consumer(follower.name))
        return follower if type(follower) is keras.layers.Dense and self.can_change(follower) else None

    def can_change(self, layer: Any) -> bool:
        """Whether a layer is called once and has a plain kernel, not a low-rank or quantized one."""
        adapted = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
        return self.graph.source(layer.name) is not None and not adapted

    def fold_scale(self, layer: Any) -> None:
        """Fold the scale of `x * scale + offset` into the next convolution; the subtraction of the mean remains."""
        follower = self.layer(self.graph.consumer(layer.name))
        if type(follower) is keras.layers.ZeroPadding2D:
            follower = self.layer(self.graph.consumer(follower.name))
        if type(follower) not in CONVOLUTIONS or not self.can_change(follower):
            return
        kernel, bias = self.kernel_and_bias(follower)
        scale, offset = (np.asarray(value, np.float64) for value in (layer.scale, layer.offset))
        axis = _channels(follower)
        per_channel = scale.size == 1 or (scale.ndim >= -axis and scale.shape[axis] == scale.size == kernel.shape[2])
        if per_channel and scale.all():
            self.changes[layer.name] = {"scale": 1.0, "offset": (offset / scale).tolist()}
            self.put(follower, kernel * scale.reshape(-1, 1), bias)

    def kernel_and_bias(self, layer: Any) -> tuple[np.ndarray, np.ndarray]:
        kernel, *bias = self.weights.get(layer.name) or layer.get_weights()
        outputs = kernel.shape[2] * kernel.shape[3] if is_depthwise(layer) else kernel.shape[-1]
        return kernel.astype(np.float64), bias[0].astype(np.float64) if bias else np.zeros(outputs)

    def put(self, layer: Any, kernel: np.ndarray, bias: np.ndarray) -> None:
        dtype = layer.get_weights()[0].dtype
        self.weights[layer.name] = [kernel.astype(dtype), bias.astype(dtype)]
        # Zeros: random kernels would be overwritten anyway.
        initializer = "depthwise_initializer" if is_depthwise(layer) else "kernel_initializer"
        self.changes[layer.name] = {"use_bias": True, initializer: "zeros"}


def _affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of batch normalisation at inference, `x * scale + offset`."""
    *learned, mean, variance = (value.astype(np.float64) for value in layer.get_weights())
    gamma = learned.pop(0) if layer.scale else np.ones_like(mean)
    beta = learned.pop(0) if layer.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale


def is_depthwise(layer: Any) -> bool:
    """Whether a layer is a depthwise convolution."""
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def _channels(layer: Any) -> int:
    """The channel axis, counted from the end."""
    return -3 if getattr(layer, "data_format", None) == "channels_first" else -1


def _axis(layer: Any) -> int:
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    return axis if axis < 0 else axis - len(layer.input.shape)


def _as_outputs(scale: np.ndarray, kernel: np.ndarray, layer: Any) -> np.ndarray:
    """Reshape one factor per output to the axes of the kernel."""
    return scale.reshape(kernel.shape[2:]) if is_depthwise(layer) else scale


def _refusal(layer: Any, reason: str) -> ValueError:
    return ValueError(
        f"The layer {layer.name!r} cannot be folded: {reason}. Expected a batch normalisation that is the only "
        "consumer of a Conv2D, DepthwiseConv2D or Dense without activation, called once, or that is followed by a "
        "Dense. Use the model without fusing."
    )
