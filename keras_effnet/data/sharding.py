"""Sharding of batches between processes, and the position in the data from which training resumes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes reads.

    Args:
        index: of this process.
        count: number of processes.
        pieces: number of smaller batches that make up this process's part, one for each of its replicas.
        replicas: total number of replicas over all processes, if every batch must have the same shape and divide evenly
            between them; None if the last batch may be smaller.
    """

    index: int = 0
    count: int = 1
    pieces: int = 1
    replicas: int | None = None

    def size(self, batch_size: int) -> int:
        """Images per piece.

        Example:
            >>> Share(1, 2, pieces=4).size(64)
            8
        """
        return batch_size // (self.count * self.pieces)

    def holds(self, place: Any, batch_size: int) -> Any:
        """Whether this process reads the image at a place (a number or a tensor) in the sequence of batches.

        Example:
            >>> [place for place in range(8) if Share(1, 2).holds(place, 4)]
            [2, 3, 6, 7]
        """
        return place % batch_size // (batch_size // self.count) == self.index

    def held_out(self, total: int, batch_size: int) -> tuple[int, int | None]:
        """The batch size for one pass over the held-out images, and the number of pieces if all have the same shape.

        Among the sizes from half of `batch_size` up, this is the one that leaves out the fewest images; the largest in
        case of a tie.

        Raises:
            ValueError: there are fewer images than replicas.

        Example:
            >>> Share().held_out(25_022, 4096), Share(replicas=8).held_out(25_022, 4096)
            ((4096, None), (2272, 11))
        """
        if self.replicas is None:
            return batch_size, None
        if total < self.replicas:
            raise ValueError(
                f"{total} images are held out for {self.replicas} replicas. Expected at least one image per replica. "
                "Hold out a larger share of the images, or train on fewer devices."
            )
        largest = min(batch_size, total) // self.replicas * self.replicas
        smallest = max(self.replicas, batch_size // 2 // self.replicas * self.replicas)
        sizes = range(largest, min(smallest, largest) - 1, -self.replicas)
        size = min(sizes, key=lambda size: total % size)
        return size, total // size * self.pieces

    def left_out(self, total: int, batch_size: int) -> int:
        """Number of held-out images that do not fit into batches of the same shape and are never used.

        Example:
            >>> Share(replicas=8).left_out(25_022, 4096)
            30
        """
        size, pieces = self.held_out(total, batch_size)
        return 0 if pieces is None else total % size


@dataclass(frozen=True)
class Position:
    """A position from which training resumes.

    Args:
        epoch: number of finished epochs.
        step: number of finished batches in the next epoch.
        place: number of rows that these batches consumed, including skipped images; None if unknown, in which case the
            batches are produced again and discarded.
    """

    epoch: int = 0
    step: int = 0
    place: int | None = 0


BEGIN = Position()


@dataclass
class Gaps:
    """The places of skipped images, for each unfinished epoch.

    Places and not names: whether an image can be read may depend on its crop.
    """

    places: dict[int, set[int]] = field(default_factory=dict)

    def add(self, epoch: int, place: int) -> None:
        """Record that the image at a place was skipped."""
        self.places.setdefault(epoch, set()).add(place)

    def after(self, position: Position, images: int) -> int:
        """The place after `images` used images, counted from a position. Skipped images beyond that place are ignored.

        Example:
            >>> gaps = Gaps()
            >>> gaps.add(0, 2)
            >>> gaps.after(Position(), 2), gaps.after(Position(), 3)
            (2, 4)
        """
        begin = position.place or 0
        place = begin + images
        for gap in sorted(self.places.get(position.epoch, ())):
            if begin <= gap < place:
                place += 1
        return place

    def forget(self, epoch: int) -> None:
        """Drop the places of a finished epoch."""
        self.places.pop(epoch, None)
