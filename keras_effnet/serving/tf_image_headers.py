"""Reads the headers of image files inside the TensorFlow graph: height, width and EXIF orientation.

Source: RFC 2083 (PNG), RFC 9649 (WebP), CIPA DC-008 (EXIF in JPEG).
"""

from typing import Any

# EXIF is the first segment of a JPEG, and the orientation is in its first directory.
EXIF_WITHIN = 4096
ORIENTATION = 0x0112


def png_shape(data: Any) -> tuple[Any, Any, Any]:
    """Height, width and bits per channel of a PNG, scalar int64."""
    header = _head(data, 25)
    return _number(header, 20, 4, big=True), _number(header, 16, 4, big=True), _number(header, 24, 1)


def webp_shape(data: Any) -> tuple[Any, Any]:
    """Height and width of a WebP file: lossy, lossless or extended. Both are zero for an animation."""
    import tensorflow as tf

    header = _head(data, 30)
    kind = tf.strings.substr(data, 12, 4)
    bits = _number(header, 21, 4)
    animated = _number(header, 20, 1) & 2 > 0
    canvas = tf.where(
        animated, tf.zeros(2, tf.int64), tf.stack([_number(header, 27, 3) + 1, _number(header, 24, 3) + 1])
    )
    lossless = tf.stack([(bits // 0x4000 & 0x3FFF) + 1, (bits & 0x3FFF) + 1])
    lossy = tf.stack([_number(header, 28, 2) & 0x3FFF, _number(header, 26, 2) & 0x3FFF])
    shape = tf.where(kind == b"VP8X", canvas, tf.where(kind == b"VP8L", lossless, lossy))
    return shape[0], shape[1]


def jpeg_orientation(data: Any) -> Any:
    """The EXIF orientation of a JPEG, scalar int64, 1..8; 1 without EXIF."""
    import tensorflow as tf

    header = _head(data, EXIF_WITHIN)
    is_here = tf.reduce_all(
        [tf.roll(header, -i, 0) == byte for i, byte in enumerate(b"\xff\xe1..Exif\0\0") if byte != ord(".")], 0
    )
    start = tf.argmax(is_here)
    return tf.cond(
        tf.gather(is_here, start), lambda: _orientation(header, start + 10), lambda: tf.constant(1, tf.int64)
    )


def _orientation(header: Any, tiff: Any) -> Any:
    import tensorflow as tf

    is_big = _number(header, tiff, 2) == 0x4D4D

    def number(at: Any, count: int) -> Any:
        return tf.where(is_big, _number(header, at, count, big=True), _number(header, at, count))

    directory = tiff + number(tiff + 4, 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), 256))
    values = tf.boolean_mask(number(entries + 8, 2), number(entries, 2) == ORIENTATION)
    one = tf.ones(1, tf.int64)
    value = tf.concat([values, one], 0)[0]
    return tf.where((value >= 1) & (value <= 8), value, one[0])


def _head(data: Any, count: int) -> Any:
    """The first bytes, int64 (count,), padded with zeros after the end of the file."""
    import tensorflow as tf

    read = tf.minimum(count, tf.strings.length(data))
    values = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, read), tf.uint8), tf.int64)
    return tf.pad(values, [[0, count - read]])


def _number(header: Any, at: Any, count: int, *, big: bool = False) -> Any:
    """The unsigned number of `count` bytes at one or more places; bytes after the end are zero."""
    import tensorflow as tf

    last = tf.cast(tf.shape(header)[0], tf.int64) - 1
    zero = tf.constant(0, tf.int64)
    result = tf.zeros_like(tf.cast(at, tf.int64))
    for i in range(count):
        place = tf.cast(at, tf.int64) + i
        byte = tf.where(place <= last, tf.gather(header, tf.clip_by_value(place, 0, last)), zero)
        result += byte * 256 ** (count - 1 - i if big else i)
    return result
