"""Formats that are not read are called by their names, with a way out; folders of save_pretrained are read."""

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.other_formats import weight_file
from keras_effnet.weights.formats.safetensors import write_safetensors
from keras_effnet.weights.formats.torch_writer import write_torch

STEM = {"conv_stem.weight": np.ones((8, 3, 3, 3), np.float32)}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sm/saved_model.pb", b"", r"a SavedModel of TensorFlow without variables.*tf_keras.*\.weights\.h5"),
        ("sm/_METADATA", b"{}", "a checkpoint of Orbax"),
        ("sm/checkpoint.msgpack", b"{}", "a checkpoint of Orbax"),
        ("sm", b"\x1c\0\0\0TFL3", r"a LiteRT .* model.*save_weights"),
        ("sm.tflite", b"\x1c\0\0\0TFL3", r"a LiteRT .* model.*save_weights"),
        ("sm.onnx", b"\x08\x0a", "an ONNX model"),
        ("sm.msgpack", b"\x84", "a checkpoint of Flax"),
        ("sm.npz", b"PK\x03\x04", "an archive of NumPy arrays"),
        ("sm.pb", b"\x0a", "a TensorFlow graph"),
    ],
)
def test_known_formats_are_named(tmp_path, file, content, message):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(path.parent if path.parent != tmp_path else path, tiny())


def test_folders_of_save_pretrained_are_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert weight_file(tmp_path) == tmp_path
    write_torch(tmp_path / "pytorch_model.bin", STEM)
    assert set(read_checkpoint(tmp_path, tiny()).state) == {"stem_conv/kernel"}
    write_safetensors(tmp_path / "model.safetensors", STEM, {})
    assert weight_file(tmp_path) == tmp_path / "model.safetensors"
    assert set(read_checkpoint(tmp_path, tiny()).state) == {"stem_conv/kernel"}


def test_weights_in_several_files_are_rejected(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="weights in several files"):
        read_checkpoint(tmp_path, tiny())
