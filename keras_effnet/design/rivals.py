"""MobileNetV1, MobileNetV2 and ResNet-50 with depth, width and resolution coefficients (arXiv:1905.11946, Table 3).

With coefficients of 1.0 they equal the networks of `keras.applications`: layer names, weights and outputs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_effnet._keras import channel_axis, keras
from keras_effnet.design.rival_tables import Block, Conv, Rival, mobilenet, mobilenet_v2, resnet50
from keras_effnet.layers import new_head_initializer
from keras_effnet.network import image_input


def MobileNetV1(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0, **options: Any) -> Any:  # noqa: N802
    """Build MobileNetV1 (arXiv:1704.04861), scaled. The caller normalises images to -1..1.

    Args:
        depth: factor for the repeats of each stage, rounded up; added blocks have no strides.
        width: factor for all filters, rounded to multiples of 8.
        resolution: factor for the 224 pixels, rounded to a multiple of 8.
        **options: `weights` (None, "imagenet" for those of `keras.applications`, or the path of a weight file),
            `classes` (1000), `classifier_activation` ("softmax"; None for logits).

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3) to probabilities (batch, classes).

    Raises:
        ValueError: the weights do not fit the coefficients or the number of classes.

    Example:
        >>> MobileNetV1(width=0.25, resolution=0.25).input_shape
        (None, 56, 56, 3)
    """
    return _create(mobilenet(depth, width, resolution), "MobileNet", **options)


def MobileNetV2(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0, **options: Any) -> Any:  # noqa: N802
    """Build MobileNetV2 (arXiv:1801.04381), scaled; arguments and images are those of `MobileNetV1`.

    Example:
        >>> MobileNetV2(width=0.25, classes=10).output_shape
        (None, 10)
    """
    return _create(mobilenet_v2(depth, width, resolution), "MobileNetV2", **options)


def ResNet50(  # noqa: N802
    depth: float = 1.0, width: float = 1.0, resolution: float = 1.0, *, strides_in: str = "first", **options: Any
) -> Any:
    """Build ResNet-50 (arXiv:1512.03385), scaled; the other arguments are those of `MobileNetV1`.

    Images are those of `keras.applications.resnet.preprocess_input`: BGR, with the mean of ImageNet subtracted.

    Args:
        strides_in: "first" (the first 1x1 of a block, as in `keras.applications`) or "middle" (its 3x3, which gives
            the network of 4.1 billion multiply-adds in the paper's tables).

    Example:
        >>> ResNet50(width=0.25, classes=10).output_shape
        (None, 10)
    """
    return _create(resnet50(depth, width, resolution, strides_in=strides_in), "ResNet50", **options)


def _create(
    rival: Rival,
    published: str,
    *,
    weights: str | Path | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
) -> Any:
    image = image_input(None, None, None, size=rival.resolution)
    x = image
    for i, block in enumerate(rival.blocks):
        x = _block(x, block, rival)
        if rival.pool and i == 0:
            x = keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
            x = keras.layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    model = keras.Model(image, _classify(x, rival, classes, classifier_activation), name=rival.name)
    if weights == "imagenet":
        _copy(_published(published, classes), model)
    elif weights is not None:
        model.load_weights(str(weights))
    return model


def _block(x: Any, block: Block, rival: Rival) -> Any:
    inputs = x
    shortcut = inputs if block.shortcut is None else _conv(inputs, block.shortcut, rival)
    for conv in block.convs:
        x = _conv(x, conv, rival)
    if block.skip:
        x = keras.layers.Add(name=f"{block.name}_add")([shortcut, x])
    return x if block.activation is None else _activate(x, block.activation, f"{block.name}_out")


def _conv(x: Any, conv: Conv, rival: Rival) -> Any:
    padding = "same"
    if rival.symmetric and conv.strides > 1 and conv.kernel_size > 1:
        x, padding = keras.layers.ZeroPadding2D(conv.kernel_size // 2, name=f"{conv.name}_pad")(x), "valid"
    options = {"strides": conv.strides, "padding": padding, "use_bias": rival.bias, "name": conv.name}
    if conv.depthwise:
        x = keras.layers.DepthwiseConv2D(conv.kernel_size, **options)(x)
    else:
        x = keras.layers.Conv2D(conv.filters, conv.kernel_size, **options)(x)
    x = keras.layers.BatchNormalization(
        axis=channel_axis(), momentum=rival.momentum, epsilon=rival.epsilon, name=conv.norm
    )(x)
    return x if conv.activation is None else _activate(x, conv.activation, f"{conv.name}_{conv.activation}")


def _activate(x: Any, activation: str, name: str) -> Any:
    return keras.layers.ReLU(6.0 if activation == "relu6" else None, name=name)(x)


def _classify(x: Any, rival: Rival, classes: int, activation: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D(keepdims=rival.conv_classifier, name="avg_pool")(x)
    if rival.dropout:
        x = keras.layers.Dropout(rival.dropout, name="dropout")(x)
    # As in `layers.head_initializer`.
    options = {
        "kernel_initializer": "glorot_uniform" if classes == 1000 else new_head_initializer(),
        "dtype": "float32",
    }
    if not rival.conv_classifier:
        return keras.layers.Dense(classes, activation=activation, name=rival.classifier, **options)(x)
    x = keras.layers.Conv2D(classes, 1, name=rival.classifier, **options)(x)
    x = keras.layers.Reshape((classes,), name="reshape")(x)
    return keras.layers.Activation(activation, dtype="float32", name="predictions")(x)


# --- weights ---


def _published(name: str, classes: int) -> Any:
    if classes != 1000:
        raise ValueError(
            f"classes is {classes!r} with weights='imagenet'. Expected 1000, the classes of ImageNet. Leave out "
            "classes or weights."
        )
    builder: Callable[..., Any] = getattr(keras.applications, name)
    return builder(weights="imagenet")


def _copy(source: Any, model: Any) -> None:
    """Copy weights between layers of equal names; raise if a layer is missing or has another shape."""
    theirs = {layer.name: layer.get_weights() for layer in source.layers if layer.weights}
    ours = {layer.name: layer for layer in model.layers if layer.weights}
    wrong = [f"{name} is only in one of the networks" for name in sorted(set(theirs) ^ set(ours))]
    for name in theirs.keys() & ours.keys():
        shapes = [[array.shape for array in theirs[name]], [tuple(weight.shape) for weight in ours[name].weights]]
        if shapes[0] != shapes[1]:
            wrong.append(f"{name} has the shapes {shapes[0]} instead of {shapes[1]}")
    if wrong:
        raise ValueError(
            f"The weights do not fit {model.name}: {'; '.join(wrong[:5])} ({len(wrong)} differences). Expected the "
            "published network. Leave depth, width and resolution at 1.0, or pass weights=None."
        )
    for name, layer in ours.items():
        layer.set_weights(theirs[name])
