"""Which steps of a network calculate in 8 bits, and which outputs are rounded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from keras_effnet._keras import keras
from keras_effnet.inference.fusion import CONVOLUTIONS
from keras_effnet.inference.layer_steps import Step, activation_of

# A convolution with 8-bit outputs can clip at no cost.
CLIPPING = ("relu", "relu6")
SWISH = ("swish", "silu")


@dataclass(frozen=True)
class Arithmetic:
    """How an engine calculates in 8 bits.

    Args:
        fused: the activations that it applies before it rounds the output of a convolution.
        levels: the number of steps of a weight, from 0 to the largest one of its channel.
    """

    fused: tuple[str, ...]
    levels: int


LITERT = Arithmetic(CLIPPING, 127)
# Processors with AVX2 but without VNNI add two products in 16 bits and saturate: 2 x 255 x 64 still fits.
OPENVINO = Arithmetic((*CLIPPING, *SWISH), 64)


def is_convolution(layer: Any) -> bool:
    """Whether a layer is a convolution that can run in 8 bits: its output is a feature map, and it clips at most."""
    return (
        type(layer) in CONVOLUTIONS
        and layer.data_format == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "depth_multiplier", 1) == 1
        and layer.use_bias
        and activation_of(layer) in ("linear", *CLIPPING)
        # The convolutions of squeeze-and-excitation are cheap, and their outputs scale whole channels.
        and tuple(layer.output.shape[1:3]) != (1, 1)
    )


def in_8_bits(steps: Sequence[Step], kept: Collection[str]) -> frozenset[str]:
    """The steps that calculate in 8 bits. The steps in `kept` stay in float32."""
    return frozenset(step.name for step in steps if step.name not in kept and _has_8_bits(step.layer))


def _has_8_bits(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return activation_of(layer) in (*CLIPPING, *SWISH)
    # Only the mean inside squeeze-and-excitation; the one before the classifier stays in float32 with it.
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return bool(layer.keepdims)
    return is_convolution(layer) or type(layer) in (
        keras.layers.Add,
        keras.layers.Multiply,
        keras.layers.ZeroPadding2D,
    )


def rounded_outputs(steps: Sequence[Step], eight: Collection[str], *, fused: Collection[str]) -> frozenset[str]:
    """The steps whose outputs are rounded: the inputs and outputs of 8-bit steps.

    The output of a convolution is not rounded if the engine applies the following activation first.

    Args:
        steps: the network.
        eight: the steps that calculate in 8 bits.
        fused: the activations that the engine applies before it rounds the output of a convolution.
    """
    takers: dict[str, list[Step]] = {}
    for step in steps:
        for source in step.sources:
            takers.setdefault(source, []).append(step)
    given = {source for step in steps if step.name in eight for source in step.sources}
    within = {
        step.name
        for step in steps
        if is_convolution(step.layer)
        and step.name in eight
        and [(taker.name in eight, activation_of(taker.layer) in fused) for taker in takers.get(step.name, ())]
        == [(True, True)]
        and isinstance(takers[step.name][0].layer, keras.layers.Activation)
    }
    return (frozenset(eight) | given) - within
