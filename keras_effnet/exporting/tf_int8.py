"""Calibrates a network in 8 bits in one pass over the photos: ranges, weights and biases, layer by layer.

Every photo passes through the network twice in parallel: exactly, and with everything rounded so far. Each kernel is
rounded by the covariance of its rounded inputs (see `int8_rounding`), and each bias is corrected so that the mean of
the outputs stays exact (arXiv:1906.04721, section 4.2): errors of the mean are corrected where they arise.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.exporting.int8_rounding import LEVELS, clipped_range, round_layer
from keras_effnet.exporting.int8_steps import SWISH, Arithmetic, in_8_bits, is_convolution, rounded_outputs
from keras_effnet.inference.fusion import is_depthwise
from keras_effnet.inference.layer_steps import Step, activation_of, call_layer, follow

log = logging.getLogger(__name__)
BATCH = 8
# All feature maps of a layer are in memory, exact and rounded: 64 photos of 224 x 224 take about 1 GB.
PIXELS = 64 * 224**2
# Positions of each feature map that the covariance is computed from; the largest one has about 1,000 inputs.
PLACES = 40_000
# The range that LiteRT uses for a sigmoid.
SIGMOID = (0.0, 255 / 256)


@dataclass(frozen=True)
class Quantized:
    """A network that calculates mostly in 8 bits.

    Args:
        steps: the whole network.
        eight: the names of the steps that calculate in 8 bits.
        arithmetic: the arithmetic of the engine.
        ranges: the ranges of the rounded outputs, by the name of the step.
        weights: kernel and bias, by the name of the step; the kernels of 8-bit steps are on their grids.
    """

    steps: Sequence[Step]
    eight: frozenset[str]
    arithmetic: Arithmetic
    ranges: dict[str, tuple[float, float]]
    weights: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def float_layers(self) -> tuple[str, ...]:
        """The layers with weights that stay in float32."""
        return tuple(step.name for step in self.steps if step.layer.weights and step.name not in self.eight)

    def call(self, images: Any) -> Any:
        """Simulate the engine in float32, with explicit rounding. Can be traced by tf.function."""
        return follow(self.steps, images, self._step)

    def _step(self, step: Step, inputs: list[Any]) -> Any:
        if step.name not in self.weights:
            outputs = self.without_weights(step, inputs)
        else:
            kernel, bias = self.weights[step.name]
            kernel = self.on_its_grid(kernel, step.layer) if step.name in self.eight else kernel
            outputs = step.layer.activation(linear(step.layer, inputs[0], kernel) + bias)
        return self.rounded(step, outputs)

    def without_weights(self, step: Step, inputs: list[Any]) -> Any:
        name = activation_of(step.layer)
        if step.name in self.eight and name in SWISH and name not in self.arithmetic.fused:
            import tensorflow as tf

            return inputs[0] * fake_quant(tf.sigmoid(inputs[0]), SIGMOID)
        return call_layer(step.layer, inputs)

    def rounded(self, step: Step, outputs: Any) -> Any:
        return fake_quant(outputs, self.ranges[step.name]) if step.name in self.ranges else outputs

    def on_its_grid(self, kernel: np.ndarray, layer: Any) -> Any:
        """Round a kernel to its grid, which depends on the largest weight of each channel."""
        import tensorflow as tf

        columns = kernel.reshape(*kernel.shape[:2], -1) if is_depthwise(layer) else kernel
        top = abs(columns).max(axis=tuple(range(columns.ndim - 1)))
        top = np.where(top == 0, 1, top) * np.float32(LEVELS / self.arithmetic.levels)
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(columns, -top, top, narrow_range=True)
        return tf.reshape(rounded, kernel.shape)


def calibrate(steps: Sequence[Step], images: np.ndarray, *, kept: Collection[str], arithmetic: Arithmetic) -> Quantized:
    """Choose the ranges of a network, round its kernels, and correct its biases.

    Args:
        steps: the network, with folded batch normalisation.
        images: float32 of shape (n, size, size, 3); about 64 of them are used, fewer if they are large.
        kept: the names of the steps that stay in float32.
        arithmetic: the arithmetic of the engine.
    """
    most = max(4, PIXELS // (images.shape[1] * images.shape[2]))
    images = images[:: -(-len(images) // most)]
    eight = in_8_bits(steps, kept)
    net = Quantized(steps, eight, arithmetic, {}, {})
    outputs = rounded_outputs(steps, eight, fused=arithmetic.fused)

    def call(step: Step, pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        log.info("calibrating step %d of %d: %s", steps.index(step) + 1, len(steps), step.name)
        exact, rough = ([pair[i] for pair in pairs] for i in range(2))
        if has_kernel(step.layer):
            exact_output, rough_output = _with_weights(net, step, exact[0], rough[0])
        else:
            exact_output = batched(lambda *parts: call_layer(step.layer, parts), *exact)
            rough_output = batched(lambda *parts: net.without_weights(step, list(parts)), *rough)
        if step.name in outputs:
            padded = isinstance(step.layer, keras.layers.ZeroPadding2D) and net.ranges.get(step.sources[0])
            net.ranges[step.name] = padded or clipped_range(exact_output)
            rough_output = batched(lambda part: net.rounded(step, part), rough_output)
        return exact_output, rough_output

    follow(steps, (images, images), call)
    return net


def _with_weights(net: Quantized, step: Step, exact: np.ndarray, rough: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outputs of a layer, exact and rounded. Its kernel and bias are stored in the network."""
    layer, (kernel, bias) = step.layer, step.layer.get_weights()
    exact = batched(lambda part: linear(layer, part, kernel), exact)
    if step.name in net.eight:
        kernel = round_layer(kernel, input_covariance(layer, rough), levels=net.arithmetic.levels).astype(np.float32)
    rough = batched(lambda part: linear(layer, part, kernel), rough)
    channels = tuple(range(exact.ndim - 1))
    shift = exact.mean(axis=channels, dtype=np.float64) - rough.mean(axis=channels, dtype=np.float64)
    net.weights[step.name] = kernel, (bias + shift).astype(np.float32)
    exact = batched(lambda part: layer.activation(part + bias), exact)
    return exact, batched(lambda part: layer.activation(part + net.weights[step.name][1]), rough)


def has_kernel(layer: Any) -> bool:
    """Whether a layer is one of the supported layers with a kernel, a bias and an activation."""
    return is_convolution(layer) or (type(layer) is keras.layers.Dense and layer.use_bias)


def batched(function: Any, *arrays: np.ndarray) -> np.ndarray:
    """Apply a function to a few images at a time."""
    parts = range(0, len(arrays[0]), BATCH)
    return np.concatenate([np.asarray(function(*(array[i : i + BATCH] for array in arrays))) for i in parts])


def linear(layer: Any, inputs: Any, kernel: Any) -> Any:
    """A layer without bias and activation, with another kernel."""
    import tensorflow as tf

    if isinstance(layer, keras.layers.Dense):
        return tf.matmul(inputs, kernel)
    # TensorFlow's depthwise convolution supports only square strides.
    options = {"strides": [1, *layer.strides, 1], "padding": layer.padding.upper(), "dilations": layer.dilation_rate}
    if is_depthwise(layer):
        return tf.nn.depthwise_conv2d(inputs, kernel, **options)
    return tf.nn.conv2d(inputs, kernel, **options)


def fake_quant(values: Any, limits: tuple[float, float]) -> Any:
    """Round values to 256 steps of a range."""
    import tensorflow as tf

    return tf.quantization.fake_quant_with_min_max_args(values, *limits)


def input_covariance(layer: Any, inputs: np.ndarray, most: int = PLACES) -> np.ndarray:
    """The covariance of the inputs of a convolution's kernel, in float64, over a sample of positions.

    Args:
        layer: a convolution.
        inputs: (n, height, width, channels).
        most: the number of positions.
    """
    first: Any = 0.0
    second: Any = 0.0
    count = 0
    for start in range(0, len(inputs), BATCH):
        places = _places(layer, inputs[start : start + BATCH], -(-most * BATCH // len(inputs)))
        first = first + places.sum(axis=-2, dtype=np.float64)
        second = second + (places.swapaxes(-2, -1) @ places).astype(np.float64)
        count += places.shape[-2]
    mean = first / count
    return second / count - mean[..., :, None] * mean[..., None, :]


def _places(layer: Any, inputs: np.ndarray, most: int) -> np.ndarray:
    """The kernel's inputs at some positions: (positions, inputs); depthwise (channels, positions, inputs)."""
    import tensorflow as tf

    channels, (height, width), (down, right) = inputs.shape[-1], layer.kernel_size, layer.strides
    seen = tf.image.extract_patches(
        inputs, [1, height, width, 1], [1, down, right, 1], [1, *layer.dilation_rate, 1], layer.padding.upper()
    )
    rows = np.reshape(seen, (-1, height * width * channels))
    # At random: positions at equal distances could all be in the same columns.
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:most]]
    return rows.reshape(-1, height * width, channels).transpose(2, 0, 1) if is_depthwise(layer) else rows
