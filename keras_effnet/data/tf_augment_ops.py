"""The sixteen operations of AutoAugment and RandAugment on uint8 images, in TensorFlow.

Source: github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py, which the published networks were
trained with. The results differ from Pillow's by at most one level, with these exceptions, which are kept as they were:

- Contrast blends with a grey level of (number of pixels) / 256, at most 255; Pillow uses the mean. For images of
  256 x 256 pixels and more that is white.
- Blends truncate; Pillow rounds.
- Extreme levels overflow, because TensorFlow 1 converted thresholds and shifts to uint8: Solarize at 256 (level 10)
  inverts everything, and at level 28 its threshold is 716 - 512; Posterize to 0 bits or more than 8 keeps one bit.
"""

import math
from collections.abc import Callable
from typing import Any

from keras_effnet.data.augment_policies import OPERATIONS, REPLACE


def operations() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """The operations by name, each a function (image, argument, seed) -> image.

    The image is uint8 (height, width, 3). The argument is a float32 scalar, as returned by `Policy.argument`. The seed
    is an int32 or int64 vector of two; only Cutout uses it.
    """
    table = {
        "AutoContrast": lambda image, argument: autocontrast(image),
        "Equalize": lambda image, argument: equalize(image),
        "Invert": lambda image, argument: 255 - image,
        "Rotate": rotate,
        "Posterize": posterize,
        "Solarize": solarize,
        "Color": color,
        "Contrast": contrast,
        "Brightness": brightness,
        "Sharpness": sharpness,
        "ShearX": lambda image, argument: _transform(image, [1.0, argument, 0.0, 0.0, 1.0, 0.0]),
        "ShearY": lambda image, argument: _transform(image, [1.0, 0.0, 0.0, argument, 1.0, 0.0]),
        "TranslateX": lambda image, argument: _transform(image, [1.0, 0.0, argument, 0.0, 1.0, 0.0]),
        "TranslateY": lambda image, argument: _transform(image, [1.0, 0.0, 0.0, 0.0, 1.0, argument]),
        "SolarizeAdd": solarize_add,
    }
    seedless = {name: (lambda image, argument, seed, f=f: f(image, argument)) for name, f in table.items()}
    return {name: cutout if name == "Cutout" else seedless[name] for name in OPERATIONS}


def _tf() -> Any:
    import tensorflow as tf

    return tf


def blend(degenerate: Any, image: Any, factor: Any) -> Any:
    """Interpolate from one float image (factor 0) to another (factor 1) and beyond; truncated to uint8."""
    tf = _tf()
    # The source has special cases for 0 and 1. This is exact there as well, as both images hold whole numbers.
    mixed = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _in_rows(image: Any) -> Any:
    """Reshape to (height, width * 3): many times faster in TensorFlow than a last dimension of three."""
    tf = _tf()
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _of_each_channel(rows: Any, reduce: Callable[..., Any]) -> Any:
    """The minimum or maximum of each channel of an image in rows, (3,)."""
    return reduce(_tf().reshape(reduce(rows, axis=0), [-1, 3]), axis=0)


def _as_row(values: Any, image: Any) -> Any:
    """Repeat three values, one per channel, to a row of an image."""
    tf = _tf()
    return tf.tile(values, [tf.shape(image)[1]])


def color(image: Any, factor: Any) -> Any:
    """Change saturation: towards grey for factors below 1, more colourful above."""
    tf = _tf()
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    # tf.image.rgb_to_grayscale, with the result in all three channels.
    weights = tf.constant([[0.2989] * 3, [0.5870] * 3, [0.1140] * 3])
    grey = tf.floor(tf.matmul(pixels * (1 / 255), weights) * 255.5)
    return tf.reshape(blend(grey, pixels, factor), tf.shape(image))


def contrast(image: Any, factor: Any) -> Any:
    """Change contrast relative to a grey level that depends only on the size of the image."""
    tf = _tf()
    grey = tf.minimum(tf.cast(tf.size(image[..., 0]), tf.float32) / 256.0, 255.0)
    return blend(tf.floor(grey), image, factor)


def brightness(image: Any, factor: Any) -> Any:
    """Change brightness: towards black for factors below 1, brighter above."""
    return blend(0.0, image, factor)


def sharpness(image: Any, factor: Any) -> Any:
    """Smooth for factors below 1, sharpen above; the outermost pixels do not change."""
    tf = _tf()
    rows = _in_rows(image)
    values = tf.cast(rows, tf.float32)
    three = values[:-2] + values[1:-1] + values[2:]
    middle = values[1:-1, 3:-3]
    # A kernel of ones with a 5 in the centre. The sums are whole numbers, hence exact.
    smooth = tf.floor((three[:, :-6] + three[:, 3:-3] + three[:, 6:] + 4.0 * middle) / 13.0)
    inner = tf.concat([rows[1:-1, :3], blend(smooth, middle, factor), rows[1:-1, -3:]], axis=1)
    return tf.reshape(tf.concat([rows[:1], inner, rows[-1:]], axis=0), tf.shape(image))


def posterize(image: Any, bits: Any) -> Any:
    """Keep the highest `bits` bits of each value."""
    tf = _tf()
    # The TensorFlow kernel shifts by at most seven bits.
    shift = tf.cast(tf.minimum((8 - tf.cast(bits, tf.int32)) % 256, 7), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def solarize(image: Any, threshold: Any) -> Any:
    """Invert the values at or above the threshold."""
    tf = _tf()
    threshold = tf.cast(tf.cast(threshold, tf.int32) % 256, tf.uint8)
    # XOR with 255 inverts a value; far faster than tf.where.
    return tf.bitwise.bitwise_xor(image, tf.cast(image >= threshold, tf.uint8) * 255)


def solarize_add(image: Any, addition: Any) -> Any:
    """Brighten the values below 128."""
    tf = _tf()
    added = tf.minimum(255 - image, tf.cast(tf.minimum(addition, 255.0), tf.uint8))
    return image + added * tf.cast(image < 128, tf.uint8)


def autocontrast(image: Any) -> Any:
    """Stretch each channel so that its darkest value becomes 0 and its brightest 255."""
    tf = _tf()
    values = tf.cast(_in_rows(image), tf.float32)
    low, high = (_of_each_channel(values, reduce) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1.0), 1.0)
    offset = tf.where(high > low, -low * scale, 0.0)
    stretched = values * _as_row(scale, image) + _as_row(offset, image)
    return tf.reshape(tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8), tf.shape(image))


def equalize(image: Any) -> Any:
    """Equalize the histogram of each channel."""
    tf = _tf()
    channels = tf.cast(_in_rows(image), tf.int32) + _as_row(tf.constant([0, 256, 512]), image)
    # Not tf.math.bincount, which computes the maximum first.
    counts = tf.raw_ops.Bincount(arr=tf.reshape(channels, [-1]), size=768, weights=tf.constant([], tf.int32))
    brightest = tf.gather(counts, _of_each_channel(channels, tf.reduce_max))
    counts = tf.reshape(counts, [3, 256])
    step = (tf.reduce_sum(counts, axis=1) - brightest) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    # The source puts a plain 0 first. Half a step above 0 is also rounded down to 0, so the table is the same.
    table = tf.clip_by_value((below + step[:, None] // 2) // tf.maximum(step, 1)[:, None], 0, 255)
    table = tf.where(step[:, None] == 0, tf.range(256)[None], table)
    # gather_nd is faster than tf.gather for single values.
    return tf.reshape(tf.gather_nd(tf.cast(tf.reshape(table, [-1]), tf.uint8), channels[..., None]), tf.shape(image))


def rotate(image: Any, degrees: Any) -> Any:
    """Rotate about the centre, counterclockwise for positive angles; nearest neighbour."""
    tf = _tf()
    angle = degrees * math.pi / 180.0
    cos, sin = tf.cos(angle), tf.sin(angle)
    bottom, right = (tf.cast(side - 1, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
    x = (right - (cos * right - sin * bottom)) / 2.0
    y = (bottom - (sin * right + cos * bottom)) / 2.0
    return _transform(image, [cos, -sin, x, sin, cos, y])


def _transform(image: Any, matrix: list[Any]) -> Any:
    """Affine transform: output (x, y) is the pixel nearest to input (a x + b y + c, d x + e y + f), grey if outside.

    Gives the result of ImageProjectiveTransformV3, which takes nearly twice as long.
    """
    tf = _tf()
    height, width = tf.unstack(tf.shape(image)[:2])
    x, y = tf.cast(tf.range(width), tf.float32)[None], tf.cast(tf.range(height), tf.float32)[:, None]
    (column, in_row), (row, in_column) = (
        _nearest(a * x + b * y + c, side) for (a, b, c), side in ((matrix[:3], width), (matrix[3:], height))
    )
    # Index 0 is the grey pixel.
    pixels = tf.concat([tf.fill([1, 3], tf.constant(REPLACE, tf.uint8)), tf.reshape(image, [-1, 3])], axis=0)
    pixel = (row * width + column + 1) * tf.cast(in_row & in_column, tf.int32)
    return tf.gather_nd(pixels, pixel[..., None])


def _nearest(coordinate: Any, side: Any) -> tuple[Any, Any]:
    """The nearest pixel on one axis, rounding halves up, and whether it is inside the image."""
    tf = _tf()
    below = tf.floor(coordinate)
    nearest = below + tf.cast(coordinate - below >= 0.5, tf.float32)
    return tf.cast(nearest, tf.int32), (coordinate > -0.5) & (nearest < tf.cast(side, tf.float32))


def cutout(image: Any, pad: Any, seed: Any) -> Any:
    """Grey out a square with sides of 2 * `pad` pixels, centred on a random pixel."""
    tf = _tf()
    size, pad = tf.shape(image)[:2], tf.cast(pad, tf.int32)
    centre = tf.cast(tf.random.stateless_uniform([2], seed) * tf.cast(size, tf.float32), tf.int32)
    inside = [
        (tf.range(side) >= middle - pad) & (tf.range(side) < middle + pad)
        for side, middle in zip(tf.unstack(size), tf.unstack(centre), strict=True)
    ]
    cut = tf.cast(inside[0][:, None] & tf.repeat(inside[1], 3)[None], tf.uint8)
    return tf.reshape(_in_rows(image) * (1 - cut) + cut * REPLACE, tf.shape(image))
