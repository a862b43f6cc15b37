"""The graph of a network: stem, stages of blocks, head (arXiv:1905.11946, Table 1)."""

from collections.abc import Iterable, Sequence
from typing import Any

from keras_effnet._keras import channel_axis, is_keras_tensor, keras
from keras_effnet.layers import Conventions, conv_bn_act, head_initializer, mbconv, new_head_initializer
from keras_effnet.normalization import Normalization
from keras_effnet.scaling import block_name, drop_rates
from keras_effnet.variants import Variant

MIN_SIZE = 32


def build(
    variant: Variant,
    inputs: Any,
    *,
    include_top: bool = True,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    normalization: Normalization | None = None,
    dropout_rate: float = 0.0,
    drop_connect_rate: float = 0.2,
    features: bool = False,
    conventions: Conventions,
) -> Any:
    """Connect the layers of a network to an input tensor.

    Args:
        variant: the block table and its scaling.
        inputs: Keras tensor of images, (batch, height, width, channels) or channels first as Keras is configured.
        normalization: constants for normalising the pixels; None does not normalise.
        conventions: activation, padding and batch normalisation.
        The other arguments are those of `EfficientNetB0`.

    Returns:
        The output tensor, or a list of five tensors with `features`.
    """
    x = inputs if normalization is None else normalize(inputs, normalization)
    x = conv_bn_act(x, variant.stem, 3, strides=2, conventions=conventions, name="stem")
    stages = variant.stages
    rates = iter(drop_rates(stages, drop_connect_rate))
    outputs = []
    for i, args in enumerate(stages, start=1):
        if args.strides == 2:
            outputs.append(x)
        for j in range(args.repeats):
            strides = args.strides if j == 0 else 1
            x = mbconv(x, args, strides=strides, drop_rate=next(rates), conventions=conventions, name=block_name(i, j))
    if features:
        return [*outputs, x]
    x = conv_bn_act(x, variant.head, 1, conventions=conventions, name="top")
    if include_top:
        drawn = head_initializer(classes) if conventions.initialize else "zeros"
        return classify(x, classes, classifier_activation, dropout_rate, initializer=drawn)
    return pool(x, pooling)


def normalize(inputs: Any, normalization: Normalization) -> Any:
    """Normalise pixels 0..255 for the stem, in float32 under any dtype policy."""
    axis = channel_axis()
    constants = normalization.for_channels(inputs.shape[axis])
    scale: list[Any] = constants.scale
    offset: list[Any] = constants.offset
    if axis == 1:
        scale, offset = ([[[value]] for value in values] for values in (scale, offset))
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="normalization")(inputs)


def classify(x: Any, classes: int, activation: Any, dropout_rate: float, *, initializer: Any = None) -> Any:
    """Pooling, dropout and a dense layer with float32 outputs under any dtype policy.

    By default, a new head starts at the loss of chance on any features.
    """
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout_rate:
        x = keras.layers.Dropout(dropout_rate, name="top_dropout")(x)
    return keras.layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=new_head_initializer() if initializer is None else initializer,
        dtype="float32",
        name="predictions",
    )(x)


def pool(x: Any, pooling: str | None) -> Any:
    """Pool the feature map of a network without a classifier."""
    if pooling == "avg":
        return keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x


def image_input(
    input_tensor: Any, input_shape: Sequence[int | None] | None, in_channels: int | None, size: int | None
) -> Any:
    """Return the input tensor: the user's own, or a new input with the user's shape or the default one."""
    axis = channel_axis() - 1
    if input_tensor is not None:
        if not is_keras_tensor(input_tensor):
            raise TypeError(
                f"input_tensor is {type(input_tensor).__name__}. Expected a Keras tensor. Pass keras.Input(...) or the "
                "output of a layer, and call the finished model with the images."
            )
        return input_tensor
    if input_shape is None:
        sides = [size, size]
        sides.insert(axis, in_channels or 3)
        input_shape = sides
    if not isinstance(input_shape, Iterable):
        raise TypeError(f"input_shape is {input_shape!r}. Expected three numbers. Pass for example (224, 224, 3).")
    shape = tuple(input_shape)
    channels = shape[axis] if len(shape) == 3 else None
    if channels is None or in_channels not in (None, channels):
        raise ValueError(
            f"input_shape is {shape} and in_channels is {in_channels}. Expected height, width and channels, in the "
            "order of keras.config.image_data_format(), and in_channels either None or the same number of channels. "
            "Pass for example input_shape=(224, 224, 3)."
        )
    if any(side is not None and side < MIN_SIZE for i, side in enumerate(shape) if i != axis):
        raise ValueError(
            f"input_shape is {shape}. Expected height and width of at least {MIN_SIZE} pixels, or None, because the "
            "network halves them five times."
        )
    return keras.Input(shape)
