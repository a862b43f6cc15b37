"""Photos in any form, with or without a name: a path, the bytes of a file, an open file, an array, a Pillow image."""

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from keras_effnet.errors import first_line
from keras_effnet.images import ImageError, View, from_array, from_pil, load_image, shrink_on_load

# An image without a name, and a photo with one: a path is its own name. Whatever NumPy can convert is an array: tensors
# of TensorFlow, PyTorch and JAX are.
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
        if _is_array(source):
            return from_array(_to_numpy(source))
        if isinstance(source, Image.Image):
            if inspect:
                inspect(source)
            return from_pil(source)
        if isinstance(source, bytearray | memoryview):
            return load_image(bytes(source), inspect)
        if isinstance(source, str | os.PathLike | bytes) or hasattr(source, "read"):
            return load_image(source, inspect)
        raise ImageError(
            f"it is of type {type(source).__name__}. Expected a path, the bytes of a file, an open file, an array, "
            "a tensor or a Pillow image. Pass one of these, or a pair (name, image)."
        )

    def decode_for(self, view: View) -> np.ndarray:
        """Open the photo as `pixels` does; with `view.decode="fast"`, a large JPEG file is read at a smaller size."""
        # An image that was opened by the caller is not changed.
        is_file = not isinstance(self.source, Image.Image)
        return self.pixels(partial(shrink_on_load, view=view) if view.decode == "fast" and is_file else None)

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
    if _is_array(images):
        return len(images.shape) in (2, 3)
    return isinstance(images, str | os.PathLike) or _is_content(images)


def several(images: Any) -> Iterable[Any]:
    """Put a single photo into a list.

    Example:
        >>> several("cat.jpg"), several(["cat.jpg", "dog.jpg"])
        (['cat.jpg'], ['cat.jpg', 'dog.jpg'])
    """
    return [images] if is_single(images) else images


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
    return isinstance(image, bytes | bytearray | memoryview | Image.Image) or hasattr(image, "read") or _is_array(image)


def _is_array(image: Any) -> bool:
    """Whether this is a NumPy array or a tensor. A file and a Pillow image are not."""
    return hasattr(image, "__array__") and hasattr(image, "shape") and not isinstance(image, Image.Image)


def _to_numpy(tensor: Any) -> np.ndarray:
    try:
        # PyTorch refuses tensors that need gradients.
        return np.asarray(tensor.detach().cpu() if hasattr(tensor, "detach") else tensor)
    except Exception as error:  # symbolic and sparse tensors raise many types
        raise ImageError(
            f"it is a {type(tensor).__name__} that NumPy cannot convert: {first_line(error)} Expected pixels 0..255 of "
            "shape (height, width, 3)."
        ) from error


def prepare(photo: NamedPhoto, view: View) -> tuple[str, np.ndarray, str | None]:
    """Open a photo, then crop and resize it for a model.

    Args:
        photo: the photo.
        view: the pixels that the model gets.

    Returns:
        The name of the photo; float32 pixels (size, size, 3), about 0..255, black if the photo cannot be read; and the
        error in that case, None otherwise.
    """
    try:
        return photo.name, view.pixels(photo.decode_for(view)), None
    except ValueError as error:
        # A black image takes the place of a bad one, so that all batches have the shape that was compiled.
        return photo.name, np.zeros((view.size, view.size, 3), np.float32), photo.describe(error)
