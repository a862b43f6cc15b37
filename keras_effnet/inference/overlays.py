"""Overlays of activation maps on photos, and contact sheets, with Pillow only.

Source of the colour map: Turbo (A. Mikhailov, Google AI blog, 2019-08-20).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# 16 colours from 0 to 1, with linear interpolation between them.
TURBO = (
    *("30123b", "4143a7", "4771e9", "3e9bfe", "22c5e2", "1ae4b6", "46f884", "88ff4e"),
    *("b9f635", "e1dd37", "faba39", "fd8d27", "f05b12", "d63506", "af1801", "7a0403"),
)

OPACITY = 0.5
TILE = 224
_GAP, _LINE = 8, 16


def colour(values: np.ndarray) -> np.ndarray:
    """Convert values 0..1 to colours from dark blue to green to dark red: uint8, with a last axis of 3.

    Example:
        >>> colour(np.array([0.0, 0.5, 1.0])).shape
        (3, 3)
    """
    steps = np.linspace(0, 1, len(TURBO))
    channels = np.array([tuple(bytes.fromhex(step)) for step in TURBO]).T
    return _to_uint8(np.stack([np.interp(values, steps, channel) for channel in channels], axis=-1))


def overlay(photo: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Blend a map with its photo. Dark red is the maximum of the map, dark blue is zero and below.

    Args:
        photo: (height, width, 3), pixels 0..255.
        values: the map, float of shape (rows, columns); negative values are treated as zero.

    Returns:
        uint8 with the shape of the photo.

    Example:
        >>> overlay(np.zeros((30, 40, 3), "uint8"), np.eye(7)).shape
        (30, 40, 3)
    """
    height, width = photo.shape[:2]
    positive = np.maximum(values, 0).astype(np.float32)
    heat = Image.fromarray(positive / (positive.max() or 1)).resize((width, height), Image.Resampling.BICUBIC)
    return _to_uint8((1 - OPACITY) * photo + OPACITY * colour(np.asarray(heat)))


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Tile:
    """A picture in a contact sheet, and the lines of text below it."""

    picture: Image.Image
    lines: tuple[str, ...] = ()


def tile(photo: np.ndarray, *lines: str) -> Tile:
    """Resize a square photo, uint8 (side, side, 3), to a tile."""
    return Tile(Image.fromarray(photo).resize((TILE, TILE), Image.Resampling.LANCZOS), lines)


def contact_sheet(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Arrange rows of tiles on a white background, each with its lines of text below it.

    Example:
        >>> contact_sheet([[tile(np.zeros((9, 9, 3), "uint8"), "black")] * 2]).size
        (472, 264)
    """
    lines = max((len(each.lines) for row in rows for each in row), default=0)
    across, down = TILE + _GAP, TILE + lines * _LINE + 2 * _GAP
    columns = max(map(len, rows), default=0)
    sheet = Image.new("RGB", (columns * across + _GAP, len(rows) * down + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, row in enumerate(rows):
        for j, each in enumerate(row):
            x, y = _GAP + j * across, _GAP + i * down
            sheet.paste(each.picture, (x, y))
            for k, line in enumerate(each.lines):
                draw.text((x, y + TILE + 3 + k * _LINE), _cut(line, font), "black", font)
    return sheet


def _cut(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(line) <= TILE:
        return line
    while line and font.getlength(f"{line}...") > TILE:
        line = line[:-1]
    return f"{line}..."
