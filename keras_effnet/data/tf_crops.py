"""From a file to a square image in a tf.data pipeline: random crops for training, central crops for validation.

Source: decode_and_random_crop, decode_and_center_crop and preprocess_for_train of github.com/tensorflow/tpu,
models/official/efficientnet/preprocessing.py. Of RGB JPEGs only the crop is decoded; all other files are decoded by
Pillow.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from keras_effnet.data.image_audit import OddFiles
from keras_effnet.images import CROP_PADDING, View

# Matches a JPEG header with an EXIF orientation other than upright, in either byte order.
_TURNED = (
    r"(?s)\C*Exif\x00\x00\C*"
    r"(\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08]|\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08])\C*"
)
_HEADER = 4096

Window = Callable[[Any], Any]
Resize = Callable[[Any], Any]


@dataclass(frozen=True)
class Element:
    """One image of a source, as tensors.

    Args:
        name: for reports and messages.
        data: the bytes of a file; its path, if `is_path`; or pixels, uint8 (height, width, 3).
        is_path: whether `data` is a path.
    """

    name: Any
    data: Any
    is_path: bool = False


def random_window(seed: Any, size: int, smallest: float = 0.08) -> Window:
    """Random crop for training: 8 to 100 % of the area, aspect ratio 3:4 to 4:3; the central square after ten failures.

    Args:
        seed: int32 or int64 vector of two.
        size: side of the image that is made of the crop, in pixels.
        smallest: the smallest share of the area.

    Returns:
        A function from the shape of an image, int32 (3,), to (top, left, height, width).
    """
    import tensorflow as tf

    def window(shape: Any) -> Any:
        begin, cut, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            # The published pipelines of V1 draw from 8 %, but require 10 %; those of V2 require nothing.
            min_object_covered=0.1 if smallest >= 0.08 else 0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(smallest, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        random = tf.concat([begin[:2], cut[:2]], 0)
        # TensorFlow returns the whole image if all attempts fail.
        return tf.where(tf.reduce_all(random[2:] == shape[:2]), central_window(size)(shape), random)

    return window


def central_window(size: int) -> Window:
    """Central crop for validation: a square with `size / (size + 32)` of the shorter side."""
    import tensorflow as tf

    def window(shape: Any) -> Any:
        sides = shape[:2]
        part = tf.constant(size / (size + CROP_PADDING), tf.float32)
        side = tf.maximum(1, tf.cast(part * tf.cast(tf.reduce_min(sides), tf.float32), tf.int32))
        return tf.concat([(sides - side + 1) // 2, [side, side]], 0)

    return window


def window_of(view: View) -> Window:
    """The window of validation: a central crop, or the whole image."""
    return central_window(view.size) if view.crop else _whole


def _whole(shape: Any) -> Any:
    import tensorflow as tf

    return tf.concat([[0, 0], shape[:2]], 0)


def crop(element: Element, window: Window, resize: Resize, *, odd: OddFiles, method: str) -> tuple[Any, Any]:
    """Crop an image and resize the crop.

    Args:
        element: the image.
        window: from `random_window` or `window_of`.
        resize: from `resize_to`.
        odd: counts the files that are not plain RGB.
        method: of the inverse cosine transform, "INTEGER_FAST" or "INTEGER_ACCURATE".

    Returns:
        float32 (size, size, 3), about 0..255, and whether the image could be read.
    """
    import tensorflow as tf

    if element.data.dtype != tf.string:
        return resize(cut(element.data, window)), tf.constant(True)

    nothing, grey = tf.zeros((0, 0, 3), tf.uint8), _grey_jpeg()

    def fast(data: Any) -> Any:
        data = tf.io.read_file(data) if element.is_path else data
        # TensorFlow logs an error to stderr for every file that is not a JPEG.
        shape = tf.io.extract_jpeg_shape(tf.where(starts_with(data, b"\xff\xd8\xff"), data, grey))

        def decode() -> Any:
            return tf.io.decode_and_crop_jpeg(data, window(shape), channels=3, dct_method=method)

        return tf.cond((shape[2] == 3) & _is_upright(data), decode, lambda: nothing)

    def slow() -> tuple[Any, Any]:
        image, valid = tf.numpy_function(_reader(odd), [element.name, element.data], (tf.uint8, tf.bool))
        image = cut(tf.ensure_shape(image, (None, None, 3)), window)
        return resize(image), tf.ensure_shape(valid, ())

    image = _or_else(fast, element.data, nothing)
    return tf.cond(tf.size(image) > 0, lambda: (resize(image), True), slow)


def _grey_jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "JPEG")
    return file.getvalue()


def starts_with(data: Any, magic: bytes) -> Any:
    """Whether the bytes of a file start with `magic`."""
    import tensorflow as tf

    return tf.strings.substr(data, 0, tf.minimum(len(magic), tf.strings.length(data))) == magic


def _is_upright(data: Any) -> Any:
    """Whether a JPEG has no EXIF rotation."""
    import tensorflow as tf

    header = tf.strings.substr(data, 0, tf.minimum(_HEADER, tf.strings.length(data)))
    return tf.logical_not(tf.strings.regex_full_match(header, _TURNED))


def _or_else(function: Callable[[Any], Any], value: Any, otherwise: Any) -> Any:
    """The result of a function, or `otherwise` if it raises an error.

    In a graph, only a dataset can recover from an error. One dataset per image is slow, so keep the function small.
    """
    import tensorflow as tf

    tried = tf.data.Dataset.from_tensors(value).map(function).ignore_errors()
    return single_element(tried.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1))


def single_element(dataset: Any) -> Any:
    """The only element of a dataset inside a graph; skips tf.data's optimizations, which take longer than they save."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options).get_single_element()


def _reader(odd: OddFiles) -> Callable[[bytes, bytes], tuple[np.ndarray, np.bool_]]:
    def read(name: bytes, data: bytes) -> tuple[np.ndarray, np.bool_]:
        shown = name.decode("utf-8", "replace")
        image = odd.read(shown, data if data != name else name.decode("utf-8", "surrogateescape"))
        if image is None:
            return np.zeros((1, 1, 3), np.uint8), np.bool_(False)
        return image, np.bool_(True)

    return read


def cut(image: Any, window: Window) -> Any:
    """Crop an image (height, width, channels) to a window."""
    import tensorflow as tf

    top, left, height, width = tf.unstack(window(tf.shape(image)))
    return image[top : top + height, left : left + width]


def resize_to(view: View) -> Resize:
    """The resize of an RGB image to float32 (size, size, 3): TensorFlow 1's bicubic, or bilinear for whole images."""
    import tensorflow as tf

    shape = (view.size, view.size, 3)

    def resize(image: Any) -> Any:
        if view.crop:
            resized = tf.raw_ops.ResizeBicubic(images=image[None], size=shape[:2])
        else:
            resized = tf.raw_ops.ResizeBilinear(images=image[None], size=shape[:2], half_pixel_centers=True)
        return tf.ensure_shape(resized[0], shape)

    return resize
