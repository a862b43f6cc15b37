"""PyTorch files without PyTorch: the published Lite packages, and files written by make_torch_files.py."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
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


# Published numbers of tensors and parameters; num_batches_tracked is a tensor, but not a parameter.
@pytest.mark.parametrize(
    ("variant", "tensors", "parameters"),
    [("lite0", 296, 4_694_024), ("lite1", 386, 5_470_344), ("lite2", 386, 6_150_168)],
)
def test_lite_packages_have_the_published_tensors(variant, tensors, parameters):
    state = read_torch(package_file(variant))
    assert len(state) == tensors
    floats = [array for array in state.values() if array.dtype == np.float32]
    assert sum(array.size for array in floats) == parameters
    assert all(np.isfinite(array).all() for array in floats)
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)


def test_every_type_and_stride_is_read(path):
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


@pytest.mark.parametrize(
    ("file", "prefix"), [("module.pth", "net."), ("module_legacy.pth", "net."), ("torchscript.pt", "")]
)
def test_tensors_of_a_saved_module_are_read(file, prefix):
    state = read_torch(Path(__file__).with_name(file))
    expected = {
        "conv_stem.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
        "bn1.weight": np.float32([1, 2]),
        "bn1.bias": np.float32([2, 3]),
        "bn1.running_mean": np.float32([3, 4]),
        "bn1.running_var": np.float32([4, 5]),
        "bn1.num_batches_tracked": np.array(5),
    }
    assert state.keys() == {prefix + name for name in expected}
    for name, array in expected.items():
        np.testing.assert_array_equal(state[prefix + name], array, strict=True)


def test_truncated_file_is_rejected(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(data), 37):
        cut.write_bytes(data[:length])
        # Not for its names, which are those of another network.
        with pytest.raises(WeightsError, match=r"cut\.pth: (?!.*do not belong)"):
            read_checkpoint(cut, tiny())


def test_altered_zip_fails_its_checksum(tmp_path):
    data = bytearray(Path(__file__).with_name("checkpoint.pth").read_bytes())
    at = data.index(np.arange(4, dtype="<f4").tobytes())
    data[at + 5] ^= 1
    altered = tmp_path / "altered.pth"
    altered.write_bytes(data)
    with pytest.raises(WeightsError, match=r"CRC"):
        read_checkpoint(altered, tiny())
