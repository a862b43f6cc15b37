"""Photos for tests that train: noisy squares of three colours, one folder per colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def colour_photos(folder: Path, each: int, seed: int = 0) -> Path:
    """Noisy squares, a folder for each colour."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.clip(colour + rng.normal(0, 25, (40, 48, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i:02}.png")
    return folder


def make(folder: Path, *files: str, text: str = "") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    return folder
