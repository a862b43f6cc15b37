"""The settings of fine-tuning. benchmarks/finetune.py measures their effect."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, TypedDict

from keras_effnet.errors import COUNT, SEED, Range

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "epochs": Range(least=0, whole=True),
        "head_epochs": COUNT,
        "learning_rate": Range(least=0, most=1),
        "head_learning_rate": Range(least=0, most=1),
        "batch_size": COUNT,
        "label_smoothing": Range(least=0, most=0.99),
        "weight_decay": Range(least=0, most=1),
        "smallest_crop": Range(least=0.01, most=1),
        "mixup": Range(least=0),
        "cutmix": Range(least=0),
        "resolution": Range(least=32, whole=True),
        "seed": SEED,
    }
)


@dataclass(frozen=True)
class Settings:
    """The settings of fine-tuning.

    Args:
        unfreeze: number of last stages that phase 2 trains, 0 for none; or the first trained block, as in `unfreeze`.
        epochs: of phase 2.
        head_epochs: of phase 1.
        learning_rate: peak learning rate of phase 2, reached by a warm-up and followed by cosine decay to zero
            (arXiv:1608.03983).
        head_learning_rate: of phase 1.
        batch_size: maximum number of photos per batch; small data sets get smaller batches, at least eight per epoch.
        label_smoothing: arXiv:1512.00567, section 7.
        weight_decay: decoupled (arXiv:1711.05101).
        smallest_crop: minimum area of a random crop, as a share of the photo's area.
        mirror: whether photos may be mirrored; False for digits and letters.
        mixup, cutmix: alpha of MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899) in phase 2; 0 for none. With
            both, each is applied to one half of each batch.
        progressive: whether the images of phase 2 grow in four stages from 4/7 of their size, and crops, `mixup` and
            `cutmix` with them (arXiv:2104.00298, section 4).
        resolution: side of the images in pixels; None for the network's own.
        val_share: share of each class to hold out if the data has no validation split.
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
    mixup: float = 0.0
    cutmix: float = 0.0
    progressive: bool = False
    resolution: int | None = None
    val_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, valid in RANGES.items():
            value = getattr(self, name)
            if not (value is None and name == "resolution"):
                valid.check(name, value)


class SettingsArguments(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments, for type checkers and editors."""

    unfreeze: int | str
    epochs: int
    head_epochs: int
    learning_rate: float
    head_learning_rate: float
    batch_size: int
    label_smoothing: float
    weight_decay: float
    smallest_crop: float
    mirror: bool
    mixup: float
    cutmix: float
    progressive: bool
    resolution: int | None
    val_share: float
    seed: int


DEFAULTS = Settings()


def make_settings(given: Mapping[str, Any]) -> Settings:
    """Settings with some fields changed from their defaults.

    Raises:
        TypeError: an unknown setting.
        ValueError: an invalid value.

    Example:
        >>> make_settings({"epochs": 3}).epochs
        3
    """
    if unknown := sorted(given.keys() - asdict(DEFAULTS).keys()):
        raise TypeError(f"There is no setting {unknown[0]!r}. Expected one of {', '.join(sorted(asdict(DEFAULTS)))}.")
    return Settings(**given)
