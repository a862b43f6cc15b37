"""Which part of the data is read, by which process, and from where a training resumes."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Share:
    """The part of every batch that one of several processes reads: as if a batch were read whole and then cut.

    Args:
        index: which of the processes.
        count: how many there are.
        pieces: batches in which a process wants its part of a batch, one for each of its replicas.
        replicas: of all processes together, where every batch must have the same shape and part for each; None where
            the last one may be as small as it comes.
    """

    index: int = 0
    count: int = 1
    pieces: int = 1
    replicas: int | None = None

    def size(self, batch_size: int) -> int:
        """Images of a piece.

        Example:
            >>> Share(1, 2, pieces=4).size(64)
            8
        """
        return batch_size // (self.count * self.pieces)

    def holds(self, place: Any, batch_size: int) -> Any:
        """Whether the image at a place, a number or a tensor, is in the part: the batches lie one behind the other.

        Example:
            >>> [place for place in range(8) if Share(1, 2).holds(place, 4)]
            [2, 3, 6, 7]
        """
        return place % batch_size // (batch_size // self.count) == self.index

    def held_out(self, total: int, batch_size: int) -> tuple[int, int | None]:
        """The size of batches of which each image is seen once, and, where all must have one shape, the pieces to make.

        Of the sizes from half of `batch_size` on, the largest of those that leave the fewest images out.

        Raises:
            ValueError: fewer images than replicas.

        Example:
            >>> Share().held_out(25_022, 4096), Share(replicas=8).held_out(25_022, 4096)
            ((4096, None), (2272, 11))
        """
        if self.replicas is None:
            return batch_size, None
        if total < self.replicas:
            raise ValueError(
                f"{total} images are held out and there are {self.replicas} replicas. Expected at least one for each. "
                "Hold out a larger share of the images, or train on fewer devices."
            )
        largest = min(batch_size, total) // self.replicas * self.replicas
        smallest = max(self.replicas, batch_size // 2 // self.replicas * self.replicas)
        sizes = range(largest, min(smallest, largest) - 1, -self.replicas)
        size = min(sizes, key=lambda size: total % size)
        return size, total // size * self.pieces

    def left_out(self, total: int, batch_size: int) -> int:
        """Held-out images that are never seen, since batches of the same shape do not add up to all of them.

        Example:
            >>> Share(replicas=8).left_out(25_022, 4096)
            30
        """
        size, pieces = self.held_out(total, batch_size)
        return 0 if pieces is None else total % size


@dataclass(frozen=True)
class Position:
    """A place to go on from.

    Args:
        epoch: epochs that are done.
        step: batches of the next epoch that are done.
        place: rows of the source that these batches took, with the images that were left out; None if it is not known:
            these batches then have to be made again, and thrown away.
    """

    epoch: int = 0
    step: int = 0
    place: int | None = 0


BEGIN = Position()


@dataclass
class Gaps:
    """The places of the images that were left out, of each epoch that is not over.

    Whether an image can be read may depend on where it is cropped, so the name alone does not tell.
    """

    places: dict[int, set[int]] = field(default_factory=dict)

    def add(self, epoch: int, place: int) -> None:
        """Note that the image at a place was left out."""
        self.places.setdefault(epoch, set()).add(place)

    def after(self, position: Position, images: int) -> int:
        """The place behind so many images that were used, counted from a position; images may be read ahead of it.

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
        """Drop the places of an epoch that is over."""
        self.places.pop(epoch, None)
