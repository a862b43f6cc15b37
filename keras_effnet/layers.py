"""The building blocks as functions on Keras tensors (arXiv:1905.11946; MBConv 1801.04381; SE 1709.01507)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keras_effnet._keras import channel_axis, keras
from keras_effnet.blocks import BlockArgs


@dataclass(frozen=True)
class Conventions:
    """Settings that all layers of a network share; TensorFlow's and PyTorch's networks differ in them.

    Args:
        activation: "swish" or "relu6".
        padding: "same" (TensorFlow: the extra pixel is added at the bottom and the right) or "symmetric" (PyTorch).
        bn_momentum: momentum of the moving statistics in batch normalisation.
        bn_epsilon: constant added to the variance in batch normalisation; PyTorch's networks use 1e-5.
        depthwise: name of the depthwise layers.
        initialize: draw random kernels; False leaves zeros, which is faster when weights are loaded afterwards.
    """

    activation: str = "swish"
    padding: str = "same"
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    depthwise: str = "dwconv"
    initialize: bool = True

    def __post_init__(self) -> None:
        for field, choices in (("activation", ("relu6", "swish")), ("padding", ("same", "symmetric"))):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} is {getattr(self, field)!r}. Expected one of {', '.join(choices)}.")


def mbconv(x: Any, args: BlockArgs, *, strides: int, drop_rate: float, conventions: Conventions, name: str) -> Any:
    """One block: expand, filter, squeeze-and-excite, project; with a residual connection if the shape is unchanged."""
    inputs, filters = x, x.shape[channel_axis()]
    fused = args.conv_type == "fused"
    if args.expand_ratio > 1:
        # The kernel of a fused block (arXiv:2104.00298) is in its expansion; without an expansion, in its projection.
        filter_size, filter_strides = (args.kernel_size, strides) if fused else (1, 1)
        expanded = args.expand_ratio * filters
        x = conv_bn_act(x, expanded, filter_size, filter_strides, conventions=conventions, name=f"{name}_expand")
    if not fused:
        x = depthwise_bn_act(x, args.kernel_size, strides, conventions=conventions, name=name)
    if args.se_ratio:
        squeezed = max(1, int(filters * args.se_ratio))
        x = squeeze_excite(x, squeezed, conventions=conventions, name=f"{name}_se")
    if fused and args.expand_ratio == 1:
        x = conv_bn_act(x, args.filters, args.kernel_size, strides, conventions=conventions, name=f"{name}_project")
    else:
        x = conv_bn(x, args.filters, 1, conventions=conventions, name=f"{name}_project")
    keeps_shape = args.skip and strides == 1 and args.filters == filters
    return residual(inputs, x, drop_rate, name=name) if keeps_shape else x


def conv_bn_act(
    x: Any, filters: int, kernel_size: int, strides: int = 1, *, conventions: Conventions, name: str
) -> Any:
    """Convolution, batch normalisation, activation."""
    x = conv_bn(x, filters, kernel_size, strides, conventions=conventions, name=name)
    return activate(x, conventions, name=f"{name}_activation")


def conv_bn(x: Any, filters: int, kernel_size: int, strides: int = 1, *, conventions: Conventions, name: str) -> Any:
    """Convolution and batch normalisation."""
    x, padding = pad(x, kernel_size, strides, conventions, name=f"{name}_conv_pad")
    x = keras.layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer=conv_initializer(conventions),
        name=f"{name}_conv",
    )(x)
    return batch_norm(x, conventions, name=f"{name}_bn")


def depthwise_bn_act(x: Any, kernel_size: int, strides: int, *, conventions: Conventions, name: str) -> Any:
    """Depthwise convolution, batch normalisation, activation."""
    x, padding = pad(x, kernel_size, strides, conventions, name=f"{name}_{conventions.depthwise}_pad")
    x = keras.layers.DepthwiseConv2D(
        kernel_size,
        strides,
        padding,
        use_bias=False,
        depthwise_initializer=conv_initializer(conventions),
        dtype=depthwise_dtype(),
        name=f"{name}_{conventions.depthwise}",
    )(x)
    x = batch_norm(x, conventions, name=f"{name}_bn")
    return activate(x, conventions, name=f"{name}_activation")


def depthwise_dtype() -> str | None:
    """The dtype of depthwise convolutions: float32 under "mixed_float16", otherwise that of the policy.

    In float16 they were reported to be 50 times slower on a V100 (tensorflow#41715); this was not measured here.
    """
    return "float32" if keras.mixed_precision.global_policy().name == "mixed_float16" else None


def squeeze_excite(x: Any, filters: int, *, conventions: Conventions, name: str) -> Any:
    """Squeeze-and-excitation: scale each channel by a weight computed from the channel means (arXiv:1709.01507)."""
    weight = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weight = keras.layers.Conv2D(
        filters,
        1,
        activation=conventions.activation,
        kernel_initializer=conv_initializer(conventions),
        name=f"{name}_reduce",
    )(weight)
    weight = keras.layers.Conv2D(
        x.shape[channel_axis()],
        1,
        activation="sigmoid",
        kernel_initializer=conv_initializer(conventions),
        name=f"{name}_expand",
    )(weight)
    return keras.layers.Multiply(name=f"{name}_excite")([x, weight])


def residual(inputs: Any, x: Any, drop_rate: float, *, name: str) -> Any:
    """Add the block's input. In training, the block is skipped at random (stochastic depth, arXiv:1603.09382)."""
    if drop_rate:
        # One random number per image: the noise is broadcast over height, width and channels.
        x = keras.layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return keras.layers.Add(name=f"{name}_add")([x, inputs])


def batch_norm(x: Any, conventions: Conventions, *, name: str) -> Any:
    """Batch normalisation over the channels."""
    return keras.layers.BatchNormalization(
        axis=channel_axis(), momentum=conventions.bn_momentum, epsilon=conventions.bn_epsilon, name=name
    )(x)


def activate(x: Any, conventions: Conventions, *, name: str) -> Any:
    """The activation of the network."""
    return keras.layers.Activation(conventions.activation, name=name)(x)


def pad(x: Any, kernel_size: int, strides: int, conventions: Conventions, *, name: str) -> tuple[Any, str]:
    """Return the tensor to convolve and its padding; with stride 1 both conventions are equal."""
    if conventions.padding == "same" or strides == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(kernel_size // 2, name=name)(x), "valid"


def conv_initializer(conventions: Conventions) -> Any:
    """A new initializer for a convolution; a shared one would draw equal numbers for layers of equal shape."""
    if not conventions.initialize:
        return "zeros"
    return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal")


def head_initializer(classes: int) -> Any:
    """A new initializer for the classifier of a network that is trained from scratch.

    The published rule, uniform within 1 / sqrt(classes), is meant for ImageNet's 1,000 classes: with five, the first
    loss would be many times ln(5).
    """
    return (
        keras.initializers.VarianceScaling(1 / 3, "fan_out", "uniform") if classes == 1000 else new_head_initializer()
    )


def new_head_initializer() -> Any:
    """An initializer for a head on any features: all classes start equally likely, at the loss of chance.

    Not zeros: then the first update would change no layer below the head.
    """
    return keras.initializers.RandomUniform(-1e-6, 1e-6)


def restore_initializers(layers: Iterable[Any]) -> None:
    """Set the usual initializers on layers built with `initialize=False`, so that clones of the model are random."""
    drawn = Conventions()
    for layer in layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.depthwise_initializer = conv_initializer(drawn)
        elif isinstance(layer, keras.layers.Conv2D):
            layer.kernel_initializer = conv_initializer(drawn)
        elif isinstance(layer, keras.layers.Dense):
            layer.kernel_initializer = head_initializer(layer.units)
