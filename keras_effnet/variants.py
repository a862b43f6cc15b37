"""The published networks, one row per variant.

Sources: arXiv:1905.11946 (B0-B7), 1911.09665 (B8), 1911.04252 (L2), the release of EfficientNet-Lite, 2104.00298 (V2).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from keras_effnet.blocks import (
    B0_BLOCKS,
    LITE_BLOCKS,
    V2_BASE_BLOCKS,
    V2_L_BLOCKS,
    V2_M_BLOCKS,
    V2_S_BLOCKS,
    V2_XL_BLOCKS,
    BlockArgs,
)
from keras_effnet.normalization import IMAGENET, LITE, V2, Normalization
from keras_effnet.scaling import ROUND_LIMIT, round_filters, scale


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
        round_limit: smallest share of a scaled number of filters that rounding may leave, see `round_filters`.
        bn_momentum: momentum of the moving statistics in batch normalisation.
        depthwise: name of the depthwise layers in `keras.applications`: "dwconv", or "dwconv2" in V2.
        keeps_normalization: whether weight files of `keras.applications` contain mean and variance of the pixels; in V2
            they are constants.
        train_resolution: side of the images that the published weights were trained on, if it is smaller.
        crop: "center" if the published accuracy was measured on the central square of each photo; None if it was
            measured on the whole photo, resized to a square (V2-S to XL).
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
    round_limit: float = ROUND_LIMIT
    bn_momentum: float = 0.99
    depthwise: str = "dwconv"
    keeps_normalization: bool = True
    train_resolution: int | None = None
    crop: str | None = "center"

    def __repr__(self) -> str:
        factors = f"width {self.width_coefficient:g}, depth {self.depth_coefficient:g}"
        return f"Variant({self.name!r}, {factors}, {self.resolution} pixels, {len(self.blocks)} rows of blocks)"

    @property
    def stages(self) -> tuple[BlockArgs, ...]:
        """The block table after scaling."""
        return scale(
            self.blocks,
            width_coefficient=self.width_coefficient,
            depth_coefficient=self.depth_coefficient,
            fix_ends=self.fix_ends,
            round_limit=self.round_limit,
        )

    @property
    def stem(self) -> int:
        """Filters of the first convolution after scaling."""
        return self._end(self.stem_filters)

    @property
    def head(self) -> int:
        """Filters of the last convolution after scaling."""
        return self._end(self.head_filters)

    def _end(self, filters: int) -> int:
        if self.fix_ends:
            return filters
        return round_filters(filters, self.width_coefficient, round_limit=self.round_limit)

    @property
    def fused(self) -> bool:
        """Whether it has fused blocks, as EfficientNetV2."""
        return any(row.conv_type == "fused" for row in self.blocks)

    @property
    def builder(self) -> str:
        """The name of the function that builds a published network: "EfficientNetV2S" for "v2-s"."""
        plain = self.name.capitalize() if self.name.startswith("lite") else self.name.replace("-", "").upper()
        return f"EfficientNet{plain}"


def _lite(name: str, width: float, depth: float, resolution: int, dropout_rate: float) -> Variant:
    return Variant(
        name, width, depth, resolution, dropout_rate, LITE_BLOCKS, activation="relu6", normalization=LITE, fix_ends=True
    )


def _v2(
    name: str,
    width: float,
    depth: float,
    resolution: int,
    train_resolution: int,
    dropout_rate: float,
    blocks: tuple[BlockArgs, ...],
    stem_filters: int,
) -> Variant:
    return Variant(
        f"v2-{name}",
        width,
        depth,
        resolution,
        dropout_rate,
        blocks,
        # The weights of B0-B3 that are named `imagenet` were trained as V1's.
        normalization=IMAGENET if name.startswith("b") else V2,
        stem_filters=stem_filters,
        round_limit=0.0,
        bn_momentum=0.9,
        depthwise="dwconv2",
        keeps_normalization=False,
        train_resolution=train_resolution,
        # Its code squashes all images of 320 pixels or more.
        crop="center" if name.startswith("b") else None,
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
    #     name       width  depth  resolution  train  dropout  blocks          stem
    _v2("b0",        1.0,   1.0,   224,        192,   0.2,     V2_BASE_BLOCKS, 32),
    _v2("b1",        1.0,   1.1,   240,        192,   0.2,     V2_BASE_BLOCKS, 32),
    _v2("b2",        1.1,   1.2,   260,        208,   0.3,     V2_BASE_BLOCKS, 32),
    _v2("b3",        1.2,   1.4,   300,        240,   0.3,     V2_BASE_BLOCKS, 32),
    _v2("s",         1.0,   1.0,   384,        300,   0.2,     V2_S_BLOCKS,    24),
    _v2("m",         1.0,   1.0,   480,        384,   0.3,     V2_M_BLOCKS,    24),
    _v2("l",         1.0,   1.0,   480,        384,   0.4,     V2_L_BLOCKS,    32),
    _v2("xl",        1.0,   1.0,   512,        384,   0.4,     V2_XL_BLOCKS,   32),
)  # fmt: skip


class Variants(Mapping[str, Variant]):
    """The published networks by name. A row is found by any usual spelling, as `find_variant` finds it.

    Example:
        >>> VARIANTS["B3"].name, VARIANTS["EfficientNetB3"].name, "B3" in VARIANTS
        ('b3', 'b3', False)
    """

    def __init__(self, rows: Sequence[Variant]) -> None:
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> Variant:
        if name in self._rows:
            return self._rows[name]
        try:
            return find_variant(name)
        except (ValueError, AttributeError, TypeError) as error:
            raise KeyError(f"{name!r}: {error}" if isinstance(error, ValueError) else name) from error

    def __contains__(self, name: object) -> bool:
        return name in self._rows  # only the name itself, since a spelling can also be that of a folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        rows = (f"{r.name:8}{r.width_coefficient:7g}{r.depth_coefficient:7g}{r.resolution:7}" for r in self.values())
        return "\n".join(("network   width  depth pixels", *rows))


VARIANTS: Mapping[str, Variant] = Variants(_ROWS)


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the published networks.

    Args:
        pattern: only the names that match it, or whose builder matches it: "*lite*", "EfficientNetV2*". Capitals do not
            matter.

    Example:
        >>> list_models("lite*")[:3]
        ['lite0', 'lite1', 'lite2']
    """
    wanted = pattern.lower()
    return [row.name for row in _ROWS if fnmatchcase(row.name, wanted) or fnmatchcase(row.builder.lower(), wanted)]


def find_variant(name: str) -> Variant:
    """Find a network by any of its usual spellings: "b0", "EfficientNetB0", "tf_efficientnetv2_s".

    Raises:
        ValueError: the network does not exist.
    """
    key = _spelling(name).removeprefix("tf").removeprefix("efficientnet")
    if key not in _SPELLINGS:
        raise ValueError(f"There is no network {name!r}.{_did_you_mean(key)} Expected one of {', '.join(VARIANTS)}.")
    return _SPELLINGS[key]


def as_variant(network: Variant | str) -> Variant:
    """The row of a network that may be given by name; a row is returned unchanged.

    Raises:
        ValueError: the network does not exist.
    """
    return find_variant(network) if isinstance(network, str) else network


def published_crop(variant: Variant, normalization: Normalization | None, classes: int) -> str | None:
    """The part of a photo that a network was evaluated on: "center", or None for the whole photo.

    Args:
        variant: the network.
        normalization: the normalisation of its weights, which identifies sets of V2-B0 to B3 from ImageNet-21k.
        classes: number of outputs.

    Example:
        >>> published_crop(VARIANTS["b0"], IMAGENET, 1000), published_crop(VARIANTS["v2-s"], V2, 1000)
        ('center', None)
    """
    tuned = variant.fused and normalization is not None and normalization.close_to(V2) and classes != 21_843
    return None if tuned else variant.crop


def _did_you_mean(key: str) -> str:
    known = _SPELLINGS | {f"efficientnet{spelling}": row for spelling, row in _SPELLINGS.items()}
    close = get_close_matches(key, known, n=1, cutoff=0.75)
    return f" Did you mean {known[close[0]].name!r}?" if close else ""


def _spelling(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


_SPELLINGS = {_spelling(row.name): row for row in _ROWS}


def tiny(name: str = "tiny", *, activation: str = "swish", se_ratio: float = 0.25) -> Variant:
    """Return a network for tests: 32 x 32 pixels, all kinds of blocks, under 50,000 parameters."""
    blocks = (
        BlockArgs(1, 3, 1, 1, 8, se_ratio),
        BlockArgs(2, 3, 2, 2, 8, se_ratio),
        BlockArgs(1, 5, 2, 2, 16, se_ratio),
    )
    return Variant(name, 1.0, 1.0, 32, 0.2, blocks, activation, stem_filters=8, head_filters=32)
