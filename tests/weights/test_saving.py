"""Saving weights, and loading them into `keras.applications`; tests/peers loads them into the other libraries."""

import pickletools
import struct
import zipfile

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.introspection import framework_of_model, normalization_of, variant_of
from keras_effnet.models import create
from keras_effnet.normalization import IMAGENET, LITE, PYTORCH, TENSORFLOW
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights.loading import load_weights
from keras_effnet.weights.saving import save_weights

SUFFIXES = [pytest.param(".weights.h5", marks=pytest.mark.builders), ".h5"]


def assert_same(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_keras_applications_loads_our_files_and_gives_our_outputs(suffix, tmp_path, randomise, photo, run):
    ours = keras_effnet.EfficientNetB0(weights=None, classifier_activation=None)
    randomise(ours)
    path = tmp_path / f"b0{suffix}"
    save_weights(ours, path)
    theirs = keras.applications.EfficientNetB0(weights=None, classifier_activation=None)
    theirs.load_weights(str(path))
    assert_same(run(theirs, photo(224)), run(ours, photo(224)))


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_keras_applications_loads_a_network_without_a_classifier(suffix, tmp_path, randomise, photo, run):
    options = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": (96, 96, 3)}
    ours = keras_effnet.EfficientNetB0(**options)
    randomise(ours)
    save_weights(ours, tmp_path / f"b0{suffix}")
    theirs = keras.applications.EfficientNetB0(**options)
    theirs.load_weights(str(tmp_path / f"b0{suffix}"))
    assert_same(run(theirs, photo(96)), run(ours, photo(96)))


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5", "x.safetensors", "tf_efficientnet_x.pth"])
def test_saved_weights_load_back(name, tmp_path, randomise, arrays):
    layout = "keras.applications" if name.endswith("h5") else "timm"
    model = create(tiny(), classes=10)
    randomise(model)
    save_weights(model, tmp_path / name, layout)
    other = create(tiny(), classes=10)
    load_weights(other, tmp_path / name)
    for key, value in arrays(model).items():
        np.testing.assert_array_equal(arrays(other)[key], value)


def test_pth_file_has_the_structure_of_torch_save(tmp_path, randomise):
    model = create(tiny(), classes=10)
    randomise(model)
    for name in ("one.pth", "two.pth"):
        save_weights(model, tmp_path / name, "timm")
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "two.pth").read_bytes()
    data = (tmp_path / "one.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.pth") as archive:
        members = archive.infolist()
        assert archive.testzip() is None
        assert archive.read("archive/version") == b"3\n"
        assert archive.read("archive/byteorder") == b"little"
        opcodes = list(pickletools.genops(archive.read("archive/data.pkl")))
    assert (opcodes[0][0].name, opcodes[0][1]) == ("PROTO", 2)
    named = {argument for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"}
    # Only globals that torch.load(weights_only=True) allows.
    assert named == {
        "collections OrderedDict",
        "torch FloatStorage",
        "torch LongStorage",
        "torch._utils _rebuild_tensor_v2",
    }
    assert all(info.compress_type == zipfile.ZIP_STORED for info in members)
    # torch.load(mmap=True) needs aligned members; the lengths in the local headers determine the offset.
    for info in members:
        lengths = struct.unpack_from("<HH", data, info.header_offset + 26)
        assert (info.header_offset + 30 + sum(lengths)) % 64 == 0


def test_nested_model_is_found(tmp_path, randomise, arrays):
    backbone = create(tiny(), include_top=False, pooling="avg", name="inside")
    model = keras.Sequential([keras.Input((32, 32, 3)), backbone, keras.layers.Dense(4, name="mine")])
    randomise(backbone)
    save_weights(model, tmp_path / "x.weights.h5")
    fresh = create(tiny(), include_top=False, pooling="avg")
    load_weights(keras.Sequential([keras.Input((32, 32, 3)), fresh]), tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(arrays(fresh)["top_conv/kernel"], arrays(backbone)["top_conv/kernel"])


@pytest.mark.parametrize(
    ("key", "include_top"), [("b0", True), ("b1", False), ("b4", False), ("lite0", False), ("lite3", True)]
)
def test_variant_is_read_from_a_model(key, include_top):
    assert variant_of(create(VARIANTS[key], include_top=include_top)) is VARIANTS[key]


def test_custom_table_is_read_from_a_model():
    found = variant_of(create(tiny(), include_top=False, input_shape=(64, 64, 3)))
    assert found.stages == tiny().stages
    assert (found.stem, found.head, found.activation) == (8, 32, "swish")


def test_framework_and_normalization_are_read_from_a_model():
    assert framework_of_model(create(tiny())) == TENSORFLOW
    assert framework_of_model(create(tiny(), framework="pytorch")) == PYTORCH
    assert normalization_of(create(tiny())).close_to(IMAGENET)
    assert normalization_of(create(VARIANTS["lite0"])).close_to(LITE)
    assert normalization_of(create(tiny(), include_preprocessing=False)) is None


def test_pytorch_framework_pads_both_sides_equally(randomise, photo, run):
    model = create(tiny(), framework="pytorch", include_preprocessing=False, input_shape=(33, 33, 3))
    assert model.get_layer("stem_conv").padding == "valid"
    assert model.get_layer("stem_conv_pad").output.shape[1] == 35
    assert model.get_layer("stem_conv").output.shape[1] == 17


def test_weights_for_another_padding_are_rejected(tmp_path, randomise):
    model = create(tiny(), classes=10, framework="pytorch")
    save_weights(model, tmp_path / "x.safetensors", "timm")
    with pytest.raises(WeightsError, match="expect .*'pytorch'.*Build it with weights="):
        load_weights(create(tiny(), classes=10), tmp_path / "x.safetensors")


def test_weights_for_another_normalization_are_rejected(tmp_path):
    if LEGACY:
        pytest.skip("tf_keras writes the same statistics, so testing Keras 3 is enough")
    model = keras.applications.EfficientNetB0(weights=None)
    model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(WeightsError, match="expect Normalization"):
        load_weights(keras_effnet.EfficientNetB0(weights=None), tmp_path / "x.weights.h5")


def test_ambiguous_timm_file_is_rejected(tmp_path):
    from safetensors.numpy import load_file, save_file

    save_weights(create(tiny(), classes=10), tmp_path / "x.safetensors", "timm")
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors")
    model = create(tiny(), classes=10)
    with pytest.raises(
        WeightsError, match="Expected framework='tensorflow' for tf_efficientnet or framework='pytorch'"
    ):
        load_weights(model, tmp_path / "y.safetensors")
    load_weights(model, tmp_path / "y.safetensors", framework="tensorflow")
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_b0"}')
    load_weights(model, tmp_path / "y.safetensors")


@pytest.mark.parametrize("name", ["tf_efficientnet_b0.pth", "efficientnet_b0.pth"])
def test_framework_of_a_timm_file_is_read_from_its_name(name, tmp_path):
    from keras_effnet.weights.formats.frameworks import framework_of

    (tmp_path / name).write_bytes(b"PK")
    expected = TENSORFLOW if name.startswith("tf_") else PYTORCH
    assert framework_of(tmp_path / name, "timm", VARIANTS["b0"], None) == expected


def test_torchvision_is_pytorch_with_tensorflow_epsilon_for_b7(tmp_path):
    from keras_effnet.weights.formats.frameworks import framework_of

    assert framework_of(tmp_path, "torchvision", VARIANTS["b0"], None) == PYTORCH
    assert framework_of(tmp_path, "torchvision", VARIANTS["b7"], None).bn_epsilon == 1e-3
    with pytest.raises(WeightsError, match="framework is 'tensorflow', but"):
        framework_of(tmp_path, "torchvision", VARIANTS["b0"], "tensorflow")


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("x.h5", "timm", "Expected a name that ends in .pth or .safetensors"),
        ("x.pth", "keras.applications", "Expected a name that ends in .h5"),
        ("x.h5", "caffe", "Expected one of keras.applications, lukemelas, timm, torchvision, transformers"),
        ("x.safetensors", "torchvision", "the outputs would differ"),
    ],
)
def test_rejected_save_writes_nothing(name, layout, message, tmp_path):
    with pytest.raises(WeightsError, match=message):
        save_weights(create(tiny()), tmp_path / name, layout)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x.pth").write_bytes(b"old")

    def interrupt(path, tensors):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_effnet.weights.saving.write_torch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_weights(create(tiny()), tmp_path / "x.pth", "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
    assert (tmp_path / "x.pth").read_bytes() == b"old"


def test_other_models_are_rejected():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)], name="other")
    with pytest.raises(ValueError, match="'other' has no layer 'stem_conv'"):
        variant_of(model)


def test_unknown_framework_is_rejected():
    with pytest.raises(ValueError, match="framework is 'caffe'. Expected one of tensorflow, pytorch"):
        create(tiny(), framework="caffe")
