"""From a photo to the pixels of a model: decode, crop and resize as the published accuracies were measured.

Source: the evaluation of github.com/tensorflow/tpu, models/official/efficientnet/preprocessing.py (crop padding 32) and
TensorFlow's ResizeBicubic kernel with half_pixel_centers=False, which that code called.
"""

import glob
import io
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

CROP_PADDING = 32
# Left, top, right and bottom in pixels.
Box = tuple[int, int, int, int]
# HEIC needs a plugin of Pillow; without it, being told so is better than being passed over.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif", ".heic", ".heif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm"),
)


class ImageError(ValueError):
    """A file that is not there, or holds no image that can be read; the message says what to do."""


def load_image(
    source: str | os.PathLike[str] | bytes | BinaryIO, inspect: Callable[[Image.Image], object] | None = None
) -> np.ndarray:
    """Decode an image: the right way up, in RGB, its first frame, on white where it is transparent.

    Args:
        source: a path, the bytes of a file, or a file opened for reading bytes.
        inspect: called with the opened image before it is decoded.

    Returns:
        uint8 of shape (height, width, 3), values 0..255.

    Raises:
        ImageError: a file that is missing, truncated, no image, or larger than `PIL.Image.MAX_IMAGE_PIXELS`, which is
            looked at before anything is decoded.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("L", (40, 30), 255).save(file, "PNG")
        >>> load_image(file.getvalue()).shape
        (30, 40, 3)
    """
    name = repr(os.fspath(source)) if isinstance(source, str | os.PathLike) else "The image"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            _refuse_bomb(image)
            if inspect:
                inspect(image)
            ImageOps.exif_transpose(image, in_place=True)
            return np.array(_to_rgb(image))
    except Exception as error:  # a broken file makes Pillow raise anything: OSError, SyntaxError, struct.error, ...
        raise ImageError(f"{name} {_fault(error)}") from error


def from_pil(image: Image.Image) -> np.ndarray:
    """The pixels of an image that Pillow has opened, as `load_image` gives them; it stays as it is.

    Args:
        image: of any mode.

    Returns:
        uint8 of shape (height, width, 3), values 0..255.

    Raises:
        ImageError: it cannot be decoded.

    Example:
        >>> from_pil(Image.new("L", (40, 30), 255)).shape
        (30, 40, 3)
    """
    try:
        return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except Exception as error:
        raise ImageError(f"The image {_fault(error)}") from error


def from_array(image: np.ndarray) -> np.ndarray:
    """The pixels 0..255 of an image in memory: grey becomes RGB, and what is transparent lies on white.

    Args:
        image: (height, width) or (height, width, 1, 3 or 4); uint8, or another dtype with values 0..255, of three
            channels then.

    Returns:
        (height, width, 3), `image` itself if it has three channels.

    Raises:
        ImageError: truth values, or numbers that are not 0..255, such as 0..1 or those of 16 bits.

    Example:
        >>> from_array(np.zeros((30, 40), np.uint8)).shape
        (30, 40, 3)
    """
    if image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        converted = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 4)
        return from_pil(Image.fromarray(image)) if converted and image.size else image
    least, most = (image.min(), image.max()) if image.size and image.dtype.kind in "iuf" else (0, 0)
    if image.dtype.kind not in "iuf" or least < 0 or most > 255 or (image.dtype.kind == "f" and 0 < most <= 1):
        raise ImageError(
            f"it has pixels {least:g}..{most:g} of {image.dtype}. Expected uint8, or numbers 0..255. Bring it there: "
            "pixels of 0..1 times 255, of 16 bits divided by 257."
        )
    return image


def _fault(error: Exception) -> str:
    match error:
        case ImageError():
            return str(error)
        case FileNotFoundError() | NotADirectoryError():
            return "does not exist. Expected an image, a folder or a pattern. Check the path."
        case IsADirectoryError():
            return "is a folder without images. Expected files named *.jpg, *.png or the like in it. Check the path."
        case UnidentifiedImageError():
            return "is not an image. Expected a format that Pillow reads: JPEG, PNG, WebP, ... Convert the file."
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"is too large: {str(error).rstrip('.')}. Expected a photo. Scale it down."
        case OSError(strerror=str(reason)):
            return f"cannot be read: {reason}. Expected a readable file. Check its path and permissions."
    reason = str(error).rstrip(".") or type(error).__name__
    return f"is damaged: {reason}. Expected a whole image. Get the file again."


def _refuse_bomb(image: Image.Image) -> None:
    # Pillow itself warns, and refuses only what is larger than twice its limit.
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise ImageError(
            f"is too large: {image.width} x {image.height} pixels. Expected a photo of at most "
            f"{Image.MAX_IMAGE_PIXELS:,} pixels. Scale it down."
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow itself clips more than 8 bits to 255, which turns 16-bit photos white.
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() >= 0 and grey.max() <= 0xFFFF:
            image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError("has pixels of 32 bits, of which no one can say how bright white is. Expected 8 or 16 bits.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def center_crop_and_resize(image: np.ndarray, size: int, crop_padding: int = CROP_PADDING) -> np.ndarray:
    """Cut out the central square and resize it, exactly as in the evaluation that gave the published accuracies.

    The square has `size / (size + crop_padding)` of the shorter side; the resize is TensorFlow 1's bicubic, which does
    not smooth when it scales down. Only the pixels that the output needs are read.

    Args:
        image: (height, width, 3), any real dtype, values 0..255.
        size: side of the result in pixels.
        crop_padding: what the crop leaves out, in pixels of the result.

    Returns:
        float32 of shape (size, size, 3), about 0..255: a cubic overshoots at edges, and nothing is clipped.

    Raises:
        ValueError: an image of another shape, or a size that is not a whole number of at least 1.

    Example:
        >>> center_crop_and_resize(np.zeros((300, 400, 3), "uint8"), 224).shape
        (224, 224, 3)
    """
    if np.ndim(image) != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"The image has the shape {np.shape(image)}. Expected (height, width, 3). Pass one RGB image at a time, "
            "for example from load_image."
        )
    try:
        side = operator.index(size)
    except TypeError:
        side = 0
    if side < 1:
        raise ValueError(f"size is {size!r}. Expected a whole number of pixels, at least 1: the result is a square.")
    left, top, right, bottom = central_square(image.shape[0], image.shape[1], side, crop_padding)
    return resize_bicubic(image[top:bottom, left:right], side)


def central_square(height: int, width: int, size: int, crop_padding: int = CROP_PADDING) -> Box:
    """What `center_crop_and_resize` cuts out of a photo: left, top, right and bottom in pixels.

    Example:
        >>> central_square(300, 451, 224)
        (95, 19, 357, 281)
    """
    # TensorFlow multiplies in float32 and cuts off; an image of one pixel still has a square.
    side = max(1, int(np.float32(size / (size + crop_padding)) * np.float32(min(height, width))))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    return left, top, left + side, top + side


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Go through files, folders (with what is below them, sorted) and patterns such as "photos/*.jpg".

    Nothing is dropped in silence: a path that does not exist, a folder without images and a pattern that matches
    nothing come out as they are, so that `load_image` can say so.

    Example:
        >>> list(find_images(["missing.jpg"])) == [Path("missing.jpg")]
        True
    """
    # Unlike these, pathlib raises for names that no file can have, and takes no absolute patterns.
    for path in [os.fspath(path) for path in paths]:
        matches = [] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))  # noqa: PTH110, PTH207
        for match in matches or [path]:
            yield from _below(Path(match)) if os.path.isdir(match) else [Path(match)]  # noqa: PTH112


def _below(folder: Path) -> Iterator[Path]:
    empty = True
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                empty = False
                yield Path(parent, name)
    if empty:
        yield folder


# The photos that scikit-image calls otherwise than their files.
_SAMPLE_FILES = {"cat": "chelsea", "clock": "clock_motion", "stereo_motorcycle": "motorcycle_left"}


def sample(name: str) -> np.ndarray:
    """One of the photographs inside the package scikit-image: "chelsea", "coffee", "camera", "rocket", ...

    Args:
        name: as in `skimage.data`; of the two images of `stereo_motorcycle` the left one.

    Returns:
        uint8 of shape (height, width, 3).

    Raises:
        ImportError: scikit-image is not installed.
        ValueError: not a photograph that scikit-image carries; those that it would have to download are not offered.
    """
    spec = find_spec("skimage")
    if spec is None:
        raise ImportError(
            f"The sample {name!r} is a photograph of scikit-image, which is not installed. Expected the package "
            'scikit-image. Run pip install "keras_effnet[quickstart]" or pip install scikit-image.'
        )
    folders = spec.submodule_search_locations or ()
    found: dict[str, Any] = {path.stem: path for folder in folders for path in _below(Path(folder, "data"))}
    found |= {alias: found[stem] for alias, stem in _SAMPLE_FILES.items() if stem in found}
    if name not in found:
        raise ValueError(
            f"There is no sample {name!r} inside scikit-image. Expected one of {', '.join(sorted(found))}. Choose one "
            "of these, or give the path of a photo."
        )
    return load_image(found[name])


def resize_bicubic(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width, 3) of any real dtype to float32 (size, size, 3), without smoothing or clipping.

    Example:
        >>> resize_bicubic(np.ones((30, 20, 3), np.uint8), 8).shape
        (8, 8, 3)
    """
    (y, wy), (x, wx) = (_bicubic_taps(length, size) for length in image.shape[:2])
    rows = sum(wy[:, k, None, None] * image[y[:, k]].take(x.ravel(), axis=1).astype(np.float32) for k in range(4))
    rows = rows.reshape(size, size, 4, 3)
    return sum(wx[:, k, None] * rows[:, :, k] for k in range(4))


def _bicubic_taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The four input pixels of each output pixel and their weights, both of shape (size, 4)."""
    position = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    first = np.floor(position)
    # TensorFlow looks the weights up in a table of 1024 steps.
    t = np.rint((position - first) * 1024) / 1024
    distances = np.stack([t + 1, t, 1 - t, 2 - t], axis=1)
    indices = first[:, None].astype(np.int64) + np.arange(-1, 3)
    return indices.clip(0, length - 1), _keys(distances).astype(np.float32)


def _keys(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    """The cubic convolution kernel at distances 0..2 (Keys, doi:10.1109/TASSP.1981.1163711)."""
    return np.where(x <= 1, ((a + 2) * x - (a + 3)) * x * x + 1, ((a * x - 5 * a) * x + 8 * a) * x - 4 * a)
