"""What the convolutions of a network see in some photos: the moments by which their weights are rounded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_effnet.rounding import Moments, round_layer

BATCH = 4
# More of them would change no weight: each photo has thousands of places, and the largest covariance 1,152 inputs.
PHOTOS = 64


def round_weights(network: Any, images: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Weights of 8 bits, and the biases that go with them, for every convolution of a network, by the layer's name.

    The network stays as it is.

    Args:
        network: a model with its batch normalisations folded.
        images: float32 of shape (n, size, size, 3); 64 of them are looked at.
    """
    layers = [layer for layer in network.layers if _can_be_rounded(layer)]
    moments = input_moments(network, layers, images[:: -(-len(images) // PHOTOS)])
    found = {}
    for layer in layers:
        kernel, bias = layer.get_weights()
        rounded = round_layer(kernel, bias, moments[layer.name])
        found[layer.name] = [part.astype(np.float32) for part in rounded]
    return found


def _can_be_rounded(layer: Any) -> bool:
    from keras_effnet._keras import keras

    if type(layer) not in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D):
        return False
    try:
        # A layer that is called twice has no input, in the singular.
        return (
            layer.use_bias
            and layer.groups == 1
            and layer.data_format == "channels_last"
            and len(layer.input.shape) == 4
        )
    except (AttributeError, ValueError):
        return False


def input_moments(network: Any, layers: Sequence[Any], images: np.ndarray) -> dict[str, Moments]:
    """Mean and covariance of what each convolution multiplies its weights with, in float64."""
    from keras_effnet._keras import keras

    # A single output would come without its list.
    seen = keras.Model(network.input, [*(layer.input for layer in layers), network.output])
    sums: dict[str, list[Any]] = {layer.name: [0.0, 0.0, 0] for layer in layers}
    for start in range(0, len(images), BATCH):
        for layer, inputs in zip(layers, seen(images[start : start + BATCH], training=False)[:-1], strict=True):
            places = _places(layer, inputs)
            total = sums[layer.name]
            total[0] += np.asarray(places, np.float64).sum(axis=-2)
            total[1] += np.asarray(_products(places), np.float64)
            total[2] += places.shape[-2]
    found = {}
    for name, (first, second, count) in sums.items():
        mean = first / count
        found[name] = Moments(mean, second / count - mean[..., :, None] * mean[..., None, :])
    return found


def _places(layer: Any, inputs: Any) -> Any:
    """The inputs at every place of the kernel: (places, inputs); depthwise (channels, places, inputs)."""
    import tensorflow as tf

    inputs = tf.cast(inputs, tf.float32)
    channels, (height, width), (down, right) = inputs.shape[-1], layer.kernel_size, layer.strides
    if (height, width, down, right) != (1, 1, 1, 1):
        inputs = tf.image.extract_patches(
            inputs, [1, height, width, 1], [1, down, right, 1], [1, *layer.dilation_rate, 1], layer.padding.upper()
        )
    if hasattr(layer, "depth_multiplier"):
        return tf.transpose(tf.reshape(inputs, (-1, height * width, channels)), (2, 0, 1))
    return tf.reshape(inputs, (-1, height * width * channels))


def _products(places: Any) -> Any:
    import tensorflow as tf

    return tf.matmul(places, places, transpose_a=True)
