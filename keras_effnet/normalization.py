"""Constants of each weight set: pixel normalisation, padding and the epsilon of batch normalisation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation, in units of pixel values 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def scale(self) -> list[float]:
        """The factor in `x * scale + offset`, one per channel."""
        return [1.0 / std for std in self.std]

    @property
    def offset(self) -> list[float]:
        """The summand in `x * scale + offset`, one per channel."""
        return [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]

    def close_to(self, other: "Normalization") -> bool:
        """Whether both are equal up to rounding; `other` is adapted to this number of channels first."""
        other = other.for_channels(len(self.mean))
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return all(abs(a - b) <= 1e-3 * max(1.0, abs(b)) for a, b in pairs)

    def for_channels(self, channels: int) -> "Normalization":
        """Adapt to another number of channels by repeating red, green, blue; a single channel gets their mean."""
        if channels == len(self.mean):
            return self
        if channels == 1:
            return Normalization((sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),))
        turns = [i % len(self.mean) for i in range(channels)]
        return Normalization(tuple(self.mean[i] for i in turns), tuple(self.std[i] for i in turns))


# Mean and standard deviation of ImageNet: AutoAugment, RandAugment, Noisy Student and baseline weights.
IMAGENET = Normalization(
    (0.485 * 255, 0.456 * 255, 0.406 * 255),
    (0.229 * 255, 0.224 * 255, 0.225 * 255),
)
# -1..1: AdvProp weights (arXiv:1911.09665).
MINUS_ONE_TO_ONE = Normalization((127.5,) * 3, (127.5,) * 3)
# EfficientNet-Lite: (x - 127) / 128.
LITE = Normalization((127.0,) * 3, (128.0,) * 3)
# (x - 128) / 128: EfficientNetV2, except for the `imagenet` weights of V2-B0 to V2-B3 (arXiv:2104.00298, its code).
V2 = Normalization((128.0,) * 3, (128.0,) * 3)
# 0..1: `keras.applications` models that were not built with pretrained weights.
ZERO_TO_ONE = Normalization((0.0,) * 3, (255.0,) * 3)


@dataclass(frozen=True)
class Framework:
    """Padding and batch-norm epsilon of a framework's networks; the values are those of `Conventions`."""

    name: str
    padding: str
    bn_epsilon: float


TENSORFLOW = Framework("tensorflow", "same", 1e-3)
PYTORCH = Framework("pytorch", "symmetric", 1e-5)
FRAMEWORKS = {framework.name: framework for framework in (TENSORFLOW, PYTORCH)}


def find_framework(name: str) -> Framework:
    """Look up a framework by its name.

    Raises:
        ValueError: the name is neither "tensorflow" nor "pytorch".
    """
    if name not in FRAMEWORKS:
        raise ValueError(f"framework is {name!r}. Expected one of {', '.join(FRAMEWORKS)}.")
    return FRAMEWORKS[name]
