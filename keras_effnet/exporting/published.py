"""A network of the table as a sequence of operations, without Keras (arXiv:1905.11946, Table 1; fused: 2104.00298).

`published_onnx` writes the operations as a graph, `published_numpy` computes them.
"""

import re
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from keras_effnet.blocks import BlockArgs
from keras_effnet.scaling import block_name
from keras_effnet.variants import Variant
from keras_effnet.weights.opening import Pretrained

T = TypeVar("T")


class Operations(Protocol, Generic[T]):
    """What a network is made of, for one kind of values. Layers are named as in `keras.applications`."""

    def pixels(self) -> T:
        """The normalised images."""

    def conv(self, x: T, name: str, strides: int = 1) -> T:
        """A convolution with the batch normalisation after it, if it has one. A "dwconv" is depthwise."""

    def activate(self, x: T, kind: str, name: str) -> T:
        """An activation."""

    def mean(self, x: T, name: str) -> T:
        """The mean of each feature map, as a map of one pixel."""

    def multiply(self, x: T, y: T, name: str) -> T:
        """A product."""

    def add(self, x: T, y: T, name: str) -> T:
        """A sum."""

    def classify(self, x: T) -> T:
        """Probabilities from feature maps."""


def compute(variant: Variant, ops: Operations[T]) -> T:
    """The probabilities of a network."""
    activation = variant.activation
    x = ops.activate(ops.conv(ops.pixels(), "stem_conv", strides=2), activation, "stem_activation")
    inputs = variant.stem
    for stage, args in enumerate(variant.stages, start=1):
        for j in range(args.repeats):
            name, strides = block_name(stage, j), args.strides if j == 0 else 1
            y = _block(x, args, strides, variant, ops=ops, name=name)
            keeps_shape = args.skip and strides == 1 and args.filters == inputs
            x = ops.add(y, x, f"{name}_add") if keeps_shape else y
            inputs = args.filters
    return ops.classify(ops.activate(ops.conv(x, "top_conv"), activation, "top_activation"))


def _block(x: T, args: BlockArgs, strides: int, variant: Variant, *, ops: Operations[T], name: str) -> T:
    activation, fused = variant.activation, args.conv_type == "fused"
    if args.expand_ratio > 1:
        x = ops.conv(x, f"{name}_expand_conv", strides if fused else 1)
        x = ops.activate(x, activation, f"{name}_expand_activation")
    if not fused:
        x = ops.activate(ops.conv(x, f"{name}_{variant.depthwise}", strides), activation, f"{name}_activation")
    if args.se_ratio:
        weight = ops.activate(
            ops.conv(ops.mean(x, f"{name}_se_squeeze"), f"{name}_se_reduce"), activation, f"{name}_se"
        )
        weight = ops.activate(ops.conv(weight, f"{name}_se_expand"), "sigmoid", f"{name}_se_weight")
        x = ops.multiply(x, weight, f"{name}_se_excite")
    only = fused and args.expand_ratio == 1
    x = ops.conv(x, f"{name}_project_conv", strides if only else 1)
    return ops.activate(x, activation, f"{name}_project_activation") if only else x


@dataclass
class Variables:
    """The variables of a network, and what they were trained with."""

    pretrained: Pretrained
    depthwise: str

    def kernel(self, name: str) -> np.ndarray:
        return self.pretrained.state[f"{name}/kernel"]

    def bias(self, name: str) -> np.ndarray | None:
        return self.pretrained.state.get(f"{name}/bias")

    def affine(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Scale and offset of the batch normalisation after a convolution, None if there is none."""
        norm = re.sub(rf"({self.depthwise}|conv)$", "bn", name)
        if norm == name or f"{norm}/gamma" not in self.pretrained.state:
            return None
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (self.pretrained.state[f"{norm}/{each}"].astype(np.float64) for each in names)
        scale = gamma / np.sqrt(variance + self.pretrained.framework.bn_epsilon)
        return scale, beta - mean * scale

    def is_depthwise(self, name: str) -> bool:
        return name.endswith(self.depthwise)

    def is_padded(self, name: str, strides: int) -> bool:
        """Whether zeros are added on all sides, as PyTorch does; without a stride TensorFlow does so too."""
        return self.pretrained.framework.padding == "symmetric" and strides > 1
