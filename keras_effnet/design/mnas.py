"""MnasNet's search space over block tables (arXiv:1807.11626, section 4.1), and the reward of a search.

The reward is that of arXiv:1905.11946, section 4.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from keras_effnet.blocks import BlockArgs
from keras_effnet.complexity import complexity
from keras_effnet.design.rival_tables import MOBILENET_V2
from keras_effnet.errors import Range
from keras_effnet.scaling import round_filters
from keras_effnet.variants import VARIANTS, Variant

# A plain convolution is a fused block without expansion, a separable one a depthwise block without expansion.
OPERATORS: Mapping[str, tuple[str, int]] = MappingProxyType(
    #            conv_type     expand_ratio
    {
        "conv":    ("fused",     1),
        "sepconv": ("depthwise", 1),
        "mbconv3": ("depthwise", 3),
        "mbconv6": ("depthwise", 6),
        # EfficientNetV2's (see `v2_space`)
        "mbconv4": ("depthwise", 4),
        "fused4":  ("fused",     4),
        "fused6":  ("fused",     6),
    }
)  # fmt: skip
MNAS_OPERATORS = ("conv", "sepconv", "mbconv3", "mbconv6")

Point = Mapping[str, Any]


@dataclass(frozen=True)
class StageSpace:
    """The choices for one stage. All blocks of a stage are equal.

    Args:
        strides: strides of the first block; fixed.
        filters: numbers of output filters.
        repeats: numbers of blocks.
        operator: names of `OPERATORS`.
        kernel_size: sides of the kernel.
        se_ratio: squeeze filters as a fraction of the block's input filters; 0 for no squeeze-and-excitation.
        skip: whether a block with equal input and output shapes has a residual connection.
    """

    strides: int
    filters: Sequence[int]
    repeats: Sequence[int]
    operator: Sequence[str] = MNAS_OPERATORS
    kernel_size: Sequence[int] = (3, 5)
    se_ratio: Sequence[float] = (0.0, 0.25)
    skip: Sequence[bool] = (True, False)


SEARCHED = tuple(field.name for field in fields(StageSpace) if field.name != "strides")


@dataclass(frozen=True)
class SearchSpace:
    """All networks that can be made from the choices of each stage.

    Args:
        base: the fixed settings: resolution, stem, head, activation.
        stages: the choices for each row of the block table.
    """

    base: Variant
    stages: tuple[StageSpace, ...]

    @property
    def choices(self) -> dict[str, Sequence[Any]]:
        """All choices by name, such as "stage1_operator"; a point has one value for each name."""
        return {
            f"stage{i}_{name}": getattr(stage, name)
            for i, stage in enumerate(self.stages, start=1)
            for name in SEARCHED
        }

    @property
    def size(self) -> int:
        """Number of points. Some are equal networks, for example if no block of a stage can have a skip."""
        return math.prod(map(len, self.choices.values()))

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """Draw a point at random, with equal probabilities."""
        return {name: rng.choice(values) for name, values in self.choices.items()}

    def decode(self, point: Point) -> Variant:
        """Return the network of a point.

        Raises:
            ValueError: a value is missing or not one of the choices.

        Example:
            >>> MNAS.decode(MNAS.encode(VARIANTS["b0"].blocks)).blocks == VARIANTS["b0"].blocks
            True
        """
        for name, values in self.choices.items():
            if name not in point or point[name] not in values:
                raise ValueError(
                    f"{name} of the point is {point.get(name)!r}. Expected one of {', '.join(map(str, values))}."
                )
        rows = []
        for i, stage in enumerate(self.stages, start=1):
            row = {name: point[f"stage{i}_{name}"] for name in SEARCHED}
            conv_type, expand_ratio = OPERATORS[row.pop("operator")]
            rows.append(BlockArgs(strides=stage.strides, conv_type=conv_type, expand_ratio=expand_ratio, **row))
        return replace(self.base, name="searched", blocks=tuple(rows))

    def encode(self, blocks: Sequence[BlockArgs]) -> dict[str, Any]:
        """Return the point of a block table; the reverse of `decode`.

        Raises:
            ValueError: a row is outside of the space.

        Example:
            >>> MNAS.encode(VARIANTS["b0"].blocks)["stage4_filters"]
            80
        """
        if len(blocks) != len(self.stages):
            raise ValueError(
                f"The table has {len(blocks)} rows. Expected {len(self.stages)}, one per stage of the space. Add or "
                "merge rows."
            )
        point: dict[str, Any] = {}
        for i, (row, stage) in enumerate(zip(blocks, self.stages, strict=True), start=1):
            names = [name for name, kind in OPERATORS.items() if kind == (row.conv_type, row.expand_ratio)]
            values = {"operator": names[0] if names else None}
            values |= {name: getattr(row, name) for name in SEARCHED if name != "operator"}
            outside = [name for name in SEARCHED if values[name] not in getattr(stage, name)]
            if outside or row.strides != stage.strides:
                raise ValueError(
                    f"Row {i} of the table, {row}, is outside of the space because of "
                    f"{', '.join(outside) or 'strides'}. Expected a row of {stage}. Change the row or the space."
                )
            point |= {f"stage{i}_{name}": values[name] for name in SEARCHED}
        return point


def mnas_space(base: Variant = VARIANTS["b0"]) -> SearchSpace:
    """Return MnasNet's space: the strides of MobileNetV2, and filters and repeats close to its own.

    The paper chooses filters from 0.75, 1 and 1.25 times MobileNetV2's. B0 has numbers between those (112 and 192), so
    this space contains all multiples of 8 from the smallest to the largest. Repeats are MobileNetV2's, minus 1 to plus
    1. MnasNet's pooling skip is omitted, because the paper does not define it for different numbers of filters.

    Args:
        base: the fixed settings; B0's resolution, stem and head by default.
    """
    return SearchSpace(
        base,
        tuple(
            StageSpace(
                strides,
                filters=range(round_filters(filters, 0.75), round_filters(filters, 1.25) + 1, 8),
                repeats=range(max(1, repeats - 1), repeats + 2),
            )
            for repeats, _, filters, strides in MOBILENET_V2
        ),
    )


MNAS = mnas_space()


@dataclass(frozen=True)
class Goal:
    """The goal of a search: high accuracy near a target number of multiply-adds.

    Args:
        target_macs: T, the target number of multiply-adds (the paper's "FLOPS").
        tolerance: largest relative difference from T; networks beyond it are infeasible.
        exponent: w, the exponent of the multiply-adds in the reward.
        classes: number of classes; the classifier's multiply-adds are counted.

    Raises:
        ValueError: the target is not positive, or the tolerance is not between 0 and 1.
    """

    target_macs: float = 400e6
    tolerance: float = 0.25
    exponent: float = -0.07
    classes: int = 1000

    def __post_init__(self) -> None:
        Range(above=0).check("target_macs", self.target_macs)
        Range(above=0, below=1).check("tolerance", self.tolerance)

    def macs(self, network: Variant) -> int:
        """Compute the multiply-adds of a network."""
        return complexity(network, classes=self.classes).macs

    def feasible(self, macs: float) -> bool:
        """Whether a number of multiply-adds is within the tolerance."""
        return abs(macs / self.target_macs - 1) <= self.tolerance

    def reward(self, score: float, macs: float) -> float:
        """Compute the reward, ACC(m) * (FLOPS(m) / T)^w.

        Example:
            >>> round(Goal(400e6).reward(0.75, 800e6), 4)
            0.7145
        """
        return score * (macs / self.target_macs) ** self.exponent
