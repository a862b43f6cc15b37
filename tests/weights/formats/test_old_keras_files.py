"""Files that old versions of Keras wrote; the lane old_files of .ci/full makes them."""

import os
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.variants import VARIANTS
from keras_effnet.weights.formats.checkpoints import read_checkpoint

# One folder for each version, written by write_keras_files.py.
FOLDER = os.environ.get("KERAS_EFFNET_OLD_FILES", "")
FILES = sorted(
    {
        path.with_name(path.name.split(".data-")[0].removesuffix(".index"))
        for path in (Path(FOLDER).glob("*/*") if FOLDER else ())
        if path.name not in ("expected.npz", "checkpoint")
    }
)


@pytest.mark.skipif(not FILES, reason="KERAS_EFFNET_OLD_FILES names no folder of files of old Keras versions")
@pytest.mark.parametrize("path", FILES or [None], ids=lambda path: path and f"{path.parent.name}-{path.name}")
def test_file_of_an_old_keras_gives_its_arrays(path):
    expected = np.load(path.with_name("expected.npz"))
    state = read_checkpoint(path, VARIANTS["b0"]).state
    assert sorted(state) == sorted(expected)
    for name, array in state.items():
        np.testing.assert_array_equal(array, expected[name])
