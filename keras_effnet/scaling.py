"""Compound scaling: depth, width and resolution of a block table or any network (arXiv:1905.11946, section 3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NamedTuple

from keras_effnet.blocks import BlockArgs

DIVISOR = 8
ROUND_LIMIT = 0.9


def round_filters(
    filters: int, width_coefficient: float, divisor: int = DIVISOR, *, round_limit: float = ROUND_LIMIT
) -> int:
    """Scale a number of filters and round it to a multiple of `divisor`.

    Args:
        filters: number of filters before scaling.
        width_coefficient: factor for `filters`.
        divisor: the result is a multiple of this.
        round_limit: smallest share of the scaled number that rounding may leave. EfficientNet never rounds down by more
            than 10 %; EfficientNetV2 has no limit, 0.

    Example:
        >>> round_filters(32, 1.4), round_filters(16, 1.2), round_filters(16, 1.2, round_limit=0.0)
        (48, 24, 16)
    """
    scaled = filters * width_coefficient
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * scaled else rounded


def round_repeats(repeats: int, depth_coefficient: float) -> int:
    """Scale a number of repeats, rounding up.

    Example:
        >>> round_repeats(4, 3.1)
        13
    """
    return math.ceil(depth_coefficient * repeats)


def round_resolution(resolution: int, coefficient: float, divisor: int = DIVISOR) -> int:
    """Scale the side of an image and round it to the nearest multiple of `divisor`; 1.0 does not change it.

    Example:
        >>> round_resolution(224, 1.15)
        256
    """
    if coefficient == 1:
        return resolution
    rounded = max(divisor, int(resolution * coefficient + divisor / 2) // divisor * divisor)
    # A coefficient above 1 must not shrink an image whose side is not a multiple of the divisor.
    return max(resolution, rounded) if coefficient > 1 else rounded


def scale(
    blocks: Sequence[BlockArgs],
    *,
    width_coefficient: float = 1.0,
    depth_coefficient: float = 1.0,
    fix_ends: bool = False,
    round_limit: float = ROUND_LIMIT,
) -> tuple[BlockArgs, ...]:
    """Scale every row of a table; `fix_ends` keeps the repeats of the first and the last row (EfficientNet-Lite).

    Raises:
        ValueError: the table is empty, or a coefficient is not positive.

    Example:
        >>> from keras_effnet.blocks import B0_BLOCKS
        >>> [row.repeats for row in scale(B0_BLOCKS, depth_coefficient=3.1)]
        [4, 7, 7, 10, 10, 13, 4]
    """
    if not blocks:
        raise ValueError("The block table is empty. Expected at least one BlockArgs row. Pass for example B0_BLOCKS.")
    for name, value in (("width_coefficient", width_coefficient), ("depth_coefficient", depth_coefficient)):
        if not value > 0:
            raise ValueError(f"{name} is {value!r}. Expected a positive number. 1.0 does not change the table.")
    ends = {0, len(blocks) - 1} if fix_ends else set()
    return tuple(
        replace(
            row,
            filters=round_filters(row.filters, width_coefficient, round_limit=round_limit),
            repeats=row.repeats if i in ends else round_repeats(row.repeats, depth_coefficient),
        )
        for i, row in enumerate(blocks)
    )


def block_name(stage: int, index: int) -> str:
    """Return the name of block `index` (from 0) of stage `stage` (from 1), as in `keras.applications`; aa follows z.

    Example:
        >>> block_name(1, 0), block_name(6, 26)
        ('block1a', 'block6aa')
    """
    letters = chr(ord("a") + index % 26)
    return f"block{stage}{chr(ord('a') + index // 26 - 1) if index >= 26 else ''}{letters}"


def is_depthwise(layer: str) -> bool:
    """Whether a layer, by its name, is the depthwise convolution of a block: "dwconv", or "dwconv2" in EfficientNetV2.

    Example:
        >>> is_depthwise("block1a_dwconv"), is_depthwise("block4a_dwconv2"), is_depthwise("block1a_project_conv")
        (True, True, False)
    """
    return layer.endswith(("_dwconv", "_dwconv2"))


def drop_rates(blocks: Sequence[BlockArgs], drop_connect_rate: float) -> tuple[float, ...]:
    """Return the stochastic-depth rate of each block of a scaled table: `rate * b / N` (arXiv:1603.09382).

    N is the number of blocks after scaling; b counts from 0, so that no rate reaches `drop_connect_rate`.

    Example:
        >>> from keras_effnet.blocks import B0_BLOCKS
        >>> round(drop_rates(B0_BLOCKS, 0.2)[-1], 4)
        0.1875
    """
    total = sum(row.repeats for row in blocks)
    return tuple(drop_connect_rate * b / total for b in range(total))


# --- Equation 3 ---


def flops_ratio(depth: float, width: float, resolution: float) -> float:
    """Return the factor by which FLOPS grow: linear in depth, quadratic in width and resolution.

    Example:
        >>> round(flops_ratio(1.2, 1.2, 1.2), 2)
        2.49
    """
    return depth * width**2 * resolution**2


class Coefficients(NamedTuple):
    """Factors for depth, width and resolution."""

    depth: float
    width: float
    resolution: float


@dataclass(frozen=True)
class CompoundScaling:
    """Equation 3: depth alpha^phi, width beta^phi, resolution gamma^phi, with alpha * beta^2 * gamma^2 near the budget.

    The published networks do not follow this equation exactly; `VARIANTS` contains the coefficients of their authors.

    Args:
        alpha: growth of depth at phi = 1, at least 1.
        beta: growth of width at phi = 1, at least 1.
        gamma: growth of resolution at phi = 1, at least 1.
        budget: growth of FLOPS at phi = 1.
        tolerance: largest absolute difference between alpha * beta^2 * gamma^2 and the budget. The paper's own values
            give 1.92 for a budget of 2.

    Raises:
        ValueError: a coefficient is below 1, or the product is too far from the budget.

    Example:
        >>> CompoundScaling().apply(18, 64, 224, phi=1)
        (22, 70, 256)
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15
    _: KW_ONLY
    budget: float = 2.0
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not 1 <= value < math.inf:
                raise ValueError(
                    f"{name} is {value!r}. Expected a number of at least 1, because compound scaling never shrinks "
                    "an axis. 1.0 does not scale it."
                )
        product = flops_ratio(self.alpha, self.beta, self.gamma)
        # Not "> tolerance": that is false for NaN, which must be rejected.
        if not abs(product - self.budget) <= self.tolerance:
            raise ValueError(
                f"alpha * beta^2 * gamma^2 is {product:.4g} for alpha={self.alpha}, beta={self.beta}, "
                f"gamma={self.gamma}. Expected {self.budget} within {self.tolerance}. Change a coefficient, or pass "
                "another budget or tolerance."
            )

    def coefficients(self, phi: float) -> Coefficients:
        """Return the coefficients of depth, width and resolution at a real-valued phi of at least 0.

        Raises:
            ValueError: phi is negative or not finite.
        """
        if not 0 <= phi < math.inf:
            raise ValueError(
                f"phi is {phi!r}. Expected a finite number of at least 0. 0 is the baseline, and 1 costs about "
                f"{self.budget} times as much. For a smaller network, start from a smaller baseline."
            )
        return Coefficients(self.alpha**phi, self.beta**phi, self.gamma**phi)

    def flops_ratio(self, phi: float) -> float:
        """Return the growth of FLOPS, (alpha * beta^2 * gamma^2)^phi. A real network differs because of rounding."""
        return flops_ratio(*self.coefficients(phi))

    def apply(self, layers: int, filters: int, resolution: int, phi: float) -> tuple[int, int, int]:
        """Scale three numbers. Layers are rounded up, filters to the nearest, resolution as in `round_resolution`."""
        depth, width, ratio = self.coefficients(phi)
        return round_repeats(layers, depth), round(filters * width), round_resolution(resolution, ratio)

    def scale(self, network: Sequence[BlockArgs] | Callable[[float, float, float], Any], phi: float) -> Any:
        """Scale any network: returns the rows for a block table, or the result of `build(depth, width, resolution)`."""
        depth, width, resolution = self.coefficients(phi)
        if callable(network):
            return network(depth, width, resolution)
        return scale(network, width_coefficient=width, depth_coefficient=depth)

    def variant(self, base: Any, phi: float) -> Any:
        """Scale a `Variant`, as in `variant(VARIANTS["b0"], 2.5)`; phi becomes part of its name."""
        depth, width, resolution = self.coefficients(phi)
        return replace(
            base,
            name=f"{base.name}-phi{phi:g}",
            width_coefficient=base.width_coefficient * width,
            depth_coefficient=base.depth_coefficient * depth,
            resolution=round_resolution(base.resolution, resolution),
        )
