"""Computed costs, compared with the published totals and the paper's Table 2."""

import pytest

from keras_effnet.blocks import decode_blocks
from keras_effnet.complexity import complexity, layers, table
from keras_effnet.variants import VARIANTS, Variant, find_variant, list_models, tiny

# name: trainable, total; `keras.applications` has 7 more in its Normalization layer.
PARAMETERS = {
    "b0": (5_288_548, 5_330_564),
    "b1": (7_794_184, 7_856_232),
    "b2": (9_109_994, 9_177_562),
    "b3": (12_233_232, 12_320_528),
    "b4": (19_341_616, 19_466_816),
    "b5": (30_389_784, 30_562_520),
    "b6": (43_040_704, 43_265_136),
    "b7": (66_347_960, 66_658_680),
    "b8": (87_413_142, 87_793_174),
    "l2": (480_309_308, 481_399_996),
    "lite0": (4_652_008, 4_694_024),
    "lite1": (5_416_680, 5_470_344),
    "lite2": (6_092_072, 6_150_168),
    "lite3": (8_197_096, 8_273_768),
    "lite4": (13_006_568, 13_118_936),
    # github.com/google/automl, efficientnetv2/effnetv2_model_test.py.
    "v2-b0": (7_139_704, 7_200_312),
    "v2-b1": (8_141_052, 8_212_124),
    "v2-b2": (10_096_086, 10_178_374),
    "v2-b3": (14_358_406, 14_467_622),
    "v2-s": (21_458_488, 21_612_360),
    "v2-m": (54_139_356, 54_431_388),
    "v2-l": (118_515_272, 119_027_848),
    "v2-xl": (208_119_808, 208_896_832),
}
WITHOUT_TOP = {"b0": 4_049_564, "b7": 64_097_680, "l2": 475_894_996, "lite0": 3_413_024}
WITHOUT_TOP |= {"v2-b0": 5_919_312, "v2-b3": 12_930_622, "v2-s": 20_331_360, "v2-xl": 207_615_832}
# Trainable and total with the 21,843 classes of ImageNet-21k.
WITH_21843_CLASSES = {
    "v2-b0": (33_839_587, 33_900_195),
    "v2-b1": (34_840_935, 34_912_007),
    "v2-b2": (39_463_873, 39_546_161),
    "v2-b3": (46_394_097, 46_503_313),
    "v2-s": (48_158_371, 48_312_243),
    "v2-m": (80_839_239, 81_131_271),
    "v2-l": (145_215_155, 145_727_731),
    "v2-xl": (234_819_691, 235_596_715),
}
# Table 2, in units of 1e9; it does not list L2 and Lite.
PAPER_FLOPS = {"b0": 0.39, "b1": 0.70, "b2": 1.0, "b3": 1.8, "b4": 4.2, "b5": 9.9, "b6": 19, "b7": 37}
# arXiv:2104.00298, Tables 7 and 11; the paper's 8.8 of S is that of an earlier, larger S, so S is the code's 8.4.
PAPER_FLOPS |= {"v2-b0": 0.72, "v2-b1": 1.2, "v2-b2": 1.7, "v2-b3": 3.0}
PAPER_FLOPS |= {"v2-s": 8.4, "v2-m": 24, "v2-l": 56, "v2-xl": 94}
# arXiv:2104.00298, the official table of EfficientNetV2-S: fused blocks, and a width of 1 that needs no rounding.
V2_S = (
    "r2_k3_s1_e1_i24_o24_c1",
    "r4_k3_s2_e4_i24_o48_c1",
    "r4_k3_s2_e4_i48_o64_c1",
    "r6_k3_s2_e4_i64_o128_se0.25",
    "r9_k3_s1_e6_i128_o160_se0.25",
    "r15_k3_s2_e6_i160_o256_se0.25",
)


def test_every_variant_is_listed():
    assert list_models() == list(PARAMETERS)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_match_the_published_numbers(name):
    cost = complexity(VARIANTS[name])
    assert (cost.trainable, cost.parameters) == PARAMETERS[name]


@pytest.mark.parametrize("name", WITHOUT_TOP)
def test_parameters_without_the_classifier_match_the_published_numbers(name):
    assert complexity(VARIANTS[name], include_top=False).parameters == WITHOUT_TOP[name]


@pytest.mark.parametrize("name", PAPER_FLOPS)
def test_multiply_adds_are_within_five_percent_of_the_paper(name):
    assert complexity(VARIANTS[name]).macs / 1e9 == pytest.approx(PAPER_FLOPS[name], rel=0.05)


@pytest.mark.parametrize("name", WITH_21843_CLASSES)
def test_parameters_with_the_classes_of_imagenet_21k_are_the_published_ones(name):
    cost = complexity(VARIANTS[name], classes=21_843)
    assert (cost.trainable, cost.parameters) == WITH_21843_CLASSES[name]


def test_the_cost_of_efficientnet_v2_s_matches_its_published_numbers():
    v2_s = Variant("v2-s", 1.0, 1.0, 384, 0.2, decode_blocks(V2_S), stem_filters=24)
    cost = complexity(v2_s)
    assert (cost.trainable, cost.parameters) == (21_458_488, 21_612_360)
    assert cost.macs / 1e9 == pytest.approx(8.366, abs=0.001)


def test_the_table_of_b0_matches_table_1_of_the_paper():
    rows = table(VARIANTS["b0"])
    assert [row.operator for row in rows[:3]] == ["Conv3x3", "MBConv1, k3x3", "MBConv6, k3x3"]
    assert [row.resolution for row in rows] == [224, 112, 112, 56, 28, 14, 14, 7, 7]
    assert [row.channels for row in rows] == [32, 16, 24, 40, 80, 112, 192, 320, 1280]
    assert [row.layers for row in rows] == [1, 1, 2, 2, 3, 3, 4, 1, 1]


def test_the_rows_of_the_table_add_up_to_the_total():
    cost = complexity(VARIANTS["b4"])
    rows = table(VARIANTS["b4"])
    assert sum(row.parameters for row in rows) == cost.parameters
    assert sum(row.macs for row in rows) == cost.macs


def test_the_cost_of_the_stem_matches_hand_counting():
    stem = next(layers(VARIANTS["b0"]))
    assert stem.kernel == 3 * 3 * 3 * 32
    assert stem.macs == stem.kernel * 112 * 112
    assert stem.activations == 32 * 112 * 112
    assert stem.parameters == stem.kernel + 4 * 32
    # The largest input and output of one layer: the depthwise convolution of block 2a, 96 filters from 112 to 56.
    assert complexity(VARIANTS["b0"]).peak_bytes == 4 * 96 * (112**2 + 56**2)


def test_odd_sizes_are_rounded_up_at_every_stride():
    assert [row.resolution for row in table(VARIANTS["b1"], 75)] == [75, 38, 38, 19, 10, 5, 5, 3, 3]


def test_an_image_that_is_too_small_is_rejected():
    with pytest.raises(ValueError, match="resolution is 31. Expected at least 32 pixels"):
        complexity(VARIANTS["b0"], resolution=31)


@pytest.mark.parametrize("spelling", ["b0", "B0", "EfficientNetB0", "efficientnet-b0", "efficientnet_b0"])
def test_a_variant_is_found_by_its_usual_spellings(spelling):
    assert find_variant(spelling) is VARIANTS["b0"]


@pytest.mark.parametrize(
    "spelling",
    ["v2-s", "v2s", "V2S", "EfficientNetV2S", "efficientnetv2-s", "tf_efficientnetv2_s"],
)
def test_a_variant_of_v2_is_found_by_its_usual_spellings(spelling):
    assert find_variant(spelling) is VARIANTS["v2-s"]


def test_an_unknown_variant_is_rejected_with_a_list_of_variants():
    with pytest.raises(ValueError, match=r"no network 'b9'. Expected one of b0, b1, .*v2-xl"):
        find_variant("b9")


def test_the_tiny_network_has_few_parameters():
    assert complexity(tiny()).parameters < 50_000


@pytest.mark.parametrize("spelling", ["B3", "EfficientNetB3", "efficientnet-b3", "tf_efficientnet_b3"])
def test_the_table_is_read_by_any_spelling(spelling: str) -> None:
    assert VARIANTS[spelling] is VARIANTS["b3"]
    assert VARIANTS.get(spelling) is VARIANTS["b3"]
    assert spelling not in VARIANTS  # a file or a folder may be called so
    with pytest.raises(KeyError, match="Did you mean"):
        VARIANTS["efficientnetb33"]
    assert VARIANTS.get("nothing") is None


def test_rows_and_tables_print_in_short() -> None:
    assert repr(VARIANTS["b3"]) == "Variant('b3', width 1.2, depth 1.4, 300 pixels, 7 rows of blocks)"
    lines = repr(VARIANTS).splitlines()
    assert len(lines) == 1 + len(VARIANTS)
    assert lines[4].split() == ["b3", "1.2", "1.4", "300"]


def test_networks_are_found_by_name_in_any_spelling_and_by_pattern() -> None:
    assert complexity("EfficientNet-B0") == complexity("b0") == complexity(VARIANTS["b0"])
    assert table("lite0") == table(VARIANTS["lite0"])
    assert list_models() == list(VARIANTS)
    assert list_models("*Lite*") == list_models("EfficientNetLite?") == [f"lite{i}" for i in range(5)]
    assert list_models("v2-b*") == list_models("efficientnetv2b*") == [f"v2-b{i}" for i in range(4)]
    assert list_models("resnet*") == []


@pytest.mark.parametrize(
    ("name", "meant"), [("lit0", "lite0"), ("efficentnet-b3", "b3"), ("EfficientNetLite00", "lite0"), ("v2", "")]
)
def test_a_misspelt_network_gets_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"There is no network '{name}'") as error:
        find_variant(name)
    assert (f"Did you mean '{meant}'?" in str(error.value)) == bool(meant)
