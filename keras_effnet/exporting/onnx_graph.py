"""An ONNX graph, built operation by operation from images (batch, height, width, channels).

Feature maps are (batch, channels, height, width), as ONNX requires; kernels are given with the axes of Keras.
Source of the operations: github.com/onnx/onnx/blob/main/docs/Operators.md, operator set 17 (ONNX Runtime 1.12, 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # of the same release as the operator set: older engines refuse newer ones
PRODUCER = "keras_effnet"


@dataclass(frozen=True)
class Tensor:
    """A value in the graph.

    Args:
        name: its name.
        shape: without the batch: (channels, height, width) of feature maps, or (channels,); None is any side.
    """

    name: str
    shape: tuple[int | None, ...]


class OnnxGraph:
    """The operations and constants of a graph. Each method adds one layer and returns its output.

    Args:
        shape: of the images, (height, width, channels); None is any side.
    """

    def __init__(self, shape: Sequence[int | None]) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", *shape])
        height, width, channels = shape
        self.images = self._add("Transpose", ["images"], "pixels", (channels, height, width), perm=[0, 3, 1, 2])

    def _add(self, kind: str, inputs: list[str], name: str, shape: Sequence[int | None], **attributes: Any) -> Tensor:
        # No value has the name of an input or an output, whatever the layers are called.
        value = f"{name}:0"
        self._nodes.append(helper.make_node(kind, inputs, [value], name, **attributes))
        return Tensor(value, tuple(shape))

    def _constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def scale(self, x: Tensor, factor: Any, summand: Any, *, name: str) -> Tensor:
        """Compute `x * factor + summand`, each a number or one number per channel."""
        axes = (-1, *(1,) * (len(x.shape) - 1))
        for kind, value, idle in (("Mul", factor, 1), ("Add", summand, 0)):
            numbers = np.asarray(value, np.float32).reshape(axes)
            if (numbers != idle).any():
                label = f"{name}/{kind.lower()}"
                x = self._add(kind, [x.name, self._constant(f"{label}/value", numbers)], label, x.shape)
        return x

    def conv(
        self,
        x: Tensor,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        *,
        name: str,
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        groups: int = 1,
        same: bool = True,
    ) -> Tensor:
        """Convolve with a kernel (height, width, in / groups, out); a depthwise one has as many groups as channels.

        Args:
            x: the input.
            kernel: the kernel.
            bias: (out,), or None.
            name: the name of the layer.
            strides, dilations: of height and width.
            groups: the number of groups.
            same: pad with zeros as TensorFlow does; otherwise nothing is padded.
        """
        inputs = [x.name, self._constant(f"{name}/kernel", kernel.transpose(3, 2, 0, 1))]
        if bias is not None:
            inputs.append(self._constant(f"{name}/bias", bias))
        reach = [(side - 1) * step + 1 for side, step in zip(kernel.shape[:2], dilations, strict=True)]
        sides = x.shape[1:]
        padding = _padding(sides, reach, strides) if same else {"pads": [0, 0, 0, 0]}
        outputs = [_strided(side, each, step, same) for side, each, step in zip(sides, reach, strides, strict=True)]
        options = {"strides": list(strides), "dilations": list(dilations), "group": groups} | padding
        shape = (kernel.shape[3], *outputs)
        return self._add("Conv", inputs, name, shape, kernel_shape=list(kernel.shape[:2]), **options)

    def pad(self, x: Tensor, padding: Sequence[Sequence[int]], *, name: str) -> Tensor:
        """Pad with zeros; `padding` is ((top, bottom), (left, right))."""
        (top, bottom), (left, right) = padding
        pads = self._constant(f"{name}/pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
        height, width = (side and side + sum(pair) for side, pair in zip(x.shape[1:], padding, strict=True))
        return self._add("Pad", [x.name, pads], name, (x.shape[0], height, width))

    def normalize(self, x: Tensor, variables: Sequence[np.ndarray], epsilon: float, *, name: str) -> Tensor:
        """Batch normalisation over the channels; `variables` are gamma, beta, mean and variance."""
        labels = ("gamma", "beta", "mean", "variance")
        constants = [self._constant(f"{name}/{label}", value) for label, value in zip(labels, variables, strict=True)]
        return self._add("BatchNormalization", [x.name, *constants], name, x.shape, epsilon=epsilon)

    def activate(self, x: Tensor, activation: str, *, name: str) -> Tensor:
        """Apply an activation, one of `ACTIVATIONS`."""
        if activation in ("swish", "silu"):
            weight = self._add("Sigmoid", [x.name], f"{name}/sigmoid", x.shape)
            return self._add("Mul", [x.name, weight.name], name, x.shape)
        if activation == "relu6":
            limits = [self._constant("relu6/min", 0.0), self._constant("relu6/max", 6.0)]
            return self._add("Clip", [x.name, *limits], name, x.shape)
        kind = ACTIVATIONS[activation]
        return self._add(kind, [x.name], name, x.shape, **({"axis": 1} if kind == "Softmax" else {})) if kind else x

    def mean(self, x: Tensor, *, keepdims: bool, name: str) -> Tensor:
        """The mean of each feature map."""
        return self._reduced("GlobalAveragePool", x, keepdims, name)

    def maximum(self, x: Tensor, *, keepdims: bool, name: str) -> Tensor:
        """The maximum of each feature map."""
        return self._reduced("GlobalMaxPool", x, keepdims, name)

    def _reduced(self, kind: str, x: Tensor, keepdims: bool, name: str) -> Tensor:
        if keepdims:
            return self._add(kind, [x.name], name, (x.shape[0], 1, 1))
        pooled = self._add(kind, [x.name], f"{name}/pool", (x.shape[0], 1, 1))
        return self._add("Flatten", [pooled.name], name, x.shape[:1])

    def unsqueeze(self, x: Tensor, *, name: str) -> Tensor:
        """(batch, channels) as feature maps of one pixel."""
        axes = self._constant("unsqueeze/axes", [2, 3], np.int64)
        return self._add("Unsqueeze", [x.name, axes], name, (*x.shape, 1, 1))

    def dense(self, x: Tensor, kernel: np.ndarray, bias: np.ndarray | None, *, name: str) -> Tensor:
        """A dense layer; the kernel is (in, out)."""
        inputs = [x.name, self._constant(f"{name}/kernel", kernel)]
        if bias is not None:
            inputs.append(self._constant(f"{name}/bias", bias))
        return self._add("Gemm", inputs, name, kernel.shape[1:])

    def add(self, tensors: Sequence[Tensor], *, name: str) -> Tensor:
        """The sum of tensors of one shape, or with sides of 1."""
        return self._folded("Add", tensors, name)

    def multiply(self, tensors: Sequence[Tensor], *, name: str) -> Tensor:
        """The product of tensors of one shape, or with sides of 1."""
        return self._folded("Mul", tensors, name)

    def concatenate(self, tensors: Sequence[Tensor], *, name: str) -> Tensor:
        """The channels of several tensors, one after the other."""
        channels = sum(each.shape[0] or 0 for each in tensors)
        inputs = [each.name for each in tensors]
        return self._add("Concat", inputs, name, (channels, *tensors[0].shape[1:]), axis=1)

    def _folded(self, kind: str, tensors: Sequence[Tensor], name: str) -> Tensor:
        result, *others = tensors
        for number, other in enumerate(others, 1):
            label = name if number == len(others) else f"{name}/{number}"
            wider = max(result, other, key=lambda each: [side or np.inf for side in each.shape])
            result = self._add(kind, [result.name, other.name], label, wider.shape)
        return result

    def model(self, outputs: Sequence[tuple[str, Tensor]]) -> Any:
        """The finished ModelProto.

        Args:
            outputs: the name and the value of each output. Feature maps get the axes of the images.
        """
        infos = []
        for name, x in outputs:
            is_map = len(x.shape) == 3
            options: dict[str, Any] = {"perm": [0, 2, 3, 1]} if is_map else {}
            kind = "Transpose" if is_map else "Identity"
            self._nodes.append(helper.make_node(kind, [x.name], [name], f"{name}/output", **options))
            shape = [*x.shape[1:], x.shape[0]]
            infos.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape]))
        graph = helper.make_graph(self._nodes, PRODUCER, [self._images], infos, list(self._constants.values()))
        opset = helper.make_opsetid("", OPSET)
        made = helper.make_model(graph, opset_imports=[opset], producer_name=PRODUCER, ir_version=IR_VERSION)
        onnx.checker.check_model(made)
        return made


# The operation of each activation; "" does nothing, None is written as several operations.
ACTIVATIONS = {
    "linear": "",
    "relu": "Relu",
    "relu6": None,
    "sigmoid": "Sigmoid",
    "silu": None,
    "softmax": "Softmax",
    "swish": None,
    "tanh": "Tanh",
}


def _padding(sides: Sequence[int | None], reach: Sequence[int], strides: Sequence[int]) -> dict[str, Any]:
    """The attribute for "same" padding; numbers where they are known, which more engines read."""
    before, after = [], []
    for side, each, step in zip(sides, reach, strides, strict=True):
        if side is None and step > 1:
            return {"auto_pad": "SAME_UPPER"}
        missing = each - 1 if side is None else max(0, (-(-side // step) - 1) * step + each - side)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    return {"pads": [*before, *after]}


def _strided(side: int | None, reach: int, step: int, same: bool) -> int | None:
    if side is None:
        return None
    return -(-side // step) if same else (side - reach) // step + 1
