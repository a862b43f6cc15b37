"""Decodes image files to a model's pixels inside the TensorFlow graph, with the results of `images`.

A file that cannot be read must not affect the other files of its batch. In TensorFlow only a dataset continues after an
error, so the batch goes through one.
"""

from collections.abc import Callable
from typing import Any

from keras_effnet.data.tf_crops import cut, resize_to, single_element, starts_with, window_of
from keras_effnet.images import View
from keras_effnet.serving.tf_image_headers import jpeg_orientation, png_shape, webp_shape

# Files that declare more pixels are not decoded: Pillow's limit against decompression bombs.
MAX_PIXELS = 89_478_485


def decode_batch(files: Any, view: View) -> tuple[Any, Any]:
    """Decode, rotate, crop and resize a batch of image files, each on its own.

    JPEG (with EXIF orientation), PNG and, with TensorFlow 2.20 or later, WebP without animation are supported. The EXIF
    orientation of PNG and WebP is ignored. Transparent pixels are blended with white, except for the single transparent
    colour that a PNG of 1 or 16 bits can declare. GIF is not supported: TensorFlow decodes all of its frames before
    their number is known.

    Args:
        files: string tensor (batch,), the bytes of the files.
        view: the pixels of each photo that the model gets.

    Returns:
        The images, float32 (batch, size, size, 3), about 0..255; and whether each file could be read, bool (batch,).
        The image is black if the file cannot be read or declares more than `MAX_PIXELS`.
    """
    import tensorflow as tf

    count, size = tf.shape(files)[0], view.size

    def read(place: Any, data: Any) -> tuple[Any, Any]:
        return place, resize_to(view)(_seen(data, view))

    images = tf.data.Dataset.from_tensor_slices((tf.range(count), files))
    images = images.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    # Not an image, and removed below: an empty batch would be an error.
    images = images.concatenate(tf.data.Dataset.from_tensors((count, tf.zeros((size, size, 3)))))
    places, pixels = single_element(images.batch(tf.cast(count + 1, tf.int64)))
    pixels = tf.scatter_nd(places[:, None], pixels, tf.stack([count + 1, size, size, 3]))
    valid = tf.scatter_nd(places[:, None], tf.ones_like(places), [count + 1]) > 0
    return pixels[:count], valid[:count]


def _seen(data: Any, view: View) -> Any:
    """The part of a photo that the model sees, uint8 (height, width, 3)."""
    import tensorflow as tf

    readers: dict[bytes, Callable[..., Any]] = {b"\xff\xd8\xff": _jpeg, b"\x89PNG\r\n\x1a\n": _png}
    if hasattr(tf.io, "decode_webp"):
        readers[b"RIFF"] = _webp
    cases = [(starts_with(data, magic), lambda read=read: read(data, view)) for magic, read in readers.items()]
    return tf.case(cases, default=lambda: _check(tf.constant(False), tf.zeros((1, 1, 3), tf.uint8)))


def _check(condition: Any, value: Any) -> Any:
    """The value, or an error if the condition is false."""
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.Assert(condition, ["This file cannot be read as an image."])]):
        return tf.identity(value)


def _unless_too_large(data: Any, height: Any, width: Any) -> Any:
    import tensorflow as tf

    # Not multiplied: the product of two 32-bit numbers can overflow.
    return _check((height > 0) & (width > 0) & (width <= MAX_PIXELS // tf.maximum(height, 1)), data)


def _jpeg(data: Any, view: View) -> Any:
    import tensorflow as tf

    shape = tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)
    data = _unless_too_large(data, shape[0], shape[1])
    # Decoding only the window would be faster, but interpolates the colours at its edges differently.
    image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    orientation = jpeg_orientation(data)
    image = tf.cond(_is_in(orientation, (3, 4, 6, 7)), lambda: image[::-1], lambda: image)
    image = tf.cond(_is_in(orientation, (2, 3, 7, 8)), lambda: image[:, ::-1], lambda: image)
    image = tf.cond(_is_in(orientation, (5, 6, 7, 8)), lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    return cut(image, window_of(view))


def _is_in(value: Any, choices: tuple[int, ...]) -> Any:
    import tensorflow as tf

    return tf.reduce_any(value == tf.constant(choices, tf.int64))


def _png(data: Any, view: View) -> Any:
    import tensorflow as tf

    height, width, depth = png_shape(data)
    data = _unless_too_large(data, height, width)
    # For less than 8 bits, TensorFlow 2.21 adds an alpha channel that is nearly transparent.
    image = tf.cond(depth < 8, lambda: tf.io.decode_png(data), lambda: tf.io.decode_png(data, channels=4))
    return _on_white(cut(image, window_of(view)))


def _webp(data: Any, view: View) -> Any:
    import tensorflow as tf

    frames = tf.io.decode_webp(_unless_too_large(data, *webp_shape(data)))
    return _on_white(cut(frames[0], window_of(view)))


def _on_white(image: Any) -> Any:
    """The colours, uint8 (height, width, 3), of an image with one, three or, with transparency, four channels."""
    import tensorflow as tf

    def blend() -> Any:
        colors, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
        return tf.cast((colors * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)

    height, width, channels = tf.unstack(tf.shape(image))
    return tf.cond(channels == 4, blend, lambda: tf.broadcast_to(image[..., :3], (height, width, 3)))
