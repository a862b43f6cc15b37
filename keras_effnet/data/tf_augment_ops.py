"""The sixteen operations of AutoAugment and RandAugment on an image of uint8, in TensorFlow.

Source: what github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py computes, which the published
networks were trained with. They are Pillow's within a level, but for these, which are kept as they were:

- Contrast blends with a grey that is the number of pixels by 256, and at most 255, where Pillow takes the mean: at 128
  pixels and more a side the image is drawn towards or away from white or nearly so.
- Blends cut off where Pillow rounds.
- Levels at the ends overflow, since TensorFlow 1 took thresholds and shifts as uint8: Solarize at 256 (level 10)
  inverts everything, and at level 28 it has the threshold 716 - 512; Posterize to 0 bits or more than 8 leaves one.
"""

import math
from collections.abc import Callable
from typing import Any

from keras_effnet.data.augment_policies import OPERATIONS, REPLACE


def operations() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """Each operation by its name: (image, argument, seed) -> image.

    The image is uint8 (height, width, 3), the argument a float32 scalar as `Policy.argument` gives it, the seed an
    int32 or int64 vector of two, which only Cutout uses.
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
    """From one float image (factor 0) to the other (1) and beyond; cut off to uint8."""
    tf = _tf()
    # Exact at 0 and 1, which the source treats apart, since both images hold whole numbers.
    mixed = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _in_rows(image: Any) -> Any:
    """(height, width * 3): what is computed for three channels is many times as slow for TensorFlow."""
    tf = _tf()
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _of_each_channel(rows: Any, reduce: Callable[..., Any]) -> Any:
    """For each channel the least or greatest of an image in rows, (3,)."""
    return reduce(_tf().reshape(reduce(rows, axis=0), [-1, 3]), axis=0)


def _as_row(values: Any, image: Any) -> Any:
    """Three values, one for each channel, as a row of an image."""
    tf = _tf()
    return tf.tile(values, [tf.shape(image)[1]])


def color(image: Any, factor: Any) -> Any:
    """Towards grey below 1, more colourful above."""
    tf = _tf()
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    # tf.image.rgb_to_grayscale, thrice beside each other.
    weights = tf.constant([[0.2989] * 3, [0.5870] * 3, [0.1140] * 3])
    grey = tf.floor(tf.matmul(pixels * (1 / 255), weights) * 255.5)
    return tf.reshape(blend(grey, pixels, factor), tf.shape(image))


def contrast(image: Any, factor: Any) -> Any:
    """Away from, or below 1 towards, a grey that depends on the size of the image alone."""
    tf = _tf()
    grey = tf.minimum(tf.cast(tf.size(image[..., 0]), tf.float32) / 256.0, 255.0)
    return blend(tf.floor(grey), image, factor)


def brightness(image: Any, factor: Any) -> Any:
    """Towards black below 1, brighter above."""
    return blend(0.0, image, factor)


def sharpness(image: Any, factor: Any) -> Any:
    """Smoother below 1, sharper above; the outermost pixels stay."""
    tf = _tf()
    rows = _in_rows(image)
    values = tf.cast(rows, tf.float32)
    three = values[:-2] + values[1:-1] + values[2:]
    middle = values[1:-1, 3:-3]
    # Each of the nine once and the middle five times; the sums are whole numbers, so that nothing is lost.
    smooth = tf.floor((three[:, :-6] + three[:, 3:-3] + three[:, 6:] + 4.0 * middle) / 13.0)
    inner = tf.concat([rows[1:-1, :3], blend(smooth, middle, factor), rows[1:-1, -3:]], axis=1)
    return tf.reshape(tf.concat([rows[:1], inner, rows[-1:]], axis=0), tf.shape(image))


def posterize(image: Any, bits: Any) -> Any:
    """Keep so many of the eight bits of each value."""
    tf = _tf()
    # The kernel shifts by seven bits at most.
    shift = tf.cast(tf.minimum((8 - tf.cast(bits, tf.int32)) % 256, 7), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def solarize(image: Any, threshold: Any) -> Any:
    """Invert the values from the threshold on."""
    tf = _tf()
    threshold = tf.cast(tf.cast(threshold, tf.int32) % 256, tf.uint8)
    # 255 where a value is to be inverted, and its bits flipped: far faster than tf.where.
    return tf.bitwise.bitwise_xor(image, tf.cast(image >= threshold, tf.uint8) * 255)


def solarize_add(image: Any, addition: Any) -> Any:
    """Brighten the values below 128."""
    tf = _tf()
    added = tf.minimum(255 - image, tf.cast(tf.minimum(addition, 255.0), tf.uint8))
    return image + added * tf.cast(image < 128, tf.uint8)


def autocontrast(image: Any) -> Any:
    """Stretch each channel from its darkest and brightest value to 0 and 255."""
    tf = _tf()
    values = tf.cast(_in_rows(image), tf.float32)
    low, high = (_of_each_channel(values, reduce) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1.0), 1.0)
    offset = tf.where(high > low, -low * scale, 0.0)
    stretched = values * _as_row(scale, image) + _as_row(offset, image)
    return tf.reshape(tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8), tf.shape(image))


def equalize(image: Any) -> Any:
    """Make all values of a channel as frequent as each other."""
    tf = _tf()
    channels = tf.cast(_in_rows(image), tf.int32) + _as_row(tf.constant([0, 256, 512]), image)
    # Not tf.math.bincount, which looks for the greatest value first.
    counts = tf.raw_ops.Bincount(arr=tf.reshape(channels, [-1]), size=768, weights=tf.constant([], tf.int32))
    brightest = tf.gather(counts, _of_each_channel(channels, tf.reduce_max))
    counts = tf.reshape(counts, [3, 256])
    step = (tf.reduce_sum(counts, axis=1) - brightest) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    # The source puts 0 first and then the sums to each value, half a step up: below the first value, that half is lost.
    table = tf.clip_by_value((below + step[:, None] // 2) // tf.maximum(step, 1)[:, None], 0, 255)
    table = tf.where(step[:, None] == 0, tf.range(256)[None], table)
    # Which is faster than tf.gather for single values.
    return tf.reshape(tf.gather_nd(tf.cast(tf.reshape(table, [-1]), tf.uint8), channels[..., None]), tf.shape(image))


def rotate(image: Any, degrees: Any) -> Any:
    """Turn the image about its centre, counterclockwise for positive angles; nearest pixel."""
    tf = _tf()
    angle = degrees * math.pi / 180.0
    cos, sin = tf.cos(angle), tf.sin(angle)
    bottom, right = (tf.cast(side - 1, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
    x = (right - (cos * right - sin * bottom)) / 2.0
    y = (bottom - (sin * right + cos * bottom)) / 2.0
    return _transform(image, [cos, -sin, x, sin, cos, y])


def _transform(image: Any, matrix: list[Any]) -> Any:
    """Output (x, y) is input (a x + b y + c, d x + e y + f), the nearest pixel, or grey where there is none.

    As ImageProjectiveTransformV3 has it, which takes nearly twice the time.
    """
    tf = _tf()
    height, width = tf.unstack(tf.shape(image)[:2])
    x, y = tf.cast(tf.range(width), tf.float32)[None], tf.cast(tf.range(height), tf.float32)[:, None]
    (column, in_row), (row, in_column) = (
        _nearest(a * x + b * y + c, side) for (a, b, c), side in ((matrix[:3], width), (matrix[3:], height))
    )
    # Pixel 0 is the grey one.
    pixels = tf.concat([tf.fill([1, 3], tf.constant(REPLACE, tf.uint8)), tf.reshape(image, [-1, 3])], axis=0)
    pixel = (row * width + column + 1) * tf.cast(in_row & in_column, tf.int32)
    return tf.gather_nd(pixels, pixel[..., None])


def _nearest(coordinate: Any, side: Any) -> tuple[Any, Any]:
    """The pixel that is nearest on one axis, of two the one that is further from 0; and whether the image has it."""
    tf = _tf()
    below = tf.floor(coordinate)
    nearest = below + tf.cast(coordinate - below >= 0.5, tf.float32)
    return tf.cast(nearest, tf.int32), (coordinate > -0.5) & (nearest < tf.cast(side, tf.float32))


def cutout(image: Any, pad: Any, seed: Any) -> Any:
    """Grey out a square of twice `pad` pixels a side about a random pixel."""
    tf = _tf()
    size, pad = tf.shape(image)[:2], tf.cast(pad, tf.int32)
    centre = tf.cast(tf.random.stateless_uniform([2], seed) * tf.cast(size, tf.float32), tf.int32)
    inside = [
        (tf.range(side) >= middle - pad) & (tf.range(side) < middle + pad)
        for side, middle in zip(tf.unstack(size), tf.unstack(centre), strict=True)
    ]
    cut = tf.cast(inside[0][:, None] & tf.repeat(inside[1], 3)[None], tf.uint8)
    return tf.reshape(_in_rows(image) * (1 - cut) + cut * REPLACE, tf.shape(image))
