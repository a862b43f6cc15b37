"""Fused blocks (arXiv:2104.00298), compared with those of keras.applications."""

import importlib

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.blocks import BlockArgs, decode_blocks
from keras_effnet.complexity import complexity
from keras_effnet.design.budget import model_complexity
from keras_effnet.layers import Conventions, mbconv
from keras_effnet.models import create
from keras_effnet.variants import Variant

CASES = [
    #         repeats  kernel_size  strides  expand_ratio  filters  se_ratio
    BlockArgs(1,       3,           1,       1,            16,      0.0,     "fused"),
    BlockArgs(1,       5,           2,       1,            24,      0.25,    "fused"),
    BlockArgs(1,       3,           2,       4,            24,      0.0,     "fused"),
    BlockArgs(1,       5,           1,       4,            16,      0.25,    "fused"),
]  # fmt: skip


@pytest.mark.builders
@pytest.mark.parametrize("row", CASES, ids=lambda row: f"e{row.expand_ratio}-s{row.strides}-se{row.se_ratio}")
def test_a_fused_block_matches_keras_applications(row, randomise, arrays, run):
    peers = importlib.import_module(f"{keras.__name__}.src.applications.efficientnet_v2")
    image = keras.Input((9, 9, 16))
    x = mbconv(image, row, strides=row.strides, drop_rate=0.0, conventions=Conventions(), name="block")
    ours = keras.Model(image, x)
    sizes = {"kernel_size": row.kernel_size, "strides": row.strides, "se_ratio": row.se_ratio}
    block = peers.FusedMBConvBlock(16, row.filters, row.expand_ratio, survival_probability=0.0, name="block_", **sizes)
    theirs = keras.Model(image, block(image))
    randomise(ours)
    for layer in theirs.layers:
        if layer.weights:
            layer.set_weights(ours.get_layer(layer.name).get_weights())
    assert set(arrays(ours)) == set(arrays(theirs))
    pixels = np.random.default_rng(1).normal(size=(2, 9, 9, 16)).astype("float32")
    np.testing.assert_allclose(run(ours, pixels), run(theirs, pixels), atol=1e-5)


@pytest.mark.builders
def test_the_cost_of_a_network_with_fused_blocks_matches_its_table():
    table = ["r2_k5_s11_e1_i8_o8_c1_se0.25", "r2_k3_s22_e4_i8_o16_c1", "r1_k3_s22_e3_i16_o24_c1_se0.25_noskip"]
    fused = Variant("fused", 1.0, 1.0, 32, 0.2, decode_blocks(table), stem_filters=8, head_filters=32)
    ours, counted = complexity(fused), model_complexity(create(fused))
    assert (counted.parameters, counted.trainable, counted.macs) == (ours.parameters, ours.trainable, ours.macs)
