"""Progressive learning: image size and regularisation grow in stages (arXiv:2104.00298, section 4).

Source: main.py of github.com/google/automl, efficientnetv2, whose first stage is already above the first size. The
paper's Algorithm 1 begins with the first size itself.
"""

from dataclasses import dataclass

from keras_effnet.training.recipe import Recipe

FIRST_MAGNITUDE = 5


@dataclass(frozen=True)
class Stage:
    """One stage of a training run.

    Args:
        size: side of the images in pixels.
        magnitude: strength of RandAugment.
        mixup, cutmix: their alpha.
        until: the epoch after which the stage ends.
    """

    size: int
    magnitude: float
    mixup: float
    cutmix: float
    until: int


def make_stages(recipe: Recipe, *, size: int, magnitude: float, epochs: int) -> tuple[Stage, ...]:
    """The stages of a run; a run without progressive learning has one.

    Args:
        recipe: the settings.
        size: side of the images in the last stage.
        magnitude: RandAugment's in the last stage.
        epochs: of the whole run.

    Raises:
        ValueError: the size is not above the recipe's first size.

    Example:
        >>> from keras_effnet.training.recipes import RECIPES
        >>> [stage.size for stage in make_stages(RECIPES["imagenet-v2-s"], size=300, magnitude=10, epochs=350)]
        [171, 214, 257, 300]
    """
    first, count = recipe.first_size, recipe.stages
    if count == 1:
        return (Stage(size, magnitude, recipe.mixup, recipe.cutmix, epochs),)
    if size <= first:
        raise ValueError(
            f"size is {size} in a recipe whose stages begin above {first} pixels. Expected more. Choose a larger size, "
            "or set stages to 1 or first_size to less."
        )
    stages = []
    for i in range(count):
        share = i / (count - 1)
        stages.append(
            Stage(
                first + (size - first) * (i + 1) // count,
                FIRST_MAGNITUDE + (magnitude - FIRST_MAGNITUDE) * share,
                recipe.mixup * share,
                recipe.cutmix * share,
                epochs * (i + 1) // count,
            )
        )
    return tuple(stages)
