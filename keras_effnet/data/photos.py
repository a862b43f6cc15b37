"""Photos in any form: a path, the bytes of a file, an open file, an array or a Pillow image, with or without a name."""

import os
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from keras_effnet.images import ImageError, center_crop_and_resize, from_array, from_pil, load_image

# An image without a name, and a photo with one: a path is its own name.
Content = bytes | bytearray | memoryview | BinaryIO | np.ndarray | Image.Image
Photo = str | os.PathLike[str] | tuple[str, Content]

# Pillow decodes outside Python's lock, but the model needs the cores as well.
THREADS = min(4, os.cpu_count() or 1)


class NamedPhoto(NamedTuple):
    """A photo that has not been opened yet.

    Args:
        name: its path, the name in a pair, or its number.
        source: its path or its content.
    """

    name: str
    source: Any

    def pixels(self, inspect: Callable[[Image.Image], object] | None = None) -> np.ndarray:
        """Open the photo.

        Args:
            inspect: called with the Pillow image before it is decoded; not called for an array.

        Returns:
            (height, width, 3) with values 0..255: uint8, or the dtype of an array with three channels.

        Raises:
            ImageError: the photo cannot be read.
        """
        source = self.source
        if isinstance(source, np.ndarray):
            return from_array(source)
        if isinstance(source, Image.Image):
            if inspect:
                inspect(source)
            return from_pil(source)
        if isinstance(source, bytearray | memoryview):
            return load_image(bytes(source), inspect)
        if isinstance(source, str | os.PathLike | bytes) or hasattr(source, "read"):
            return load_image(source, inspect)
        raise ImageError(
            f"it is of type {type(source).__name__}. Expected a path, the bytes of a file, an open file, a uint8 array "
            "or a Pillow image. Pass one of these, or a pair (name, image)."
        )

    def describe(self, error: ValueError) -> str:
        """Error message with the name of the photo; errors about a path contain it already."""
        return str(error) if isinstance(self.source, str | os.PathLike) else f"{self.name!r}: {error}"


def is_single(images: Any) -> bool:
    """Whether one photo was passed rather than several; an array of four dimensions is several.

    Example:
        >>> is_single("cat.jpg"), is_single(("cat", b"bytes")), is_single(("cat.jpg", "dog.jpg"))
        (True, True, False)
    """
    if _is_pair(images):
        return _is_content(images[1])
    if isinstance(images, np.ndarray):
        return images.ndim in (2, 3)
    return isinstance(images, str | os.PathLike) or _is_content(images)


def named(image: Any, number: int) -> NamedPhoto:
    """Give a photo a name; without its own it is named by its number.

    Example:
        >>> named("cat.jpg", 0).name, named(("cat", b"bytes"), 1).name, named(b"bytes", 2).name
        ('cat.jpg', 'cat', 'image 2')
    """
    if _is_pair(image):
        return NamedPhoto(*image)
    return NamedPhoto(os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}", image)


def _is_pair(image: Any) -> bool:
    return isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], str)


def _is_content(image: Any) -> bool:
    return isinstance(image, bytes | bytearray | memoryview | np.ndarray | Image.Image) or hasattr(image, "read")


def prepare(photo: NamedPhoto, size: int) -> tuple[str, np.ndarray, str | None]:
    """Open a photo, then crop and resize it for a model.

    Args:
        photo: the photo.
        size: side of the model's input in pixels.

    Returns:
        The name of the photo; float32 pixels (size, size, 3), about 0..255, black if the photo cannot be read; and the
        error in that case, None otherwise.
    """
    try:
        return photo.name, center_crop_and_resize(photo.pixels(), size), None
    except ValueError as error:
        # A black image takes the place of a bad one, so that all batches have the shape that was compiled.
        return photo.name, np.zeros((size, size, 3), np.float32), photo.describe(error)
