"""From an image file to pixels: decode it and apply its EXIF orientation.

Finding files is in `image_files`, cropping and resizing in `center_crop`; both can be imported from here too.
"""

import io
import math
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from keras_effnet.center_crop import (
    CROP_PADDING,
    CROPS,
    DECODES,
    Box,
    View,
    center_crop_and_resize,
    central_square,
    resize_bicubic,
    resize_bilinear,
)
from keras_effnet.errors import require_packages
from keras_effnet.image_files import SUFFIXES, find_images, images_below
from keras_effnet.image_metadata import upright, without_metadata

__all__ = [
    "CROPS",
    "CROP_PADDING",
    "DECODES",
    "SUFFIXES",
    "Box",
    "ImageError",
    "View",
    "center_crop_and_resize",
    "central_square",
    "find_images",
    "from_array",
    "from_pil",
    "load_image",
    "resize_bicubic",
    "resize_bilinear",
    "sample",
    "shrink_on_load",
]

MAX_PIXELS = "KERAS_EFFNET_MAX_PIXELS"


class ImageError(ValueError):
    """An image that does not exist or cannot be decoded; the message explains what to do."""


def load_image(
    source: str | os.PathLike[str] | bytes | BinaryIO, inspect: Callable[[Image.Image], object] | None = None
) -> np.ndarray:
    """Decode an image to RGB, with its EXIF orientation applied.

    Transparent pixels are blended with white. Of an animation, the first frame is decoded.

    Args:
        source: a path, the bytes of a file, or a file opened for reading bytes.
        inspect: called with the opened image before it is decoded.

    Returns:
        uint8 of shape (height, width, 3), values 0..255.

    Raises:
        ImageError: the file is missing, truncated or not an image, or it has more than `PIL.Image.MAX_IMAGE_PIXELS`
            pixels, which is checked before decoding. The environment variable KERAS_EFFNET_MAX_PIXELS sets this limit.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 30), 255).save(file, "PNG")
        >>> load_image(file.getvalue()).shape
        (30, 40, 3)
    """
    name = repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else "The file"
    try:
        _apply_limit()
        return _decode(source, inspect)
    except Exception as error:  # for a broken file Pillow raises anything: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name} {_fault(error, source)}") from error


def _decode(source: Any, inspect: Callable[[Image.Image], object] | None) -> np.ndarray:
    try:
        return _open(source, inspect)
    except (ImageError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        # Large or broken metadata may be the reason.
        for pixels_only in without_metadata(_bytes(source)):
            with suppress(Exception):
                return _open(pixels_only, inspect)
        raise


def _open(source: Any, inspect: Callable[[Image.Image], object] | None) -> np.ndarray:
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        _refuse_bomb(image)
        if inspect:
            inspect(image)
        return np.array(_to_rgb(upright(image)))


def shrink_on_load(image: Image.Image, view: View) -> None:
    """Let an opened JPEG file be decoded at a fraction of its size, as `view.decode` allows.

    JPEG's own transform is computed for fewer frequencies, which smooths; other formats are not changed.

    Args:
        image: an image that was opened and not yet decoded.
        view: the pixels that will be used.
    """
    factor = view.reduction(image.height, image.width)
    if factor > 1 and isinstance(image, JpegImageFile):
        image.draft(image.mode, (image.width // factor, image.height // factor))


def _bytes(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if hasattr(source, "read"):
        source.seek(0)
        return bytes(source.read())
    return Path(source).read_bytes()


def from_pil(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to pixels, in the same way as `load_image`. The image is not changed.

    Args:
        image: an image of any mode.

    Returns:
        uint8 of shape (height, width, 3), values 0..255.

    Raises:
        ImageError: the image cannot be decoded.

    Example:
        >>> from_pil(Image.new("L", (40, 30), 255)).shape
        (30, 40, 3)
    """
    try:
        return np.array(_to_rgb(upright(image)))
    except Exception as error:
        raise ImageError(f"The image {_fault(error)}") from error


def from_array(image: np.ndarray) -> np.ndarray:
    """Convert an array of pixels to RGB, values 0..255. Transparent pixels are blended with white.

    Args:
        image: of shape (height, width) or (height, width, channels) with 1, 3 or 4 channels, of uint8 or another real
            dtype with values 0..255.

    Returns:
        (height, width, 3); `image` itself if it has three channels.

    Raises:
        ImageError: another shape, or the values are booleans or not 0..255, for example 0..1 or 16-bit.

    Example:
        >>> from_array(np.zeros((30, 40), np.uint8)).shape
        (30, 40, 3)
    """
    if image.ndim not in (2, 3) or not image.size or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"The image has the shape {image.shape}. Expected (height, width), or (height, width, channels) with 1, 3 "
            "or 4 channels."
        )
    if image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        return image if image.ndim == 3 and image.shape[2] == 3 else from_pil(Image.fromarray(image))
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    elif image.shape[2] == 4:
        opaque = image[..., 3:].astype(np.float32) / 255
        image = image[..., :3] * opaque + 255 * (1 - opaque)
    least, most = (image.min(), image.max()) if image.dtype.kind in "iuf" else (0, 0)
    if image.dtype.kind not in "iuf" or least < 0 or most > 255 or (image.dtype.kind == "f" and 0 < most <= 1):
        raise ImageError(
            f"it has pixels {least:g}..{most:g} of {image.dtype}. Expected uint8, or numbers 0..255. Multiply pixels "
            "0..1 by 255; divide 16-bit pixels by 257."
        )
    return image


def _fault(error: Exception, source: Any = None) -> str:
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError() if isinstance(source, str | os.PathLike) and Path(source).is_symlink():
            return f"is a broken link to {str(Path(source).readlink())!r}. Expected a file or folder there. Mend it."
        case FileNotFoundError() | NotADirectoryError():
            return "does not exist. Expected an image, a folder or a pattern. Check the path."
        case IsADirectoryError():
            return "is a folder without images. Expected files such as *.jpg or *.png in it. Check the path."
        case UnidentifiedImageError():
            return "is not an image. Expected a format that Pillow reads, such as JPEG, PNG or WebP. Convert the file."
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"is too large: {str(error).rstrip('.')}. Expected a photo. {_RAISE_LIMIT}"
        case OSError(strerror=str(reason)):
            return f"cannot be read: {reason}. Expected a readable file. Check its path and permissions."
    reason = str(error).rstrip(".") or type(error).__name__
    return f"is damaged: {reason}. Expected a complete image. Download or copy the file again."


_RAISE_LIMIT = (
    f"Resize the file; or raise the limit with the environment variable {MAX_PIXELS}, or in Python with "
    "PIL.Image.MAX_IMAGE_PIXELS."
)


@cache
def _apply_limit() -> None:
    """Set Pillow's limit to that of the environment, once."""
    limit = os.environ.get(MAX_PIXELS, "").strip().replace("_", "")
    if not limit:
        return
    if not limit.isdecimal() or int(limit) < 1:
        raise ImageError(
            f"cannot be opened: the environment variable {MAX_PIXELS} is {limit!r}. Expected a number of pixels, such "
            "as 200000000. Correct or unset it."
        )
    Image.MAX_IMAGE_PIXELS = int(limit)


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow itself only warns above its limit, and raises above twice the limit.
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ImageError(
            f"is too large: {image.width} x {image.height} pixels. Expected a photo of at most "
            f"{Image.MAX_IMAGE_PIXELS:,} pixels. {_RAISE_LIMIT}"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow itself clips values above 255, so that 16-bit photos would be white.
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() >= 0 and grey.max() <= 0xFFFF:
            image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError("has 32-bit pixels with an unknown white level. Expected 8 or 16 bits. Convert the file.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


# Where scikit-image's name of a photo differs from its file name.
_SAMPLE_FILES = {"cat": "chelsea", "clock": "clock_motion", "stereo_motorcycle": "motorcycle_left"}


def sample(name: str) -> np.ndarray:
    """Load one of the photographs that the package scikit-image contains, such as "chelsea", "coffee" or "rocket".

    Args:
        name: the name in `skimage.data`. "stereo_motorcycle" is the left one of its two images.

    Returns:
        uint8 of shape (height, width, 3).

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: scikit-image does not contain the photograph; those that it would download are not available.
    """
    require_packages(f"The sample {name!r}", "skimage")
    spec = find_spec("skimage")
    folders = (spec and spec.submodule_search_locations) or ()
    found: dict[str, Any] = {path.stem: path for folder in folders for path in images_below(Path(folder, "data"))}
    found |= {alias: found[stem] for alias, stem in _SAMPLE_FILES.items() if stem in found}
    if name not in found:
        raise ValueError(
            f"scikit-image does not contain the sample {name!r}. Expected one of {', '.join(sorted(found))}. To use "
            "another photo, pass its path."
        )
    return load_image(found[name])
