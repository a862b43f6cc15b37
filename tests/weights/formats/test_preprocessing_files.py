"""Normalisation of PyTorch libraries' files: configurations next to them, metadata, and the names of published sets."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.introspection import normalization_of
from keras_effnet.models import create
from keras_effnet.normalization import IMAGENET, MINUS_ONE_TO_ONE, Normalization
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights.formats.preprocessing_files import stored_normalization
from keras_effnet.weights.loading import open_weights
from keras_effnet.weights.saving import save_weights

INCEPTION = {"mean": [0.5] * 3, "std": [0.5] * 3}
HUB = {"architecture": "tf_efficientnet_b0", "num_classes": 1000}
BIN = "pytorch_model.bin"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf_efficientnet_b0.ap_in1k.pth", MINUS_ONE_TO_ONE),
        ("tf_efficientnet_b8_ap-00e169fa.pth", MINUS_ONE_TO_ONE),
        ("efficientnet_b0.ra4_e3600_r224_in1k.bin", MINUS_ONE_TO_ONE),
        ("efficientnet_lite0.ra_in1k.pth", IMAGENET),
        ("efficientnet_lite0_ra-37913777.pth", IMAGENET),
        ("tf_efficientnet_lite0.in1k.pth", MINUS_ONE_TO_ONE),
        ("tf_efficientnet_b0.ns_jft_in1k.pth", IMAGENET),
        ("tf_efficientnet_b0_aa-827b6e33.pth", IMAGENET),
        ("efficientnet_b1-533bc792.pth", IMAGENET),
        ("tf_efficientnetv2_s.in21k.pth", MINUS_ONE_TO_ONE),
        ("tf_efficientnetv2_b3.in21k_ft_in1k.pth", MINUS_ONE_TO_ONE),
        ("tf_efficientnetv2_b3.in1k.pth", IMAGENET),
        ("efficientnetv2_rw_s.ra2_in1k.pth", IMAGENET),
        ("tf_efficientnet_b0.pth", None),
        ("efficientnet_b0_apples.pth", None),
        ("best.pth", None),
    ],
)
def test_names_of_timm_sets_determine_the_normalisation(
    name: str, expected: Normalization | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(b"PK")
    assert stored_normalization(tmp_path / name, "timm", VARIANTS["b0"]) == expected


@pytest.mark.parametrize("config", [HUB | {"pretrained_cfg": {"tag": "mine", **INCEPTION}}, HUB | INCEPTION])
def test_the_config_of_a_timm_file_decides_against_its_name(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tf_efficientnet_b0.ns_jft_in1k.pth"
    path.write_bytes(b"PK")
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = stored_normalization(path, "timm", VARIANTS["b0"])
    assert found is not None
    assert found.close_to(MINUS_ONE_TO_ONE)


def test_an_impossible_config_is_reported(tmp_path: Path) -> None:
    (tmp_path / BIN).write_bytes(b"PK")
    for mean, std in (([0.5] * 3, [0.0] * 3), (["a"], [1]), ([0.5], [0.5] * 3)):
        (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": mean, "std": std}}))
        with pytest.raises(WeightsError, match=r"config\.json: .* Correct the file, or remove it"):
            stored_normalization(tmp_path / BIN, "timm", VARIANTS["b0"])


def test_transformers_steps_are_combined(tmp_path: Path) -> None:
    pixels = np.array([0.0, 100.0, 255.0])
    (tmp_path / BIN).write_bytes(b"PK")
    # The published configuration: the standard deviation is divided by twice.
    hub = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.47853944, 0.4732864, 0.47434163],
        "include_top": True,
        "rescale_factor": 1 / 255,
    }
    cases = [
        (hub, (pixels / 255 - 0.485) / 0.47853944 / 0.47853944),
        (hub | {"include_top": False}, (pixels / 255 - 0.485) / 0.47853944),
        (
            {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "include_top": False},
            pixels / 127.5 - 1,
        ),
        ({"do_rescale": False, "image_mean": [127.0] * 3, "image_std": [16.0] * 3}, (pixels - 127) / 256),
        ({"do_normalize": True}, (pixels / 255 - 0.5) / 0.25),
    ]
    for config, expected in cases:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
        found = stored_normalization(tmp_path / BIN, "transformers", VARIANTS["b0"])
        assert found is not None
        assert pixels * found.scale[0] + found.offset[0] == pytest.approx(expected, abs=1e-6)


def test_an_assumed_normalisation_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_weights(create(replace(tiny(), normalization=MINUS_ONE_TO_ONE), classes=4), tmp_path / "mine.pth", "timm")
    assert open_weights(tiny(), tmp_path / "mine.pth", framework="tensorflow").normalization == IMAGENET
    assert "Assumed mean 123.675, 116.28, 103.53 and standard deviation 58.395" in caplog.text
    caplog.clear()
    (tmp_path / "config.json").write_text(json.dumps(HUB | {"pretrained_cfg": INCEPTION}))
    found = open_weights(tiny(), tmp_path / "mine.pth")
    assert found.normalization == MINUS_ONE_TO_ONE
    assert not caplog.records


def test_saved_safetensors_keep_their_normalisation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_weights(
        create(replace(tiny(), normalization=MINUS_ONE_TO_ONE), classes=4), tmp_path / "mine.safetensors", "timm"
    )
    model = create(tiny(), classes=4, weights=tmp_path / "mine.safetensors")
    found = normalization_of(model)
    assert found is not None
    assert found.close_to(MINUS_ONE_TO_ONE)
    assert not caplog.records
