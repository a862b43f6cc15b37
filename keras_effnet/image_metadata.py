"""The metadata of an image: its EXIF orientation is applied, and the rest never makes a sound image fail.

Pillow refuses a PNG, JPEG or WebP file if its colour profile, text or a later frame is large or broken, although the
pixels are sound.
"""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

ORIENTATION = 0x0112  # in EXIF

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"

# The chunks that decide the pixels (and the orientation) of a PNG. The frames of an animation after the first do not.
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")
_SMALL = 1 << 20
# JPEG segments: JFIF, EXIF and Adobe's, which contains the colour space, and the length that their content has at
# least. The other APPn and comments are removed.
_EXIF = 0xE1
_KEPT = {0xE0: (b"JFIF", 14), _EXIF: (b"Exif", 0), 0xEE: (b"Adobe", 12)}
# The chunks that decide the pixels of a WebP, and its flags for profile, EXIF and XMP.
_WEBP_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM")
_WEBP_EXIF = 0x08
_WEBP_SIDE = 0x20 | _WEBP_EXIF | 0x04


def without_metadata(data: bytes) -> Iterator[bytes]:
    """Copies of a PNG, JPEG or WebP file without the parts that do not affect its pixels: with its EXIF, and without.

    Example:
        >>> list(without_metadata(b"GIF89a"))
        []
    """
    for exif in (True, False):
        if data.startswith(PNG):
            yield PNG + b"".join(_png_chunks(data, exif=exif))
        if data.startswith(JPEG):
            yield _jpeg(data, exif=exif)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            body = b"".join(_webp_chunks(data, exif=exif))
            yield struct.pack("<4sI4s", b"RIFF", 4 + len(body), b"WEBP") + body


def _png_chunks(data: bytes, *, exif: bool) -> Iterator[bytes]:
    start = len(PNG)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind in PNG_CHUNKS and (kind != b"eXIf" or (exif and _sound(data[start:end]))):
            yield data[start:end]
        start = end


def _sound(chunk: bytes) -> bool:
    return len(chunk) < _SMALL and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _jpeg(data: bytes, *, exif: bool) -> bytes:
    parts, start = [JPEG], len(JPEG)
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker, length = struct.unpack_from(">xBH", data, start)
        if marker == 0xFF:  # fill byte
            start += 1
            continue
        if marker == 0xDA:  # the pixels follow
            break
        end = start + 2 + length
        side = 0xE0 <= marker <= 0xEF or marker == 0xFE
        signature, least = _KEPT.get(marker, (b"", 0))
        sound = data[start + 4 : end].startswith(signature) and length - 2 >= least
        kept = marker in _KEPT and sound and (exif or marker != _EXIF)
        if kept or not side:
            parts.append(data[start:end])
        start = end
    return b"".join([*parts, data[start:]])


def _webp_chunks(data: bytes, *, exif: bool) -> Iterator[bytes]:
    """The chunks of the pixels, of an animation those of the first frame, and the EXIF if it is complete."""
    start, frames = 12, 0
    while start + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, start)
        end = start + 8 + length + length % 2
        chunk = data[start:end]
        frames += kind == b"ANMF"
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~(_WEBP_SIDE if not exif else _WEBP_SIDE ^ _WEBP_EXIF)]) + chunk[9:]
        if kind in _WEBP_CHUNKS or (kind == b"ANMF" and frames == 1) or (kind == b"EXIF" and exif and end <= len(data)):
            yield chunk
        start = end


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an image, 1 to 8; 1, upright, if its EXIF is missing or broken.

    Example:
        >>> orientation(Image.new("L", (40, 30)))
        1
    """
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow raises anything for broken EXIF; the pixels are sound all the same
        return 1
    return value if isinstance(value, int) and value in range(1, 9) else 1


# The transposition that turns an image upright, by its orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF orientation demands."""
    # Not ImageOps.exif_transpose: it writes the EXIF again, and raises if a part of it is broken.
    image.load()  # a PNG may have its EXIF after the pixels; TIFF is turned by Pillow here
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)
