"""Non-RGB images: converted and counted by kind, or rejected in strict mode. Unreadable files are skipped."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from keras_effnet.data.photos import NamedPhoto
from keras_effnet.data.sharding import Gaps
from keras_effnet.image_metadata import orientation
from keras_effnet.images import ImageError

# How each kind is handled.
KINDS = {
    "16-bit": "reduced to 8 bits",
    "CMYK": "converted to RGB",
    "animated": "first frame used",
    "grey": "repeated in three channels",
    "other": "converted to RGB",
    "rotated": "turned upright according to EXIF",
    "transparent": "blended with white",
    "unreadable": "left out",
    "wrong label": "left out",
}
LEFT_OUT = tuple(kind for kind, done in KINDS.items() if done == "left out")


@dataclass
class OddFiles:
    """The files of a data set that are not plain RGB; each file is counted once, however often it is read.

    Args:
        total: images in the data set; reading stops once none of them can be used.
        strict: reject these files instead of converting or skipping them.
        refused: the error that stopped reading, or None.
        gaps: positions of the skipped images in each epoch.
    """

    total: int
    strict: bool = False
    names: defaultdict[str, set[str]] = field(default_factory=partial(defaultdict, set))
    refused: ValueError | None = None
    gaps: Gaps = field(default_factory=Gaps)

    def read(self, name: str, source: str | bytes) -> np.ndarray | None:
        """Decode a file to uint8 (height, width, 3) and count its kinds; None if it cannot be read.

        Args:
            name: the file's name in the report.
            source: its path or its bytes.

        Raises:
            ValueError: the file is not plain RGB and `strict` is set, or no image of the data set can be read.

        Example:
            >>> odd = OddFiles(total=2)
            >>> odd.read("cut.jpg", b"no image") is None, odd.report()["unreadable"]["count"]
            (True, 1)
        """
        try:
            return self.open(NamedPhoto(name, source))
        except ImageError as error:
            self.note(name, "unreadable", str(error))
            return None

    def open(self, photo: NamedPhoto) -> np.ndarray:
        """Decode a photo to (height, width, 3) and count its kinds.

        Raises:
            ImageError: the photo cannot be read; it is not counted.
            ValueError: the photo is not plain RGB and `strict` is set.
        """
        kinds: set[str] = set()
        pixels = photo.pixels(lambda image: kinds.update(kinds_of(image)))
        for kind in sorted(kinds):
            self.note(photo.name, kind)
        return pixels

    def note(self, name: str, kind: str, reason: str = "") -> None:
        """Count a file under a kind.

        Raises:
            ValueError: `strict` is set, or all images of the data set are left out.
        """
        self.names[kind].add(name)
        left_out = set().union(*(self.names[kind] for kind in LEFT_OUT))
        if self.strict:
            self.refused = ValueError(
                f"{name!r} is {kind}. {reason}{' ' if reason else ''}Expected plain RGB photos, since strict is set. "
                f"Convert or remove it; without strict it is {KINDS[kind]}."
            )
        elif len(left_out) >= self.total:
            self.refused = ValueError(
                f"None of the {self.total} images can be used; the last, {name!r}, is {kind}. {reason} Expected photos "
                "with labels of the model's classes. Check the data."
            )
        if self.refused:
            raise self.refused

    def seen(self) -> dict[str, list[str]]:
        """The names of the counted files by kind, to be restored with `recall`."""
        return {kind: sorted(names) for kind, names in self.names.items() if names}

    def recall(self, seen: Mapping[str, Iterable[str]]) -> None:
        """Restore the names that `seen` returned in an earlier process."""
        for kind, names in seen.items():
            self.names[kind].update(names)

    def report(self, most: int = 5) -> dict[str, dict[str, object]]:
        """For each kind that occurred: how many files, how they were handled, and the first few names."""
        return {
            kind: {"count": len(self.names[kind]), "done": done, "files": sorted(self.names[kind])[:most]}
            for kind, done in KINDS.items()
            if self.names[kind]
        }


def kinds_of(image: Image.Image) -> set[str]:
    """The kinds of an image that has not been decoded yet; an empty set for plain RGB."""
    found = {
        "16-bit": image.mode.startswith("I"),
        "CMYK": image.mode == "CMYK",
        "animated": _frames(image) > 1,
        "grey": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "rotated": orientation(image) > 1,
        "transparent": image.has_transparency_data,
    }
    kinds = {kind for kind, is_so in found.items() if is_so}
    return kinds or ({"other"} if image.mode not in ("RGB", "P") else set())


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a later frame is broken; only the first is used
        with suppress(Exception):
            image.seek(0)
        return 1
