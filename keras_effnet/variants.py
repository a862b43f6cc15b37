"""The published networks, one row per variant (arXiv:1905.11946; B8 1911.09665; L2 1911.04252; Lite: its release)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_effnet.blocks import B0_BLOCKS, LITE_BLOCKS, BlockArgs
from keras_effnet.normalization import IMAGENET, LITE, Normalization
from keras_effnet.scaling import round_filters, scale


@dataclass(frozen=True)
class Variant:
    """One network of the family: a block table and how far it is scaled.

    Args:
        name: the key in `VARIANTS`, as in "b0".
        width_coefficient: factor for all numbers of filters.
        depth_coefficient: factor for all numbers of repeats.
        resolution: side of the square input image, in pixels.
        dropout_rate: dropout rate before the classifier.
        blocks: the table before scaling.
        activation: "swish" or "relu6".
        normalization: pixel normalisation, unless a weight set has its own.
        fix_ends: do not scale stem, head and the repeats of the first and the last stage (EfficientNet-Lite).
        stem_filters: filters of the first convolution before scaling.
        head_filters: filters of the last convolution before scaling.
    """

    name: str
    width_coefficient: float
    depth_coefficient: float
    resolution: int
    dropout_rate: float
    blocks: tuple[BlockArgs, ...] = B0_BLOCKS
    activation: str = "swish"
    normalization: Normalization = IMAGENET
    fix_ends: bool = False
    stem_filters: int = 32
    head_filters: int = 1280

    @property
    def stages(self) -> tuple[BlockArgs, ...]:
        """The block table after scaling."""
        return scale(
            self.blocks,
            width_coefficient=self.width_coefficient,
            depth_coefficient=self.depth_coefficient,
            fix_ends=self.fix_ends,
        )

    @property
    def stem(self) -> int:
        """Filters of the first convolution after scaling."""
        return self.stem_filters if self.fix_ends else round_filters(self.stem_filters, self.width_coefficient)

    @property
    def head(self) -> int:
        """Filters of the last convolution after scaling."""
        return self.head_filters if self.fix_ends else round_filters(self.head_filters, self.width_coefficient)


def _lite(name: str, width: float, depth: float, resolution: int, dropout_rate: float) -> Variant:
    return Variant(
        name, width, depth, resolution, dropout_rate, LITE_BLOCKS, activation="relu6", normalization=LITE, fix_ends=True
    )


_ROWS = (
    #       name     width  depth  resolution  dropout
    Variant("b0",    1.0,   1.0,   224,        0.2),
    Variant("b1",    1.0,   1.1,   240,        0.2),
    Variant("b2",    1.1,   1.2,   260,        0.3),
    Variant("b3",    1.2,   1.4,   300,        0.3),
    Variant("b4",    1.4,   1.8,   380,        0.4),
    Variant("b5",    1.6,   2.2,   456,        0.4),
    Variant("b6",    1.8,   2.6,   528,        0.5),
    Variant("b7",    2.0,   3.1,   600,        0.5),
    Variant("b8",    2.2,   3.6,   672,        0.5),
    Variant("l2",    4.3,   5.3,   800,        0.5),
    _lite("lite0",   1.0,   1.0,   224,        0.2),
    _lite("lite1",   1.0,   1.1,   240,        0.2),
    _lite("lite2",   1.1,   1.2,   260,        0.3),
    _lite("lite3",   1.2,   1.4,   280,        0.3),
    _lite("lite4",   1.4,   1.8,   300,        0.3),
)  # fmt: skip

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})


def list_models() -> list[str]:
    """List the names of the published networks.

    Example:
        >>> list_models()[:3]
        ['b0', 'b1', 'b2']
    """
    return list(VARIANTS)


def find_variant(name: str) -> Variant:
    """Find a network by any of its usual spellings: "b0", "EfficientNetB0", "efficientnet-lite0".

    Raises:
        ValueError: the network does not exist.
    """
    key = name.lower().replace("_", "-").removeprefix("efficientnet").removeprefix("-")
    if key not in VARIANTS:
        raise ValueError(f"There is no network {name!r}. Expected one of {', '.join(VARIANTS)}.")
    return VARIANTS[key]


def tiny(name: str = "tiny", *, activation: str = "swish", se_ratio: float = 0.25) -> Variant:
    """Return a network for tests: 32 x 32 pixels, all kinds of blocks, under 50,000 parameters."""
    blocks = (
        BlockArgs(1, 3, 1, 1, 8, se_ratio),
        BlockArgs(2, 3, 2, 2, 8, se_ratio),
        BlockArgs(1, 5, 2, 2, 16, se_ratio),
    )
    return Variant(name, 1.0, 1.0, 32, 0.2, blocks, activation, stem_filters=8, head_filters=32)
