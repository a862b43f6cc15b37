"""The public names and their arguments, as recorded in tests/goldens/signatures.json."""

import json
from pathlib import Path

import pytest
from goldens.make_signatures import signatures

import keras_effnet
from keras_effnet._keras import LEGACY

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "signatures.json").read_text("utf-8"))


def test_public_names_match_the_golden_list() -> None:
    assert keras_effnet.__all__ == [name for name in GOLDEN if "." not in name]


@pytest.mark.skipif(LEGACY, reason="the optimizers of tf_keras have other argument names")
def test_public_signatures_match_the_golden_list() -> None:
    assert signatures() == GOLDEN
