"""Checkpoints written by TensorFlow with the variable names of the official ones."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights.cache import LocalFile
from keras_effnet.weights.formats.checkpoint_bundle import Bundle
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.google_checkpoints import tf_names

FUZZ = int(os.environ.get("KERAS_EFFNET_FUZZ", "1000"))

# Copied from the published checkpoint of B0, independently of `tf_names`.
OFFICIAL = {
    "stem_conv/kernel": "stem/conv2d/kernel",
    "stem_bn/moving_variance": "stem/tpu_batch_normalization/moving_variance",
    "block1a_dwconv/kernel": "blocks_0/depthwise_conv2d/depthwise_kernel",
    "block1a_bn/gamma": "blocks_0/tpu_batch_normalization/gamma",
    "block1a_se_reduce/bias": "blocks_0/se/conv2d/bias",
    "block1a_se_expand/kernel": "blocks_0/se/conv2d_1/kernel",
    "block1a_project_conv/kernel": "blocks_0/conv2d/kernel",
    "block1a_project_bn/beta": "blocks_0/tpu_batch_normalization_1/beta",
    "block2a_expand_conv/kernel": "blocks_1/conv2d/kernel",
    "block2a_expand_bn/gamma": "blocks_1/tpu_batch_normalization/gamma",
    "block2a_bn/moving_mean": "blocks_1/tpu_batch_normalization_1/moving_mean",
    "block2a_project_conv/kernel": "blocks_1/conv2d_1/kernel",
    "block2a_project_bn/gamma": "blocks_1/tpu_batch_normalization_2/gamma",
    "block7a_project_conv/kernel": "blocks_15/conv2d_1/kernel",
    "top_conv/kernel": "head/conv2d/kernel",
    "top_bn/beta": "head/tpu_batch_normalization/beta",
    "predictions/kernel": "head/dense/kernel",
    "predictions/bias": "head/dense/bias",
}


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def checkpoint(tf, tmp_path_factory):
    """Every variable of B0 with its moving average and two optimizer slots, all with different values."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(2, 3)).astype("float32") for name in tf_names(VARIANTS["b0"])}
    values = {}
    for name, place in tf_names(VARIANTS["b0"]).items():
        full = f"efficientnet-b0/{place}"
        values[full] = arrays[name]
        values[f"{full}/ExponentialMovingAverage"] = arrays[name] + 1
        values[f"{full}/RMSProp"] = arrays[name] + 2
        values[f"{full}/RMSProp_1"] = arrays[name] + 3
    values["global_step"] = np.int64(218_949)
    folder = tmp_path_factory.mktemp("efficientnet-b0")
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    return folder, arrays


def archive(folder, path, extra=None):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, "efficientnet-b0")
        if extra is not None:
            tar.addfile(*extra)
    return path


def test_names_match_the_official_checkpoint():
    names = tf_names(VARIANTS["b0"])
    assert {ours: names[ours] for ours in OFFICIAL} == OFFICIAL
    assert len(set(names.values())) == len(names)


def test_we_read_the_same_values_as_tensorflow(tf, checkpoint):
    prefix = checkpoint[0] / "model.ckpt"
    theirs = tf.train.load_checkpoint(str(prefix))
    ours = Bundle(prefix)
    assert set(ours.entries) == set(theirs.get_variable_to_shape_map())
    for name in ours.entries:
        np.testing.assert_array_equal(ours.read(name), theirs.get_tensor(name))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int64", "int32"])
def test_other_types_are_read(tf, tmp_path, dtype):
    values = tf.cast(tf.constant([[1.5, -2.0], [3.0, 0.25]]), dtype)
    tf.raw_ops.SaveV2(prefix=f"{tmp_path}/x", tensor_names=["v"], shape_and_slices=[""], tensors=[values])
    expected = tf.cast(values, "float32" if dtype.endswith("16") else dtype).numpy()
    np.testing.assert_array_equal(Bundle(tmp_path / "x").read("v"), expected)


@pytest.mark.parametrize("form", ["folder", "prefix", "archive"])
def test_averages_are_read_by_default_and_raw_weights_on_request(checkpoint, form, tmp_path):
    folder, arrays = checkpoint
    path = {"folder": folder, "prefix": folder / "model.ckpt"}.get(form) or archive(folder, tmp_path / "b0.tar.gz")
    for ema, shift in ((True, 1), (False, 0)):
        state = read_checkpoint(path, VARIANTS["b0"], ema=ema).state
        assert state.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(state[name], array + np.float32(shift))


def test_checkpoint_of_a_larger_network_is_rejected(checkpoint):
    with pytest.raises(WeightsError, match=r"variables that lite0 does not have: .*Choose the variant"):
        read_checkpoint(checkpoint[0], VARIANTS["lite0"])


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("../../evil.index", tarfile.REGTYPE, "outside the archive"),
        ("/tmp/evil.index", tarfile.REGTYPE, "outside the archive"),
        ("efficientnet-b0/model.ckpt.index", tarfile.REGTYPE, "a duplicate"),
        ("efficientnet-b0/link", tarfile.SYMTYPE, "the link or device"),
        ("efficientnet-b0/link", tarfile.LNKTYPE, "the link or device"),
        ("efficientnet-b0/device", tarfile.CHRTYPE, "the link or device"),
        ("efficientnet-b0/huge.data-00000-of-00001", "bomb", "more bytes than the network can need"),
    ],
)
def test_archive_with_unexpected_members_is_rejected(checkpoint, tmp_path, name, kind, message):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = (tarfile.REGTYPE if kind == "bomb" else kind), "/etc/passwd"
    content = b"x" * 10
    if kind == "bomb":
        content = bytes(250 << 20)
    member.size = len(content) if kind in (tarfile.REGTYPE, "bomb") else 0
    path = archive(checkpoint[0], tmp_path / "b0.tar.gz", (member, io.BytesIO(content)))
    before = sorted(tmp_path.parent.rglob("evil*"))
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(path, VARIANTS["b0"])
    assert sorted(tmp_path.parent.rglob("evil*")) == before
    assert not Path("/tmp/evil.index").exists()


def test_latest_checkpoint_of_a_folder_is_read(checkpoint, tmp_path):
    folder, arrays = checkpoint
    for file in folder.glob("model.ckpt.*"):
        for name in ("model.ckpt-1", "model.ckpt-2"):
            (tmp_path / file.name.replace("model.ckpt", name)).write_bytes(file.read_bytes() if "-2" in name else b"")
    latest = 'model_checkpoint_path: "/elsewhere/model.ckpt-2"\nall_model_checkpoint_paths: "/elsewhere/model.ckpt-1"\n'
    (tmp_path / "checkpoint").write_text(latest)
    state = read_checkpoint(tmp_path, VARIANTS["b0"], ema=False).state
    np.testing.assert_array_equal(state["predictions/bias"], arrays["predictions/bias"])


def test_folder_with_two_checkpoints_is_rejected(checkpoint, tmp_path):
    for name in ("a.index", "b.index"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match="There are 2 checkpoints.*Pass the prefix"):
        read_checkpoint(tmp_path, VARIANTS["b0"])


def test_checkpoint_loads_into_a_model(tf, tmp_path, arrays, monkeypatch):
    from keras_effnet.models import EfficientNetLite0
    from keras_effnet.weights.loading import load_weights

    model = EfficientNetLite0(weights="imagenet")
    names = tf_names(VARIANTS["lite0"])
    values = {f"efficientnet-lite0/{names[name]}": array for name, array in arrays(model).items()}
    tf.raw_ops.SaveV2(
        prefix=f"{tmp_path}/imagenet/model.ckpt",
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    for path in (tmp_path / "imagenet", str(tmp_path / "imagenet" / "model.ckpt")):
        again = EfficientNetLite0(weights=path)
        load_weights(again, path)
        for name, array in arrays(model).items():
            np.testing.assert_array_equal(arrays(again)[name], array)
    # A folder with the name of a published set does not replace the set.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_effnet.weights.published.packaged", lambda record: LocalFile(tmp_path / "imagenet", ""))
    EfficientNetLite0(weights="imagenet")


def mutate(data, rng):
    """Damage data one to four times: change, delete, repeat or truncate bytes."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, length = rng.integers(len(data) + 1), rng.integers(1, 9)
        kind = rng.integers(4)
        if kind == 0:
            data[at : at + length] = rng.bytes(min(length, len(data) - at))
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif rng.integers(8) == 0:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("form", ["index", "archive"])
def test_damaged_checkpoints_are_read_or_rejected(tf, tmp_path, form):
    values = {f"m/{place}": np.ones((2, 2), "float32") for place in tf_names(tiny()).values()}
    folder = tmp_path / "sound"
    tf.raw_ops.SaveV2(
        prefix=f"{folder}/x",
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=list(values.values()),
    )
    read_checkpoint(folder, tiny())
    rng = np.random.default_rng(0)
    index = folder / "x.index"
    sound = index.read_bytes()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        file.add(folder, "x")
    refused = 0
    for _ in range(FUZZ // 10):
        if form == "index":
            index.write_bytes(mutate(sound, rng))
            path = folder
        else:
            path = tmp_path / "x.tar.gz"
            path.write_bytes(gzip.compress(mutate(tar.getvalue(), rng), 1))
        try:
            read_checkpoint(path, tiny())
        except WeightsError:
            refused += 1
    assert refused > FUZZ // 50
