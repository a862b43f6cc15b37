"""PyTorch files without PyTorch: the published Lite packages, and two that PyTorch wrote (make_torch_files.py)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.torch_files import read_torch
from keras_effnet.weights.registry import WEIGHTS

LAYOUTS = ("checkpoint.pth", "checkpoint_legacy.pth")


def package_file(variant: str) -> Path:
    module, file = WEIGHTS[variant, "imagenet"].package
    spec = importlib.util.find_spec(module)
    if spec is None:
        pytest.skip(f"the package {module} is not installed")
    return Path(spec.origin).parent / file


@pytest.fixture(params=LAYOUTS)
def path(request):
    return Path(__file__).with_name(request.param)


# Tensors and numbers as published; num_batches_tracked counts as a tensor, but not as a parameter.
@pytest.mark.parametrize(
    ("variant", "tensors", "parameters"),
    [("lite0", 296, 4_694_024), ("lite1", 386, 5_470_344), ("lite2", 386, 6_150_168)],
)
def test_the_lite_packages_have_the_published_tensors(variant, tensors, parameters):
    state = read_torch(package_file(variant))
    assert len(state) == tensors
    floats = [array for array in state.values() if array.dtype == np.float32]
    assert sum(array.size for array in floats) == parameters
    assert all(np.isfinite(array).all() for array in floats)
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)


def test_every_type_and_every_stride_is_read_right(path):
    state = read_torch(path)
    shared = np.arange(40.0, dtype=np.float32)
    expected = {
        "conv_stem.weight": np.arange(216.0, dtype=np.float32).reshape(3, 3, 3, 8).transpose(3, 2, 0, 1),
        "bn1.weight": np.arange(8, dtype=np.float32) / 4,
        "bn1.bias": np.arange(8, dtype=np.float32) / 4,
        "bn1.running_mean": shared[3:11],
        "bn1.running_var": shared[12:28:2].astype(np.float64),
        "bn1.num_batches_tracked": np.array(7),
        "classifier.weight": shared.reshape(8, 5).T,
        "classifier.bias": np.zeros(5, np.float32),
    }
    assert list(state) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, strict=True)


def test_a_path_may_be_a_string(path):
    assert read_torch(str(path)).keys() == read_torch(path).keys()


def test_a_file_cut_off_anywhere_is_refused(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(data), 37):
        cut.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth: "):
            read_torch(cut)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.pth: The file cannot be read \(FileNotFoundError"):
        read_torch(tmp_path / "missing.pth")


def test_an_altered_zip_fails_its_checksum(tmp_path):
    data = bytearray(Path(__file__).with_name("checkpoint.pth").read_bytes())
    at = data.index(np.arange(4, dtype="<f4").tobytes())
    data[at + 5] ^= 1
    altered = tmp_path / "altered.pth"
    altered.write_bytes(data)
    with pytest.raises(WeightsError, match=r"CRC"):
        read_torch(altered)
