"""The block tables: Table 1 of EfficientNet (arXiv:1905.11946), V2 (2104.00298) and Lite, one row per stage."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from keras_effnet.errors import COUNT


@dataclass(frozen=True)
class BlockArgs:
    """One stage of MBConv blocks (arXiv:1905.11946, Table 1).

    Args:
        repeats: number of blocks in the stage; only the first one has strides and changes the number of filters.
        kernel_size: side of the depthwise kernel, in pixels.
        strides: strides of the first block, 1 or 2.
        expand_ratio: width inside the block, as a multiple of its input filters; 1 has no expansion layer.
        filters: output filters of each block.
        se_ratio: squeeze filters as a fraction of the block's input filters; 0 has no squeeze-and-excitation.
        conv_type: "depthwise" (expand, depthwise, project) or "fused" (EfficientNetV2, arXiv:2104.00298: one full
            convolution replaces expand and depthwise).
        skip: whether a block with equal input and output shapes has a residual connection.

    Raises:
        ValueError: a value is out of range.
    """

    repeats: int
    kernel_size: int
    strides: int
    expand_ratio: int
    filters: int
    se_ratio: float = 0.25
    conv_type: str = "depthwise"
    skip: bool = True

    def __post_init__(self) -> None:
        for field in ("repeats", "kernel_size", "expand_ratio", "filters"):
            _require(getattr(self, field) in COUNT, self, field, "a whole number of at least 1")
        _require(self.kernel_size % 2 == 1, self, "kernel_size", "an odd number")
        _require(self.strides in (1, 2), self, "strides", "1 or 2")
        _require(0 <= self.se_ratio <= 1, self, "se_ratio", "between 0 (no squeeze-and-excitation) and 1")
        _require(self.conv_type in CONV_TYPES, self, "conv_type", " or ".join(map(repr, CONV_TYPES)))


def _require(valid: bool, row: BlockArgs, field: str, expected: str) -> None:
    if not valid:
        raise ValueError(
            f"BlockArgs.{field} is {getattr(row, field)!r} in {row}. Expected {expected}. Correct this row."
        )


CONV_TYPES = ("depthwise", "fused")

# Table 1, stages 2 to 8. Stage 1 is the stem (Conv3x3, 32 filters), stage 9 the head (Conv1x1, 1280 filters).
B0_BLOCKS = (
    #         repeats  kernel_size  strides  expand_ratio  filters
    BlockArgs(1,       3,           1,       1,            16),
    BlockArgs(2,       3,           2,       6,            24),
    BlockArgs(2,       5,           2,       6,            40),
    BlockArgs(3,       3,           2,       6,            80),
    BlockArgs(3,       5,           1,       6,            112),
    BlockArgs(4,       5,           2,       6,            192),
    BlockArgs(1,       3,           1,       6,            320),
)  # fmt: skip

# EfficientNet-Lite has the same rows without squeeze-and-excitation, which integer hardware runs slowly.
LITE_BLOCKS = tuple(replace(row, se_ratio=0.0) for row in B0_BLOCKS)


def _fused(repeats: int, kernel_size: int, strides: int, expand_ratio: int, filters: int) -> BlockArgs:
    return BlockArgs(repeats, kernel_size, strides, expand_ratio, filters, se_ratio=0.0, conv_type="fused")


# EfficientNetV2 (arXiv:2104.00298, Table 4; M, L, XL and the base of B0-B3 from its code, effnetv2_configs.py). The
# paper's first version ended S with 272 filters and a head of 1792; its third version, the code and all weights do not.
V2_BASE_BLOCKS = (
    #         repeats  kernel_size  strides  expand_ratio  filters
    _fused(   1,       3,           1,       1,            16),
    _fused(   2,       3,           2,       4,            32),
    _fused(   2,       3,           2,       4,            48),
    BlockArgs(3,       3,           2,       4,            96),
    BlockArgs(5,       3,           1,       6,            112),
    BlockArgs(8,       3,           2,       6,            192),
)  # fmt: skip
V2_S_BLOCKS = (
    _fused(   2,       3,           1,       1,            24),
    _fused(   4,       3,           2,       4,            48),
    _fused(   4,       3,           2,       4,            64),
    BlockArgs(6,       3,           2,       4,            128),
    BlockArgs(9,       3,           1,       6,            160),
    BlockArgs(15,      3,           2,       6,            256),
)  # fmt: skip
V2_M_BLOCKS = (
    _fused(   3,       3,           1,       1,            24),
    _fused(   5,       3,           2,       4,            48),
    _fused(   5,       3,           2,       4,            80),
    BlockArgs(7,       3,           2,       4,            160),
    BlockArgs(14,      3,           1,       6,            176),
    BlockArgs(18,      3,           2,       6,            304),
    BlockArgs(5,       3,           1,       6,            512),
)  # fmt: skip
V2_L_BLOCKS = (
    _fused(   4,       3,           1,       1,            32),
    _fused(   7,       3,           2,       4,            64),
    _fused(   7,       3,           2,       4,            96),
    BlockArgs(10,      3,           2,       4,            192),
    BlockArgs(19,      3,           1,       6,            224),
    BlockArgs(25,      3,           2,       6,            384),
    BlockArgs(7,       3,           1,       6,            640),
)  # fmt: skip
V2_XL_BLOCKS = (
    _fused(   4,       3,           1,       1,            32),
    _fused(   8,       3,           2,       4,            64),
    _fused(   8,       3,           2,       4,            96),
    BlockArgs(16,      3,           2,       4,            192),
    BlockArgs(24,      3,           1,       6,            256),
    BlockArgs(32,      3,           2,       6,            512),
    BlockArgs(8,       3,           1,       6,            640),
)  # fmt: skip


# --- the strings of the original code: r1_k3_s11_e1_i32_o16_se0.25 ---

_TOKEN = re.compile(r"(noskip|se|[rkseioc])([\d.]*)")


def decode_block(string: str) -> tuple[int, BlockArgs]:
    """Parse one block string. Returns its input filters (the `i` token) and its row.

    Raises:
        ValueError: a token is unknown, missing or without a value.

    Example:
        >>> decode_block("r2_k5_s22_e6_i24_o40_se0.25")[1].filters
        40
    """
    tokens: dict[str, str] = {}
    for part in string.split("_"):
        match = _TOKEN.fullmatch(part)
        if match is None or (match[1] != "noskip" and not match[2]):
            raise ValueError(_bad_block(string, f"the token {part!r} is unknown"))
        tokens[match[1]] = match[2]
    missing = [token for token in "rkseio" if token not in tokens]
    if missing:
        raise ValueError(_bad_block(string, f"the tokens {missing} are missing"))
    try:
        return int(tokens["i"]), BlockArgs(
            repeats=int(tokens["r"]),
            kernel_size=int(tokens["k"]),
            strides=_decode_strides(tokens["s"]),
            expand_ratio=int(tokens["e"]),
            filters=int(tokens["o"]),
            se_ratio=float(tokens.get("se", 0)),
            conv_type=CONV_TYPES[int(tokens.get("c", 0))],
            skip="noskip" not in tokens,
        )
    except (ValueError, IndexError) as error:
        raise ValueError(_bad_block(string, str(error))) from error


def _decode_strides(digits: str) -> int:
    # EfficientNet gives the strides of both directions (s22), EfficientNetV2 of one (s2).
    if len(set(digits)) != 1 or len(digits) > 2:
        raise ValueError(f"strides {digits!r} are not one digit, or the same digit twice")
    return int(digits[0])


def _bad_block(string: str, problem: str) -> str:
    return (
        f"Block string {string!r}: {problem}. Expected tokens r (repeats), k (kernel), s (strides), e (expand ratio), "
        "i and o (input and output filters), optionally se (squeeze ratio), c0 or c1 (depthwise or fused) and "
        "noskip, joined by '_', as in 'r1_k3_s11_e1_i32_o16_se0.25'. Correct the string."
    )


def encode_block(row: BlockArgs, input_filters: int) -> str:
    """Write one row as a block string; the reverse of `decode_block`."""
    tokens = [
        f"r{row.repeats}_k{row.kernel_size}_s{row.strides}{row.strides}_e{row.expand_ratio}",
        f"i{input_filters}_o{row.filters}",
    ]
    if row.conv_type == "fused":
        tokens.append("c1")
    if row.se_ratio:
        tokens.append(f"se{row.se_ratio:g}")
    if not row.skip:
        tokens.append("noskip")
    return "_".join(tokens)


def decode_blocks(strings: Iterable[str]) -> tuple[BlockArgs, ...]:
    """Parse a table of block strings, and check that the input filters of each row are the output of the row above.

    Raises:
        ValueError: a string is invalid, or two rows do not connect.
    """
    rows: list[BlockArgs] = []
    for string in strings:
        input_filters, row = decode_block(string)
        if rows and input_filters != rows[-1].filters:
            raise ValueError(
                f"Block string {string!r} has {input_filters} input filters, but the row above outputs "
                f"{rows[-1].filters}. Expected i{rows[-1].filters}. Correct one of the two rows."
            )
        rows.append(row)
    return tuple(rows)


def encode_blocks(blocks: Sequence[BlockArgs], stem_filters: int = 32) -> tuple[str, ...]:
    """Write a table as block strings; the reverse of `decode_blocks`.

    Example:
        >>> encode_blocks(B0_BLOCKS)[0]
        'r1_k3_s11_e1_i32_o16_se0.25'
    """
    inputs = [stem_filters, *(row.filters for row in blocks)]
    return tuple(encode_block(row, filters) for row, filters in zip(blocks, inputs, strict=False))
