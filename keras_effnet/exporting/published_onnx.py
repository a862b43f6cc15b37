"""A network by name as an ONNX graph, with batch normalisation folded into the convolutions (arXiv:1712.05877, 3.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.exporting.onnx_graph import OnnxGraph, Tensor
from keras_effnet.exporting.published import Variables, compute
from keras_effnet.variants import Variant
from keras_effnet.weights.opening import Pretrained


def to_onnx(variant: Variant, pretrained: Pretrained) -> Any:
    """The ModelProto of a network with batch normalisation folded into its convolutions.

    Args:
        variant: the network; its resolution is the size of the images.
        pretrained: its weights, with the classifier.
    """
    side = variant.resolution
    graph = OnnxGraph((side, side, 3))
    result = compute(variant, _Graph(Variables(pretrained, variant.depthwise), graph))
    return graph.model([("probabilities", result)])


@dataclass
class _Graph:
    weights: Variables
    graph: OnnxGraph

    def pixels(self) -> Tensor:
        # The factor is folded into the stem. The mean stays: the padding of the stem is a mean pixel.
        mean = -np.asarray(self.weights.pretrained.normalization.mean)
        return self.graph.scale(self.graph.images, 1.0, mean, name="normalization")

    def conv(self, x: Tensor, name: str, strides: int = 1) -> Tensor:
        kernel, bias = self._folded(name)
        groups = 1
        if self.weights.is_depthwise(name):
            groups, kernel = kernel.shape[2], kernel.reshape(*kernel.shape[:2], 1, -1)
        padded = self.weights.is_padded(name, strides)
        if padded:
            reach = kernel.shape[0] // 2
            x = self.graph.pad(x, ((reach, reach), (reach, reach)), name=f"{name}_pad")
        return self.graph.conv(x, kernel, bias, name=name, strides=(strides, strides), groups=groups, same=not padded)

    def _folded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        kernel, bias = self.weights.kernel(name).astype(np.float64), self.weights.bias(name)
        if name == "stem_conv":
            kernel = kernel * np.asarray(self.weights.pretrained.normalization.scale)[:, None]
        affine = self.weights.affine(name)
        if affine is not None:
            scale, bias = affine
            kernel = kernel * (scale[:, None] if self.weights.is_depthwise(name) else scale)
        if bias is None:
            raise KeyError(f"{name}/bias")
        return kernel, bias

    def activate(self, x: Tensor, kind: str, name: str) -> Tensor:
        return self.graph.activate(x, kind, name=name)

    def mean(self, x: Tensor, name: str) -> Tensor:
        return self.graph.mean(x, keepdims=True, name=name)

    def multiply(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return self.graph.multiply([x, y], name=name)

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return self.graph.add([x, y], name=name)

    def classify(self, x: Tensor) -> Tensor:
        means = self.graph.mean(x, keepdims=False, name="avg_pool")
        kernel, bias = self.weights.kernel("predictions"), self.weights.bias("predictions")
        logits = self.graph.dense(means, kernel, bias, name="predictions")
        return self.graph.activate(logits, "softmax", name="predictions/softmax")
