"""The public names and their arguments, as recorded in tests/goldens/signatures.json."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import keras_effnet
from keras_effnet._keras import LEGACY

GOLDENS = Path(__file__).parent / "goldens"
# By its path: `weights/` has a module called goldens, too.
_SPEC = spec_from_file_location("make_signatures", GOLDENS / "make_signatures.py")
_MODULE = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
signatures = _MODULE.signatures
GOLDEN = json.loads((GOLDENS / "signatures.json").read_text("utf-8"))


def test_public_names_match_the_golden_list() -> None:
    assert keras_effnet.__all__ == [name for name in GOLDEN if "." not in name]


@pytest.mark.skipif(LEGACY, reason="the optimizers of tf_keras have other argument names")
def test_public_signatures_match_the_golden_list() -> None:
    assert signatures() == GOLDEN
