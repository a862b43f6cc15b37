"""What can be chosen about a fine-tuning; what it gives is measured by benchmarks/finetune.py."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What can be chosen about a fine-tuning.

    Args:
        unfreeze: how many of the last stages phase 2 trains, 0 for none, or the first block, as in `transfer.unfreeze`.
        epochs: of phase 2.
        head_epochs: of phase 1.
        learning_rate: the highest of phase 2; it rises to it and falls to zero along a cosine (arXiv:1608.03983).
        head_learning_rate: of phase 1.
        batch_size: photos in a batch; few photos get smaller ones, eight an epoch.
        label_smoothing: arXiv:1512.00567, section 7.
        weight_decay: decoupled (arXiv:1711.05101).
        smallest_crop: part of a photo's area that a random crop has at least.
        mirror: whether a photo shows the same with left and right swapped; False for digits and letters.
        resolution: side of the images in pixels, by default the network's own.
        val_share: part of each class that is held out where no photos are given for validation.
        seed: of the split, the head, the crops, their order and dropout.
    """

    unfreeze: int | str = 3
    epochs: int = 14
    head_epochs: int = 40
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    batch_size: int = 32
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    smallest_crop: float = 0.5
    mirror: bool = True
    resolution: int | None = None
    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (0, math.inf), "head_epochs": (1, math.inf), "batch_size": (1, math.inf),
            "label_smoothing": (0, 0.99), "smallest_crop": (0.01, 1), "weight_decay": (0, 1),
            "learning_rate": (0, 1), "head_learning_rate": (0, 1), "seed": (0, 2**32 - 1),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, Real) or not least <= float(value) <= most:
                raise ValueError(
                    f"{name} is {value!r}. Expected a number from {least} to {most}. Leave it out for "
                    f"{type(self).__dataclass_fields__[name].default!r}."
                )


DEFAULTS = Settings()


def make_settings(given: Mapping[str, Any]) -> Settings:
    """Settings from some of their fields.

    Raises:
        TypeError: a field that does not exist.
        ValueError: a value that cannot be.

    Example:
        >>> make_settings({"epochs": 3}).epochs
        3
    """
    if unknown := sorted(given.keys() - asdict(DEFAULTS).keys()):
        raise TypeError(
            f"There is no setting {unknown[0]!r}. Expected some of {', '.join(asdict(DEFAULTS))}. Correct the name."
        )
    return Settings(**given)
