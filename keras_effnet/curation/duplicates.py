"""Find photos that occur several times: the same file, or the same picture in another size, quality or crop."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_effnet.curation.similarity import cosine_blocks, unit

# Two photos show the same picture if their features are nearly equal, or if these are similar and so are their hashes.
SAME_FEATURES, SIMILAR_FEATURES, SIMILAR_BITS = 0.945, 0.72, 6


def file_digest(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference_hash(pixels: np.ndarray) -> int:
    """64 bits: whether each of 8 x 8 places is darker than its right neighbour, on a copy of 9 x 8 grey pixels.

    Args:
        pixels: uint8 or float (height, width, 3), 0..255.
    """
    from PIL import Image

    grey = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("L").resize((9, 8), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    return int("".join("1" if bit else "0" for bit in (values[:, 1:] > values[:, :-1]).ravel()), 2)


def same_files(digests: Sequence[str | None]) -> list[list[int]]:
    """Groups of positions with equal digests; None belongs to no group."""
    groups = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest is not None:
            groups[digest].append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(vectors: np.ndarray, hashes: Sequence[int]) -> list[list[int]]:
    """Groups of positions that show the same picture, the same files included.

    Args:
        vectors: features, float32 (photos, features).
        hashes: from `difference_hash`.
    """
    pairs = []
    for start, cosines in cosine_blocks(unit(vectors)):
        for i, j in np.argwhere(cosines > SIMILAR_FEATURES):
            left, right = start + int(i), int(j)
            if left < right and (
                cosines[i, j] > SAME_FEATURES or (hashes[left] ^ hashes[right]).bit_count() <= SIMILAR_BITS
            ):
                pairs.append((left, right))
    return _groups(pairs)


def _groups(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected groups: if a is like b and b like c, all three are together."""
    leader: dict[int, int] = {}

    def find(i: int) -> int:
        while leader.setdefault(i, i) != i:
            i = leader[i]
        return i

    for left, right in pairs:
        a, b = sorted((find(left), find(right)))
        leader[b] = a
    groups = defaultdict(list)
    for i in sorted(leader):
        groups[find(i)].append(i)
    return list(groups.values())
