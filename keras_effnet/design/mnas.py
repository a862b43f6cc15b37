"""The search space of MnasNet over block tables (arXiv:1807.11626, section 4.1), and what the search maximises.

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

# A plain convolution is a fused block that expands nothing, a separable one a depthwise block that expands nothing.
OPERATORS: Mapping[str, tuple[str, int]] = MappingProxyType(
    #            conv_type     expand_ratio
    {
        "conv":    ("fused",     1),
        "sepconv": ("depthwise", 1),
        "mbconv3": ("depthwise", 3),
        "mbconv6": ("depthwise", 6),
    }
)  # fmt: skip

Point = Mapping[str, Any]


@dataclass(frozen=True)
class StageSpace:
    """What one stage may be; every block of a stage is the same.

    Args:
        strides: of the first block; not searched.
        filters: output filters.
        repeats: how many blocks.
        operator: names of `OPERATORS`.
        kernel_size: sides of the kernel.
        se_ratio: squeeze filters as a share of the block's input filters; 0 for no squeeze-excite.
        skip: whether a block that keeps its shape adds its input to its output.
    """

    strides: int
    filters: Sequence[int]
    repeats: Sequence[int]
    operator: Sequence[str] = tuple(OPERATORS)
    kernel_size: Sequence[int] = (3, 5)
    se_ratio: Sequence[float] = (0.0, 0.25)
    skip: Sequence[bool] = (True, False)


SEARCHED = tuple(field.name for field in fields(StageSpace) if field.name != "strides")


@dataclass(frozen=True)
class SearchSpace:
    """All networks that the stages allow; the rows of any of them connect.

    Args:
        base: what is not searched: resolution, stem, head, activation.
        stages: what each row of the block table may be.
    """

    base: Variant
    stages: tuple[StageSpace, ...]

    @property
    def choices(self) -> dict[str, Sequence[Any]]:
        """What there is to choose from, "stage1_operator" first; a point has one value for each."""
        return {
            f"stage{i}_{name}": getattr(stage, name)
            for i, stage in enumerate(self.stages, start=1)
            for name in SEARCHED
        }

    @property
    def size(self) -> int:
        """How many points there are; some are the same network, as where no block of a stage can skip."""
        return math.prod(map(len, self.choices.values()))

    def sample(self, rng: random.Random) -> dict[str, Any]:
        """A point drawn at random, every one equally likely."""
        return {name: rng.choice(values) for name, values in self.choices.items()}

    def decode(self, point: Point) -> Variant:
        """The network of a point.

        Raises:
            ValueError: a value that is missing, or not one to choose from.

        Example:
            >>> MNAS.decode(MNAS.encode(VARIANTS["b0"].blocks)).blocks == VARIANTS["b0"].blocks
            True
        """
        for name, values in self.choices.items():
            if name not in point or point[name] not in values:
                raise ValueError(
                    f"{name} of the point is {point.get(name)!r}. Expected one of {', '.join(map(str, values))}. "
                    "Choose one of these."
                )
        rows = []
        for i, stage in enumerate(self.stages, start=1):
            row = {name: point[f"stage{i}_{name}"] for name in SEARCHED}
            conv_type, expand_ratio = OPERATORS[row.pop("operator")]
            rows.append(BlockArgs(strides=stage.strides, conv_type=conv_type, expand_ratio=expand_ratio, **row))
        return replace(self.base, name="searched", blocks=tuple(rows))

    def encode(self, blocks: Sequence[BlockArgs]) -> dict[str, Any]:
        """The point of a block table.

        Raises:
            ValueError: a table outside of the space; names the row.

        Example:
            >>> MNAS.encode(VARIANTS["b0"].blocks)["stage4_filters"]
            80
        """
        if len(blocks) != len(self.stages):
            raise ValueError(
                f"The table has {len(blocks)} rows. Expected {len(self.stages)}, as the space has stages. Add or "
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
                    f"Row {i} of the table, {row}, is outside of the space by its {', '.join(outside) or 'strides'}. "
                    f"Expected a row of {stage}. Change the row or the space."
                )
            point |= {f"stage{i}_{name}": values[name] for name in SEARCHED}
        return point


def mnas_space(base: Variant = VARIANTS["b0"]) -> SearchSpace:
    """MnasNet's space around MobileNetV2: its strides, about its filters and repeats.

    The paper draws filters from 0.75, 1 and 1.25 times MobileNetV2's. B0 (112 and 192 filters) lies between those, so
    here every multiple of 8 from the least to the largest of them can be drawn. Repeats are MobileNetV2's, one less or
    one more. Its skip by pooling is left out: the paper does not say how a pooled input of fewer filters is added.

    Args:
        base: what is not searched; B0's resolution, stem and head by default.
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
    """What a search wants: accuracy at about so many multiply-adds.

    Args:
        target_macs: T, the multiply-adds of the network that is wanted (the paper's "FLOPS").
        tolerance: how far the multiply-adds may lie from T, as a share; beyond it a network is infeasible.
        exponent: w, how the reward falls with the multiply-adds.
        classes: outputs of the classifier, which count.

    Raises:
        ValueError: a target that is not positive, or a tolerance that is not between 0 and 1.
    """

    target_macs: float = 400e6
    tolerance: float = 0.25
    exponent: float = -0.07
    classes: int = 1000

    def __post_init__(self) -> None:
        Range(above=0).check("target_macs", self.target_macs)
        Range(above=0, below=1).check("tolerance", self.tolerance)

    def macs(self, network: Variant) -> int:
        """What a network costs, by arithmetic."""
        return complexity(network, classes=self.classes).macs

    def feasible(self, macs: float) -> bool:
        """Whether the multiply-adds are within the tolerance."""
        return abs(macs / self.target_macs - 1) <= self.tolerance

    def reward(self, score: float, macs: float) -> float:
        """ACC(m) * (FLOPS(m) / T)^w.

        Example:
            >>> round(Goal(400e6).reward(0.75, 800e6), 4)
            0.7145
        """
        return score * (macs / self.target_macs) ** self.exponent
