"""Search for similar photos by the cosine between their vectors, in memory, in NumPy."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_effnet.curation.feature_files import Features
from keras_effnet.errors import at_least_one

ROWS = 1024  # of a block of cosines: 4 MB for 1,000 photos


class Match(NamedTuple):
    """A photo that was found, and the cosine of its vector with the query, -1..1."""

    name: str
    cosine: float


class Index:
    """Vectors of length 1 of many photos. 100,000 vectors of 1,280 numbers take 512 MB.

    Args:
        features: the photos to search in.

    Example:
        >>> features = Features(("a", "b"), np.eye(2, dtype="float32"), "m")
        >>> Index(features).search(np.array([[1.0, 0.2]], "float32"), top=1)[0][0].name
        'a'
    """

    def __init__(self, features: Features) -> None:
        self.names = features.names
        self.units = unit(features.vectors)

    def search(self, queries: np.ndarray, *, top: int = 5) -> list[list[Match]]:
        """For each query, float32 (queries, features), the most similar photos, the most similar first.

        Raises:
            ValueError: `top` is below 1, or the vectors have another length than the photos'.
        """
        at_least_one(top=top)
        if queries.ndim != 2 or (len(self.names) and queries.shape[1] != self.units.shape[1]):
            raise ValueError(
                f"The queries have the shape {queries.shape}. Expected (queries, {self.units.shape[1]}), vectors of "
                "the model that computed the others."
            )
        if not self.names:
            return [[] for _ in queries]
        top = min(top, len(self.names))
        found = []
        for query in unit(queries):
            cosines = self.units @ query
            best = np.argpartition(-cosines, top - 1)[:top]
            best = best[np.argsort(-cosines[best], kind="stable")]
            found.append([Match(self.names[i], float(cosines[i])) for i in best])
        return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each vector to length 1; a vector of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def cosine_blocks(units: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The cosines of all vectors with all others, in blocks of rows: (first row, float32 (rows, photos))."""
    for start in range(0, len(units), ROWS):
        yield start, units[start : start + ROWS] @ units.T
