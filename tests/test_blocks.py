"""The block tables and block strings, compared with the paper's Table 1 and the original code."""

import re
from dataclasses import FrozenInstanceError, replace

import pytest

from keras_effnet.blocks import B0_BLOCKS, LITE_BLOCKS, BlockArgs, decode_block, decode_blocks, encode_blocks

ORIGINAL = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s22_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
EDGE_TPU = (
    "r1_k3_s11_e4_i24_o24_c1_noskip",
    "r2_k3_s22_e8_i24_o32_c1",
    "r4_k3_s22_e8_i32_o48_c1",
    "r5_k5_s22_e8_i48_o96",
    "r4_k5_s11_e8_i96_o144",
    "r2_k5_s22_e8_i144_o192",
)


def test_b0_blocks_match_table_1_of_the_paper():
    operators = ["1 k3", "6 k3", "6 k5", "6 k3", "6 k5", "6 k5", "6 k3"]
    assert [f"{row.expand_ratio} k{row.kernel_size}" for row in B0_BLOCKS] == operators
    assert [row.filters for row in B0_BLOCKS] == [16, 24, 40, 80, 112, 192, 320]
    assert [row.repeats for row in B0_BLOCKS] == [1, 2, 2, 3, 3, 4, 1]


def test_b0_blocks_match_the_strings_of_the_original_code():
    assert decode_blocks(ORIGINAL) == B0_BLOCKS
    assert encode_blocks(B0_BLOCKS) == ORIGINAL


def test_strings_with_fused_convolutions_and_noskip_round_trip():
    rows = decode_blocks(EDGE_TPU)
    assert (rows[0].conv_type, rows[0].skip, rows[0].se_ratio) == ("fused", False, 0.0)
    assert encode_blocks(rows, stem_filters=24) == EDGE_TPU


def test_one_digit_strides_of_efficientnet_v2_are_parsed():
    assert decode_block("r8_k3_s2_e6_i112_o192_se0.25")[1].strides == 2


def test_lite_blocks_are_the_same_rows_without_squeeze_excite():
    assert [replace(row, se_ratio=0.25) for row in LITE_BLOCKS] == list(B0_BLOCKS)
    assert {row.se_ratio for row in LITE_BLOCKS} == {0.0}


def test_rows_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        B0_BLOCKS[0].filters = 24  # type: ignore[misc]


@pytest.mark.parametrize(
    ("string", "problem"),
    [
        ("r1_k3_s11_e1_i32", r"tokens \['o'\] are missing"),
        ("r1_k3_s12_e1_i32_o16", "strides '12'"),
        ("r1_k3_s11_e1_i32_o16_cc", "the token 'cc' is unknown"),
        ("r1_k3_s11_e1_i32_o16_z9", "the token 'z9' is unknown"),
        ("r1_k3_s11_e1_i32_o16_c2", "index out of range"),
        ("r0_k3_s11_e1_i32_o16", "repeats is 0"),
        ("rx_k3_s11_e1_i32_o16", "the token 'rx' is unknown"),
        ("", "the token '' is unknown"),
    ],
)
def test_an_invalid_string_is_rejected_with_what_was_expected(string, problem):
    with pytest.raises(ValueError, match=f"Block string {string!r}.*{problem}.*Expected tokens r .*Correct the string"):
        decode_block(string)


def test_rows_that_do_not_connect_are_rejected():
    with pytest.raises(ValueError, match=re.escape("has 24 input filters, but the row above outputs 16")):
        decode_blocks([ORIGINAL[0], ORIGINAL[2]])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repeats", 0),
        ("repeats", 1.5),
        ("kernel_size", 4),
        ("strides", 3),
        ("expand_ratio", 0),
        ("filters", -8),
        ("filters", True),
        ("se_ratio", 1.5),
        ("conv_type", "dense"),
    ],
)
def test_a_row_with_a_value_out_of_range_is_rejected(field, value):
    with pytest.raises(ValueError, match=f"BlockArgs.{field} is {re.escape(repr(value))}.*Expected.*Correct this row"):
        BlockArgs(**{"repeats": 1, "kernel_size": 3, "strides": 1, "expand_ratio": 6, "filters": 16, field: value})
