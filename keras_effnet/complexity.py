"""The cost of a network: parameters, multiply-adds and memory, computed from its table without building a graph."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from keras_effnet.blocks import BlockArgs
from keras_effnet.scaling import block_name
from keras_effnet.variants import Variant, as_variant

FLOAT32_BYTES = 4


class Layer(NamedTuple):
    """One convolution or dense layer with the batch normalisation that follows it, for one image.

    Args:
        name: the name in the model, such as "block1a_dwconv".
        stage: number of the stage as in Table 1, from 1 (stem) to the last (head).
        inputs: input filters.
        filters: output filters.
        kernel_size: side of the kernel, in pixels.
        input_size: side of the input map, in pixels.
        output_size: side of the output map, in pixels.
        groups: 1, or `inputs` for a depthwise convolution.
        bias: whether it has a bias, as squeeze-and-excitation and the classifier do.
        norm: whether batch normalisation follows.
    """

    name: str
    stage: int
    inputs: int
    filters: int
    kernel_size: int = 1
    input_size: int = 1
    output_size: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True

    @property
    def kernel(self) -> int:
        """Weights of the kernel."""
        return self.kernel_size**2 * self.inputs // self.groups * self.filters

    @property
    def trainable(self) -> int:
        """Trainable weights: kernel, bias, and gamma and beta of batch normalisation."""
        return self.kernel + self.filters * (self.bias + 2 * self.norm)

    @property
    def parameters(self) -> int:
        """All weights: the trainable ones and the two moving statistics of batch normalisation."""
        return self.trainable + 2 * self.filters * self.norm

    @property
    def activations(self) -> int:
        """Output elements."""
        return self.output_size**2 * self.filters

    @property
    def macs(self) -> int:
        """Multiply-adds, which the paper calls FLOPS."""
        return self.kernel * self.output_size**2

    @property
    def memory(self) -> int:
        """Elements of input and output together."""
        return self.input_size**2 * self.inputs + self.activations


@dataclass(frozen=True)
class Stage:
    """One row of Table 1: operator, input resolution, output channels, number of layers; and its cost."""

    operator: str
    resolution: int
    channels: int
    layers: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """The cost of a network for one image, summed over its layers.

    Args:
        parameters: all weights, as in `model.count_params()`.
        trainable: trainable weights.
        macs: multiply-adds of convolutions and dense layers (the paper's "FLOPS").
        activations: output elements of convolutions and dense layers.
        weight_bytes: bytes of the weights in float32.
        peak_bytes: bytes of the largest input and output of one layer in float32, the minimum that inference needs
            in addition to the weights.
    """

    parameters: int
    trainable: int
    macs: int
    activations: int
    weight_bytes: int
    peak_bytes: int


def complexity(
    variant: Variant | str,
    *,
    resolution: int | None = None,
    classes: int = 1000,
    in_channels: int = 3,
    include_top: bool = True,
) -> Complexity:
    """Compute the cost of a network; the arguments are those of `layers`.

    Example:
        >>> complexity("b0").trainable
        5288548
    """
    trainable = statistics = macs = activations = peak = 0
    # The properties of Layer, inlined for speed: a search computes this for thousands of networks.
    for row, count in _walk(variant, resolution, classes, in_channels, include_top, merge=True):
        _, _, inputs, filters, kernel_size, input_size, output_size, groups, bias, norm = row
        kernel = kernel_size * kernel_size * inputs // groups * filters
        pixels = output_size * output_size
        memory = input_size * input_size * inputs + pixels * filters
        trainable += count * (kernel + filters * (bias + 2 * norm))
        statistics += count * 2 * filters * norm
        macs += count * kernel * pixels
        activations += count * pixels * filters
        peak = memory if memory > peak else peak
    parameters = trainable + statistics
    weight_bytes, peak_bytes = parameters * FLOAT32_BYTES, peak * FLOAT32_BYTES
    return Complexity(parameters, trainable, macs, activations, weight_bytes, peak_bytes)


def table(variant: Variant | str, resolution: int | None = None, *, classes: int = 1000) -> tuple[Stage, ...]:
    """Return Table 1 of the paper for any variant, with the cost of each row; the arguments are those of `layers`.

    Example:
        >>> [row.channels for row in table("b0")]
        [32, 16, 24, 40, 80, 112, 192, 320, 1280]
    """
    variant = as_variant(variant)
    blocks = variant.stages
    operators = ["Conv3x3", *(_operator(row) for row in blocks), "Conv1x1 & Pooling & FC"]
    channels = [variant.stem, *(row.filters for row in blocks), variant.head]
    counts = [1, *(row.repeats for row in blocks), 1]
    grouped = groupby(layers(variant, resolution, classes=classes), key=lambda row: row.stage)
    stages = []
    for (_, group), operator, filters, count in zip(grouped, operators, channels, counts, strict=True):
        rows = list(group)
        parameters, macs = sum(row.parameters for row in rows), sum(row.macs for row in rows)
        stages.append(Stage(operator, rows[0].input_size, filters, count, parameters, macs))
    return tuple(stages)


def _operator(row: BlockArgs) -> str:
    kind = "MBConv" if row.conv_type == "depthwise" else "Fused-MBConv"
    return f"{kind}{row.expand_ratio}, k{row.kernel_size}x{row.kernel_size}"


def layers(
    variant: Variant | str,
    resolution: int | None = None,
    *,
    classes: int = 1000,
    in_channels: int = 3,
    include_top: bool = True,
) -> Iterator[Layer]:
    """Iterate over the layers with weights, in the order of the graph.

    Args:
        variant: the name of a network, a row of `VARIANTS`, or a row of your own.
        resolution: side of the square input image in pixels; the variant's own by default.
        classes: outputs of the classifier.
        in_channels: channels of the input image.
        include_top: whether to include the classifier.

    Raises:
        ValueError: the resolution is below 32 pixels, the total stride of the network.
    """
    return (row for row, _ in _walk(variant, resolution, classes, in_channels, include_top, merge=False))


def _walk(
    variant: Variant | str, resolution: int | None, classes: int, in_channels: int, include_top: bool, *, merge: bool
) -> Iterator[tuple[Layer, int]]:
    """Each layer and how often it occurs; `merge` yields the equal blocks of a stage, all except its first, once."""
    variant = as_variant(variant)
    size = variant.resolution if resolution is None else resolution
    if size < 32:
        raise ValueError(f"resolution is {size!r}. Expected at least 32 pixels.")
    blocks = variant.stages
    inputs, half = variant.stem, _strided(size, 2)
    yield Layer("stem_conv", 1, in_channels, inputs, 3, size, half), 1
    size = half
    for i, row in enumerate(blocks, start=1):
        counts = (1, row.repeats - 1) if merge and row.repeats > 1 else (1,) * row.repeats
        for j, count in enumerate(counts):
            strides = row.strides if j == 0 else 1
            for layer in _block(
                block_name(i, j), i + 1, row, inputs, size, strides=strides, depthwise=variant.depthwise
            ):
                yield layer, count
            inputs, size = row.filters, _strided(size, strides)
    head = len(blocks) + 2
    yield Layer("top_conv", head, inputs, variant.head, 1, size, size), 1
    if include_top:
        yield Layer("predictions", head, variant.head, classes, bias=True, norm=False), 1


def _block(
    name: str, stage: int, row: BlockArgs, inputs: int, size: int, *, strides: int, depthwise: str
) -> Iterator[Layer]:
    width, kernel, out = inputs * row.expand_ratio, row.kernel_size, _strided(size, strides)
    fused = row.conv_type == "fused"
    if row.expand_ratio > 1:
        # The kernel of a fused block is in its expansion; without an expansion, in its projection.
        expand = (kernel, size, out) if fused else (1, size, size)
        yield Layer(f"{name}_expand_conv", stage, inputs, width, *expand)
    if not fused:
        yield Layer(f"{name}_{depthwise}", stage, width, width, kernel, size, out, groups=width)
    if row.se_ratio:
        squeezed = max(1, int(inputs * row.se_ratio))
        yield Layer(f"{name}_se_reduce", stage, width, squeezed, bias=True, norm=False)
        yield Layer(f"{name}_se_expand", stage, squeezed, width, bias=True, norm=False)
    project = (kernel, size, out) if fused and row.expand_ratio == 1 else (1, out, out)
    yield Layer(f"{name}_project_conv", stage, width, row.filters, *project)


def _strided(size: int, strides: int) -> int:
    # "same" padding rounds up.
    return -(-size // strides)
