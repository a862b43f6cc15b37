"""A photo in whatever form it comes, as the pixels that a model of some size gets."""

import os
from typing import Any

import numpy as np
from PIL import Image

from keras_effnet.images import center_crop_and_resize, from_array, from_pil, load_image

Photo = str | os.PathLike[str] | tuple[str, np.ndarray | bytes | Image.Image]


# Pillow decodes outside of Python's lock, but the model needs the cores as well.
THREADS = min(4, os.cpu_count() or 1)


def named(image: Any, number: int) -> Photo:
    """What is to be looked at, with a name, by its number if it has none."""
    if isinstance(image, str | os.PathLike) or (
        isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], str)
    ):
        return image
    return f"image {number}", bytes(image) if isinstance(image, bytearray | memoryview) else image


def prepare(photo: Photo, size: int) -> tuple[str, np.ndarray, str | None]:
    """A photo's name, its pixels as a model of that size gets them, and why they are black if it cannot be read."""
    name, image = photo if isinstance(photo, tuple) else (os.fspath(photo), None)
    try:
        if isinstance(photo, tuple) and not isinstance(image, bytes | np.ndarray | Image.Image):
            raise ValueError(
                f"it is a {type(image).__name__}. Expected the bytes of a file, a uint8 array or an image of Pillow, "
                "with a name or without; or a path without a name. Pass one of these."
            )
        if isinstance(image, Image.Image):
            image = from_pil(image)
        pixels = from_array(image) if isinstance(image, np.ndarray) else load_image(name if image is None else image)
        return name, center_crop_and_resize(pixels, size), None
    except ValueError as error:
        # A black image keeps the bad one's place: batches of one shape are compiled once.
        reason = f"{name!r}: {error}" if isinstance(photo, tuple) else str(error)
        return name, np.zeros((size, size, 3), np.float32), reason
