"""A network by name computed by NumPy, one operation after the other as it is written: the check of its exports."""

from dataclasses import dataclass, field

import numpy as np

from keras_effnet.exporting.published import Variables, compute
from keras_effnet.variants import Variant
from keras_effnet.weights.opening import Pretrained


def predict(variant: Variant, pretrained: Pretrained, images: np.ndarray) -> np.ndarray:
    """The probabilities, float32 (batch, classes), of images (batch, size, size, 3) with pixels 0..255."""
    weights = Variables(pretrained, variant.depthwise)
    return np.concatenate([compute(variant, _Arrays(weights, image[None])) for image in images])


@dataclass
class _Arrays:
    weights: Variables
    images: np.ndarray = field(repr=False)

    def pixels(self) -> np.ndarray:
        constants = self.weights.pretrained.normalization
        mean, std = np.asarray(constants.mean, np.float32), np.asarray(constants.std, np.float32)
        return (self.images.astype(np.float32) - mean) / std

    def conv(self, x: np.ndarray, name: str, strides: int = 1) -> np.ndarray:
        kernel, bias, affine = self.weights.kernel(name), self.weights.bias(name), self.weights.affine(name)
        x = _pad(x, kernel.shape[0], strides, symmetric=self.weights.is_padded(name, strides))
        x = _depthwise(x, kernel, strides) if self.weights.is_depthwise(name) else _convolve(x, kernel, strides)
        if bias is not None:
            x += bias
        if affine is not None:
            scale, offset = affine
            x *= scale.astype(np.float32)
            x += offset.astype(np.float32)
        return x

    def activate(self, x: np.ndarray, kind: str, name: str) -> np.ndarray:
        if kind == "relu6":
            return np.clip(x, 0, 6, out=x)
        if kind == "relu":
            return np.maximum(x, 0, out=x)
        weight = np.exp(-np.clip(x, -80, 80))
        weight += 1
        return 1 / weight if kind == "sigmoid" else x / weight

    def mean(self, x: np.ndarray, name: str) -> np.ndarray:
        return x.mean(axis=(1, 2), keepdims=True)

    def multiply(self, x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
        return x * y

    def add(self, x: np.ndarray, y: np.ndarray, name: str) -> np.ndarray:
        return x + y

    def classify(self, x: np.ndarray) -> np.ndarray:
        bias = self.weights.bias("predictions")
        logits = x.mean(axis=(1, 2)) @ self.weights.kernel("predictions") + (0 if bias is None else bias)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _pad(x: np.ndarray, side: int, strides: int, *, symmetric: bool) -> np.ndarray:
    if side == 1:
        return x
    size = x.shape[1]
    missing = max(0, (-(-size // strides) - 1) * strides + side - size)
    before, after = (side // 2, side // 2) if symmetric else (missing // 2, missing - missing // 2)
    return np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))


def _depthwise(x: np.ndarray, kernel: np.ndarray, strides: int) -> np.ndarray:
    side = kernel.shape[0]
    size = (x.shape[1] - side) // strides + 1
    total = np.zeros((len(x), size, size, x.shape[3]), np.float32)
    for row in range(side):
        for column in range(side):
            stop = strides * (size - 1) + 1
            total += x[:, row : row + stop : strides, column : column + stop : strides] * kernel[row, column, :, 0]
    return total


def _convolve(x: np.ndarray, kernel: np.ndarray, strides: int) -> np.ndarray:
    side = kernel.shape[0]
    size = (x.shape[1] - side) // strides + 1
    stop = strides * (size - 1) + 1
    total = np.zeros((len(x) * size * size, kernel.shape[3]), np.float32)
    for row in range(side):
        for column in range(side):
            pixels = x[:, row : row + stop : strides, column : column + stop : strides]
            # One large product: NumPy would compute one for each row of pixels.
            total += pixels.reshape(-1, kernel.shape[2]) @ kernel[row, column]
    return total.reshape(len(x), size, size, -1)
