"""Scaling of block tables, compared with the paper and with arithmetic."""

import math

import pytest

from keras_effnet.blocks import B0_BLOCKS
from keras_effnet.scaling import block_name, drop_rates, round_filters, round_repeats, scale
from keras_effnet.variants import VARIANTS

V2_REPEATS = {f"v2-b{i}": [1, 2, 2, 3, 5, 8] for i in range(4)} | {
    "v2-s": [2, 4, 4, 6, 9, 15],
    "v2-m": [3, 5, 5, 7, 14, 18, 5],
    "v2-l": [4, 7, 7, 10, 19, 25, 7],
    "v2-xl": [4, 8, 8, 16, 24, 32, 8],
}


def test_b7_repeats_match_the_paper():
    # Table 1 times 3.1, rounded up.
    assert [row.repeats for row in VARIANTS["b7"].stages] == [4, 7, 7, 10, 10, 13, 4]


def test_filters_are_rounded_to_the_nearest_multiple_of_eight():
    assert [round_filters(f, 1.1) for f in (16, 24, 40, 80, 112, 192, 320)] == [16, 24, 48, 88, 120, 208, 352]


def test_filters_are_never_rounded_down_by_more_than_ten_percent():
    # 24 * 1.15 = 27.6 would become 24, 13 % less.
    assert round_filters(24, 1.15) == 32
    assert all(round_filters(f, w / 10) >= 0.9 * f * w / 10 for f in range(8, 400, 4) for w in range(5, 45))


def test_v2_rounds_filters_without_a_limit():
    # 16 * 1.2 = 19.2 becomes 16, which is 17 % less: every published file of V2-B3 has 16 filters there.
    assert round_filters(16, 1.2) == 24
    assert [row.filters for row in VARIANTS["v2-b3"].stages] == [16, 40, 56, 112, 136, 232]
    assert (VARIANTS["v2-b3"].stem, VARIANTS["v2-b3"].head) == (40, 1536)


def test_repeats_are_rounded_up():
    assert [round_repeats(r, 1.1) for r in (1, 2, 3, 4)] == [2, 3, 4, 5]


def test_lite_does_not_scale_the_first_and_the_last_stage():
    assert [row.repeats for row in VARIANTS["lite4"].stages] == [1, 4, 4, 6, 6, 8, 1]
    assert (VARIANTS["lite4"].stem, VARIANTS["lite4"].head) == (32, 1280)


@pytest.mark.parametrize("name", VARIANTS)
def test_stochastic_depth_rates_match_the_formula(name):
    variant = VARIANTS[name]
    depth = V2_REPEATS.get(name, [1, 2, 2, 3, 3, 4, 1])
    scaled = [math.ceil(variant.depth_coefficient * r) for r in depth]
    if name.startswith("lite"):
        scaled[0], scaled[-1] = 1, 1
    n = sum(scaled)
    assert drop_rates(variant.stages, 0.2) == tuple(0.2 * b / n for b in range(n))
    assert max(drop_rates(variant.stages, 0.2)) < 0.2


def test_block_names_continue_with_aa_after_z():
    names = [block_name(6, i) for i in (0, 25, 26, 51, 52)]
    assert names == ["block6a", "block6z", "block6aa", "block6az", "block6ba"]


@pytest.mark.parametrize("arguments", [{"width_coefficient": 0}, {"depth_coefficient": -1}])
def test_a_coefficient_that_is_not_positive_is_rejected(arguments):
    with pytest.raises(ValueError, match="Expected a positive number"):
        scale(B0_BLOCKS, **arguments)


def test_an_empty_table_is_rejected():
    with pytest.raises(ValueError, match="block table is empty"):
        scale(())
