"""The public names and their arguments: tests/goldens/signatures.json changes only on purpose."""

import json
from pathlib import Path

import pytest
from goldens.make_signatures import signatures

import keras_effnet
from keras_effnet._keras import LEGACY

GOLDEN = json.loads((Path(__file__).parent / "goldens" / "signatures.json").read_text("utf-8"))


def test_the_public_names_are_the_listed_ones() -> None:
    assert keras_effnet.__all__ == [name for name in GOLDEN if "." not in name]


@pytest.mark.skipif(LEGACY, reason="tf_keras names the arguments of its optimizers otherwise")
def test_every_public_name_takes_the_listed_arguments() -> None:
    assert signatures() == GOLDEN
