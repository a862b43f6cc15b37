"""Progressive fine-tuning: the photos and their augmentation grow from epoch to epoch (arXiv:2104.00298, section 4)."""

from dataclasses import dataclass
from typing import Any

from keras_effnet.finetuning.settings import Settings
from keras_effnet.finetuning.transfer import first_block, unfreeze, with_frozen_trunk
from keras_effnet.inference.rebuild import resized

STAGES = 4
# From 128 to 224 pixels, for example.
FIRST = 4 / 7


@dataclass(frozen=True)
class Stage:
    """Some epochs of phase 2.

    Args:
        size: side of the images in pixels.
        smallest_crop: minimum area of a random crop, as a share of the photo's area.
        mixup, cutmix: alpha of MixUp and CutMix.
        until: the epoch after which the stage ends.
    """

    size: int
    smallest_crop: float
    mixup: float
    cutmix: float
    until: int


def make_stages(settings: Settings, size: int) -> tuple[Stage, ...]:
    """The stages of phase 2; a run that is not progressive has one.

    Example:
        >>> [(stage.size, stage.until) for stage in make_stages(Settings(progressive=True, epochs=14), 224)]
        [(128, 3), (160, 7), (192, 10), (224, 14)]
    """
    if not settings.progressive:
        return (Stage(size, settings.smallest_crop, settings.mixup, settings.cutmix, settings.epochs),)
    stages: list[Stage] = []
    for i in range(STAGES):
        share = i / (STAGES - 1)
        grown = size * (FIRST + (1 - FIRST) * share)
        until = settings.epochs * (i + 1) // STAGES
        # With fewer epochs than stages, some stages have none.
        if until > (stages[-1].until if stages else 0):
            # At first half as much is cut off as at last.
            smallest = 1 - (1 - settings.smallest_crop) * (1 + share) / 2
            side = min(size, max(32, round(grown / 8) * 8)) if i < STAGES - 1 else size
            stages.append(Stage(side, smallest, settings.mixup * share, settings.cutmix * share, until))
    return tuple(stages)


def open_copy(network: Any, stages: int | str) -> tuple[Any, Any]:
    """A copy of a network for images of any size, and the same copy with a frozen trunk, for `fit`.

    Args:
        network: the network.
        stages: the blocks to train, as in `unfreeze`.
    """
    copy = resized(network, None)
    unfreeze(copy, stages)
    return copy, with_frozen_trunk(copy, str(first_block(copy, stages))).whole
