"""Tables of the networks in Table 3, and their cost (MobileNet arXiv:1704.04861, V2 1801.04381, ResNet 1512.03385).

The graph (rivals.py) and the cost use the same rows. Names, padding and biases are those of `keras.applications`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_effnet.complexity import Layer
from keras_effnet.scaling import Coefficients, round_filters, round_repeats, round_resolution

RESOLUTION = 224


@dataclass(frozen=True)
class Conv:
    """A convolution with the batch normalisation that follows it.

    Args:
        name: name of the convolution.
        norm: name of its batch normalisation.
        filters: output filters; for a depthwise convolution, those of its input.
        kernel_size: side of the kernel in pixels.
        strides: 1 or 2.
        depthwise: whether it has one kernel per input filter.
        activation: "relu", "relu6" or None.
    """

    name: str
    norm: str
    filters: int
    kernel_size: int = 1
    strides: int = 1
    depthwise: bool = False
    activation: str | None = None


@dataclass(frozen=True)
class Block:
    """A sequence of convolutions with an optional residual connection.

    Args:
        name: name of the block; its addition is called `name` plus "_add".
        convs: the convolutions.
        skip: whether there is a residual connection.
        shortcut: a convolution in the residual connection.
        activation: activation after the addition.
    """

    name: str
    convs: tuple[Conv, ...]
    skip: bool = False
    shortcut: Conv | None = None
    activation: str | None = None


@dataclass(frozen=True)
class Rival:
    """A network of Table 3, scaled.

    Args:
        name: name in `keras.applications`.
        resolution: side of the square image in pixels.
        blocks: stem, blocks and head.
        pool: whether a max pooling with strides 2 follows the first block.
        bias: whether the convolutions have biases, as in ResNet of `keras.applications`.
        epsilon: constant added to the variance in batch normalisation.
        momentum: momentum of the moving statistics in batch normalisation.
        classifier: name of the classifier.
        dropout: dropout rate before the classifier.
        symmetric: pad strided convolutions equally on all sides; otherwise the extra pixel is added at the bottom and
            the right.
        conv_classifier: whether the classifier is a 1 x 1 convolution, as in MobileNet of `keras.applications`.
    """

    name: str
    resolution: int
    blocks: tuple[Block, ...]
    pool: bool = False
    bias: bool = False
    epsilon: float = 1e-3
    momentum: float = 0.99
    classifier: str = "predictions"
    dropout: float = 0.0
    symmetric: bool = False
    conv_classifier: bool = False


# --- the rows ---

MOBILENET = (
    # repeats  filters  strides: depthwise 3x3, then 1x1 (arXiv:1704.04861, Table 1)
    (1,        64,      1),
    (2,        128,     2),
    (2,        256,     2),
    (6,        512,     2),
    (2,        1024,    2),
)  # fmt: skip

MOBILENET_V2 = (
    # repeats  expand  filters  strides (arXiv:1801.04381, Table 2)
    (1,        1,      16,      1),
    (2,        6,      24,      2),
    (3,        6,      32,      2),
    (4,        6,      64,      2),
    (3,        6,      96,      1),
    (3,        6,      160,     2),
    (1,        6,      320,     1),
)  # fmt: skip

RESNET50 = (
    # repeats  filters  strides (arXiv:1512.03385, Table 1)
    (3,        64,      1),
    (4,        128,     2),
    (6,        256,     2),
    (3,        512,     2),
)  # fmt: skip


def mobilenet(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> Rival:
    """Return MobileNetV1, scaled. Repeats are rounded up, filters and resolution to multiples of 8."""
    scaled = Coefficients(depth, width, resolution)
    blocks = [Block("conv1", (Conv("conv1", "conv1_bn", _filters(32, scaled), 3, 2, activation="relu6"),))]
    inputs = _filters(32, scaled)
    for i, (filters, strides) in enumerate(_repeated(MOBILENET, scaled), start=1):
        dw, pw = f"conv_dw_{i}", f"conv_pw_{i}"
        spread = Conv(dw, f"{dw}_bn", inputs, 3, strides, depthwise=True, activation="relu6")
        blocks.append(Block(pw, (spread, Conv(pw, f"{pw}_bn", _filters(filters, scaled), activation="relu6"))))
        inputs = _filters(filters, scaled)
    size = round_resolution(RESOLUTION, resolution)
    return Rival("mobilenet", size, tuple(blocks), classifier="conv_preds", dropout=1e-3, conv_classifier=True)


def mobilenet_v2(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0) -> Rival:
    """Return MobileNetV2, scaled like MobileNetV1. The last convolution never has fewer than 1280 filters."""
    scaled = Coefficients(depth, width, resolution)
    inputs = _filters(32, scaled)
    blocks = [Block("Conv1", (Conv("Conv1", "bn_Conv1", inputs, 3, 2, activation="relu6"),))]
    for i, (expand, filters, strides) in enumerate(_repeated(MOBILENET_V2, scaled)):
        name = f"block_{i}" if i else "expanded_conv"
        inner, outputs = inputs * expand, _filters(filters, scaled)
        convs = [Conv(f"{name}_expand", f"{name}_expand_BN", inner, activation="relu6")] if expand > 1 else []
        convs.append(
            Conv(f"{name}_depthwise", f"{name}_depthwise_BN", inner, 3, strides, depthwise=True, activation="relu6")
        )
        convs.append(Conv(f"{name}_project", f"{name}_project_BN", outputs))
        blocks.append(Block(name, tuple(convs), skip=strides == 1 and inputs == outputs))
        inputs = outputs
    head = max(1280, _filters(1280, scaled))
    blocks.append(Block("Conv_1", (Conv("Conv_1", "Conv_1_bn", head, activation="relu6"),)))
    size = round_resolution(RESOLUTION, resolution)
    return Rival("mobilenetv2_1.00_224", size, tuple(blocks), momentum=0.999)


def resnet50(depth: float = 1.0, width: float = 1.0, resolution: float = 1.0, *, strides_in: str = "first") -> Rival:
    """Return ResNet-50, scaled. `strides_in` is "first" (the first 1x1, as in `keras.applications`) or "middle" (3x3).

    Raises:
        ValueError: `strides_in` has another value.
    """
    if strides_in not in ("first", "middle"):
        raise ValueError(
            f"strides_in is {strides_in!r}. Expected 'first' or 'middle'. keras.applications uses 'first'."
        )
    scaled = Coefficients(depth, width, resolution)
    blocks = [Block("conv1", (Conv("conv1_conv", "conv1_bn", _filters(64, scaled), 7, 2, activation="relu"),))]
    for stage, (repeats, filters, strides) in enumerate(RESNET50, start=2):
        inner = _filters(filters, scaled)
        for i in range(1, round_repeats(repeats, depth) + 1):
            name, step = f"conv{stage}_block{i}", strides if i == 1 else 1
            first, middle = (step, 1) if strides_in == "first" else (1, step)
            convs = (
                Conv(f"{name}_1_conv", f"{name}_1_bn", inner, 1, first, activation="relu"),
                Conv(f"{name}_2_conv", f"{name}_2_bn", inner, 3, middle, activation="relu"),
                Conv(f"{name}_3_conv", f"{name}_3_bn", 4 * inner),
            )
            shortcut = Conv(f"{name}_0_conv", f"{name}_0_bn", 4 * inner, 1, step) if i == 1 else None
            blocks.append(Block(name, convs, True, shortcut, "relu"))
    size = round_resolution(RESOLUTION, resolution)
    return Rival("resnet50", size, tuple(blocks), pool=True, bias=True, epsilon=1.001e-5, symmetric=True)


RIVALS: Mapping[str, Callable[..., Rival]] = MappingProxyType(
    {"MobileNetV1": mobilenet, "MobileNetV2": mobilenet_v2, "ResNet-50": resnet50}
)


def _filters(filters: int, scaled: Coefficients) -> int:
    return round_filters(filters, scaled.width)


def _repeated(rows: tuple[tuple[int, ...], ...], scaled: Coefficients) -> Iterator[tuple[int, ...]]:
    """The columns after the repeats, once per block; only the first block of a row has its strides."""
    for repeats, *columns, strides in rows:
        for j in range(round_repeats(repeats, scaled.depth)):
            yield *columns, strides if j == 0 else 1


# --- the cost ---


def rival_layers(rival: Rival, classes: int = 1000) -> Iterator[Layer]:
    """Iterate over the layers with weights, as `complexity.layers` does for our networks."""
    inputs, size = 3, rival.resolution
    for stage, block in enumerate(rival.blocks, start=1):
        before, begin = inputs, size
        for conv in block.convs:
            yield _layer(conv, stage, inputs, size, rival)
            inputs, size = conv.filters, math.ceil(size / conv.strides)
        if block.shortcut is not None:
            yield _layer(block.shortcut, stage, before, begin, rival)
        if rival.pool and stage == 1:
            size = math.ceil(size / 2)
    yield Layer(rival.classifier, len(rival.blocks) + 1, inputs, classes, bias=True, norm=False)


def rival_macs(rival: Rival) -> int:
    """Compute the multiply-adds for one image, which the paper calls FLOPS.

    Example:
        >>> round(rival_macs(mobilenet()) / 1e6)
        569
    """
    return sum(layer.macs for layer in rival_layers(rival))


def _layer(conv: Conv, stage: int, inputs: int, size: int, rival: Rival) -> Layer:
    groups = inputs if conv.depthwise else 1
    out = math.ceil(size / conv.strides)
    return Layer(conv.name, stage, inputs, conv.filters, conv.kernel_size, size, out, groups, rival.bias)
