"""AutoAugment's policy v0 and RandAugment as tables (arXiv:1805.09501, 1909.13719).

Source: github.com/tensorflow/tpu, models/official/efficientnet/autoaugment.py: the policy that EfficientNet was trained
with, the sixteen operations, and the argument of each operation at levels 0 to 10.
"""

from dataclasses import dataclass

MAX_LEVEL = 10
# Fills the pixels that a rotation, a shear, a translation or Cutout leaves empty.
REPLACE = 128

# In RandAugment's order.
OPERATIONS = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness"),
    *("Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd"),
)
# The argument of these is negated for half of the images, at random.
SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


@dataclass(frozen=True)
class Step:
    """One operation of a policy.

    Args:
        operation: one of `OPERATIONS`.
        probability: of applying it.
        level: its strength, 0 to 10; RandAugment also uses higher levels.
    """

    operation: str
    probability: float
    level: float


@dataclass(frozen=True)
class Policy:
    """An augmentation policy.

    Args:
        rows: sequences of steps; each layer draws one row per image and applies its steps in order.
        layers: how many rows are drawn per image.
        cutout: half the side of Cutout's square at level 10, in pixels.
        translate: shift of the translations at level 10, in pixels.
    """

    rows: tuple[tuple[Step, ...], ...]
    layers: int
    cutout: int
    translate: int

    def argument(self, step: Step) -> float:
        """Convert the level of a step to the argument of its operation: degrees, pixels, bits, a threshold or a factor.

        Example:
            >>> AUTOAUGMENT.argument(Step("Rotate", 0.6, 8))
            24.0
        """
        share = step.level / MAX_LEVEL
        match step.operation:
            case "Color" | "Contrast" | "Brightness" | "Sharpness":
                return share * 1.8 + 0.1
            case "Rotate":
                return share * 30
            case "ShearX" | "ShearY":
                return share * 0.3
            case "TranslateX" | "TranslateY":
                return share * self.translate
            case "Posterize":
                return int(share * 4)
            case "Solarize":
                return int(share * 256)
            case "SolarizeAdd":
                return int(share * 110)
            case "Cutout":
                return int(share * self.cutout)
        return 0.0


def _row(first: str, second: str) -> tuple[Step, ...]:
    pairs = (step.split() for step in (first, second))
    return tuple(Step(name, float(probability), float(level)) for name, probability, level in pairs)


AUTOAUGMENT = Policy(
    rows=(
        _row("Equalize  0.8 1", "ShearY       0.8 4"),
        _row("Color     0.4 9", "Equalize     0.6 3"),
        _row("Color     0.4 1", "Rotate       0.6 8"),
        _row("Solarize  0.8 3", "Equalize     0.4 7"),
        _row("Solarize  0.4 2", "Solarize     0.6 2"),
        _row("Color     0.2 0", "Equalize     0.8 8"),
        _row("Equalize  0.4 8", "SolarizeAdd  0.8 3"),
        _row("ShearX    0.2 9", "Rotate       0.6 8"),
        _row("Color     0.6 1", "Equalize     1.0 2"),
        _row("Invert    0.4 9", "Rotate       0.6 0"),
        _row("Equalize  1.0 9", "ShearY       0.6 3"),
        _row("Color     0.4 7", "Equalize     0.6 0"),
        _row("Posterize 0.4 6", "AutoContrast 0.4 7"),
        _row("Solarize  0.6 8", "Color        0.6 9"),
        _row("Solarize  0.2 4", "Rotate       0.8 9"),
        _row("Rotate    1.0 7", "TranslateY   0.8 9"),
        _row("ShearX    0.0 0", "Solarize     0.8 4"),
        _row("ShearY    0.8 0", "Color        0.6 4"),
        _row("Color     1.0 0", "Rotate       0.6 2"),
        _row("Equalize  0.8 4", "Equalize     0.0 8"),
        _row("Equalize  1.0 4", "AutoContrast 0.6 2"),
        _row("ShearY    0.4 7", "SolarizeAdd  0.6 7"),
        _row("Posterize 0.8 2", "Solarize     0.6 10"),
        _row("Solarize  0.6 8", "Equalize     0.6 1"),
        _row("Color     0.8 6", "Rotate       0.4 5"),
    ),
    layers=1,
    cutout=100,
    translate=250,
)


def randaugment(layers: int = 2, magnitude: float = 10) -> Policy:
    """RandAugment: each image gets `layers` operations, drawn from all sixteen, at one magnitude.

    Example:
        >>> len(randaugment(2, 10).rows)
        16
    """
    return Policy(tuple((Step(name, 1.0, magnitude),) for name in OPERATIONS), layers, cutout=40, translate=100)
