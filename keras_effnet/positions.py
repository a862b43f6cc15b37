"""Where a training stands in its data, so that it goes on from there without decoding what lies behind."""

from dataclasses import dataclass, field


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
