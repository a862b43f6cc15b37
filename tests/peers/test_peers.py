"""Models of other libraries with random weights: we read their files and compute their logits, and vice versa."""

import importlib.util
import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET, MINUS_ONE_TO_ONE, Normalization
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.layer_names import layer_names, variables
from keras_effnet.weights.formats.preprocessing_files import stored_normalization
from keras_effnet.weights.formats.torch_files import read_torch
from keras_effnet.weights.loading import open_weights
from keras_effnet.weights.registry import WEIGHTS
from keras_effnet.weights.saving import save_weights

torch = pytest.importorskip("torch", reason="torch is not installed: the peers' lane has its own environment")


def timm_model(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    return timm.create_model(name, pretrained=False)


def torchvision_model(name):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    return getattr(models, name)(weights=None)


def transformers_model(variant):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.EfficientNetConfig(
        width_coefficient=variant.width_coefficient,
        depth_coefficient=variant.depth_coefficient,
        image_size=variant.resolution,
        hidden_dim=variant.head,
        num_labels=1000,
    )
    return transformers.EfficientNetForImageClassification(config)


def lukemelas_model(name):
    package = pytest.importorskip("efficientnet_pytorch", reason="efficientnet_pytorch is not installed")
    return package.EfficientNet.from_name(name)


@dataclass(frozen=True)
class Peer:
    """A model of another library.

    Args:
        layout: the library, as in `Checkpoint.layout`.
        variant: the same network in this package.
        make: builds the library's model.
        framework: the padding and epsilon of the library.
        sizes: image sizes in pixels for which both agree.
        normalization: how the library normalises pixels, if it is not the variant's.
    """

    layout: str
    variant: str
    make: Callable[[], Any]
    framework: str = "tensorflow"
    sizes: tuple[int, ...] = (224, 193)
    normalization: Normalization | None = None


PEERS = {
    "tf_efficientnet_b0": Peer("timm", "b0", lambda: timm_model("tf_efficientnet_b0")),
    "tf_efficientnet_b3": Peer("timm", "b3", lambda: timm_model("tf_efficientnet_b3")),
    "tf_efficientnet_lite2": Peer("timm", "lite2", lambda: timm_model("tf_efficientnet_lite2")),
    "efficientnet_b1": Peer("timm", "b1", lambda: timm_model("efficientnet_b1"), "pytorch"),
    "torchvision_b0": Peer("torchvision", "b0", lambda: torchvision_model("efficientnet_b0"), "pytorch"),
    "torchvision_b2": Peer("torchvision", "b2", lambda: torchvision_model("efficientnet_b2"), "pytorch"),
    "torchvision_b5": Peer("torchvision", "b5", lambda: torchvision_model("efficientnet_b5"), "pytorch", (193,)),
    "tf_efficientnetv2_b0": Peer("timm", "v2-b0", lambda: timm_model("tf_efficientnetv2_b0")),
    "tf_efficientnetv2_b3": Peer("timm", "v2-b3", lambda: timm_model("tf_efficientnetv2_b3")),
    "tf_efficientnetv2_s": Peer(
        "timm", "v2-s", lambda: timm_model("tf_efficientnetv2_s"), normalization=MINUS_ONE_TO_ONE
    ),
    "torchvision_v2_s": Peer(
        "torchvision", "v2-s", lambda: torchvision_model("efficientnet_v2_s"), "pytorch", normalization=IMAGENET
    ),
    # These two libraries pad for the published image size, and differ from TensorFlow at other sizes.
    "lukemelas_b0": Peer("lukemelas", "b0", lambda: lukemelas_model("efficientnet-b0"), sizes=(224,)),
    "transformers_b0": Peer("transformers", "b0", lambda: transformers_model(VARIANTS["b0"]), sizes=(224,)),
    "transformers_b1": Peer("transformers", "b1", lambda: transformers_model(VARIANTS["b1"]), sizes=(224,)),
}


def expected_state(model, variant):
    """The peer's arrays, by walking its modules in network order without using their names."""
    modules = list(model.modules())
    convolutions = iter([module for module in modules if isinstance(module, torch.nn.Conv2d)])
    norms = iter([module for module in modules if isinstance(module, torch.nn.BatchNorm2d)])
    (dense,) = [module for module in modules if isinstance(module, torch.nn.Linear)]
    state = {}
    for layer in layer_names(variant):
        if layer.endswith("bn"):
            module = next(norms)
            values = (module.weight, module.bias, module.running_mean, module.running_var)
        else:
            module = dense if layer == "predictions" else next(convolutions)
            values = (module.weight, module.bias)[: len(variables(layer))]
        arrays = [value.detach().numpy() for value in values]
        if layer == "predictions":
            arrays[0] = arrays[0].T
        elif not layer.endswith("bn"):
            # In depthwise kernels, the channels are at the position of the outputs.
            arrays[0] = np.moveaxis(arrays[0], (0, 1), (-2, -1) if module.groups > 1 else (-1, -2))
        state |= {f"{layer}/{name}": array for name, array in zip(variables(layer), arrays, strict=True)}
    assert next(convolutions, None) is None
    assert next(norms, None) is None
    return state


@pytest.mark.parametrize("name", PEERS)
def test_file_of_a_library_is_read(name, randomise_torch, save):
    peer = PEERS[name]
    variant = VARIANTS[peer.variant]
    model = randomise_torch(peer.make())
    checkpoint = read_checkpoint(save(model), variant)
    expected = expected_state(model, variant)
    assert checkpoint.layout == peer.layout
    assert sorted(checkpoint.state) == sorted(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(checkpoint.state[key], array, strict=True)
    floats = [tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point()]
    assert sum(array.size for array in checkpoint.state.values()) == sum(floats)


def images_of(size):
    return np.random.default_rng(size).uniform(0, 255, (2, size, size, 3)).astype(np.float32)


def our_model(peer, path):
    builder = getattr(keras_effnet, VARIANTS[peer.variant].builder)
    # The file name does not identify which of timm's two kinds of models this is.
    framework = peer.framework if peer.layout == "timm" else None
    return builder(weights=path, framework=framework, input_shape=(None, None, 3), classifier_activation=None)


def assert_same_logits(ours, theirs, peer):
    for size in peer.sizes:
        normalization = peer.normalization or VARIANTS[peer.variant].normalization
        expected = their_logits(theirs, images_of(size), normalization)
        found = keras.ops.convert_to_numpy(ours(images_of(size)))
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", PEERS)
def test_same_file_gives_the_same_logits(name, randomise_torch, tmp_path):
    peer = PEERS[name]
    model = randomise_torch(peer.make())
    torch.save(model.state_dict(), tmp_path / "file")
    assert_same_logits(our_model(peer, tmp_path / "file"), model, peer)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", PEERS)
def test_library_loads_our_file_strictly_and_gives_our_logits(name, suffix, randomise_torch, tmp_path):
    from safetensors.torch import load_file

    peer = PEERS[name]
    torch.save(randomise_torch(peer.make()).state_dict(), tmp_path / "file")
    ours = our_model(peer, tmp_path / "file")
    for variable in ours.get_layer("predictions").weights:
        variable.assign(variable.numpy() * 1.5)
    path = tmp_path / f"ours{suffix}"
    save_weights(ours, path, peer.layout)
    theirs = peer.make().eval()
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    theirs.load_state_dict(state, strict=True)
    assert_same_logits(ours, theirs, peer)


def test_our_pth_file_can_be_memory_mapped(tmp_path):
    model = keras_effnet.EfficientNetLite0(weights=None)
    save_weights(model, tmp_path / "ours.pth", "timm")
    mapped = torch.load(tmp_path / "ours.pth", weights_only=True, mmap=True)
    for name, array in read_torch(tmp_path / "ours.pth").items():
        np.testing.assert_array_equal(mapped[name].numpy(), array, strict=True)


def their_logits(model, images, normalization):
    normalised = (images - np.float32(normalization.mean)) / np.float32(normalization.std)
    with torch.no_grad():
        output = model(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()))
    return (output if isinstance(output, torch.Tensor) else output.logits).numpy()


def test_lite_package_is_read_as_by_torch():
    module, file = WEIGHTS["lite0", "imagenet"].package
    spec = importlib.util.find_spec(module)
    if spec is None:
        pytest.skip(f"the package {module} is not installed")
    path = Path(spec.origin).parent / file
    theirs, ours = torch.load(path, weights_only=True), read_torch(path)
    assert list(theirs) == list(ours)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor.numpy(), strict=True)


def test_half_precision_and_views_are_read_as_by_torch(tmp_path):
    base = torch.arange(240.0)
    state = {
        "conv_stem.weight": base[:216].reshape(3, 3, 3, 8).permute(3, 2, 0, 1).bfloat16(),
        "bn1.weight": base[5:21:2].half(),
        "bn1.bias": base[10:18],
        "bn1.running_mean": base[::30].double(),
        "bn1.running_var": torch.nn.Parameter(base.view(30, 8).t()[:, 3][:8]),
        "bn1.num_batches_tracked": torch.tensor(3),
    }
    for zipped in (True, False):
        torch.save({"state_dict": state}, tmp_path / "file", _use_new_zipfile_serialization=zipped)
        ours = read_torch(tmp_path / "file")
        for name, tensor in state.items():
            widened = tensor.detach().float() if tensor.dtype in (torch.half, torch.bfloat16) else tensor.detach()
            np.testing.assert_array_equal(ours[name], widened.numpy(), strict=True)


def test_every_set_of_timm_is_normalised_as_in_timm(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    sizes = re.compile(r"(tf_)?efficientnet(v2)?_(b\d|l2|lite\d|s|m|l|xl)\..*")
    names = [name for name in timm.list_pretrained("*efficientnet*") if sizes.fullmatch(name)]
    assert len(names) > 60
    for name in names:
        (tmp_path / f"{name}.pth").write_bytes(b"PK")
        found = stored_normalization(tmp_path / f"{name}.pth", "timm", VARIANTS["b0"])
        config = timm.get_pretrained_cfg(name)
        expected = Normalization(tuple(255 * v for v in config.mean), tuple(255 * v for v in config.std))
        assert found is not None, name
        assert found.close_to(expected), name


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_b0.ap_in1k", "efficientnet_lite0.ra_in1k", "tf_efficientnet_b0.aa_in1k"]
)
def test_folder_for_the_hub_is_normalised_as_by_timm(name, tmp_path):
    hub = pytest.importorskip("timm.models", reason="timm is not installed")
    model = hub.create_model(name, pretrained=False)
    hub.save_for_hf(model, tmp_path, safe_serialization=True)
    variant = VARIANTS["lite0" if "lite" in name else "b0"]
    found = open_weights(variant, tmp_path / "model.safetensors").normalization
    cfg = model.pretrained_cfg
    assert found.close_to(Normalization(tuple(255 * v for v in cfg["mean"]), tuple(255 * v for v in cfg["std"])))


def test_training_checkpoints_of_torch_scripts_are_read(tmp_path):
    model = timm_model("efficientnet_b0")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    right = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    luggage = {"args": Namespace(lr=0.1, output=tmp_path), "optimizer": optimizer.state_dict(), "metric": np.float64(7)}
    files = {
        "timm": {
            "epoch": 1,
            **luggage,
            "state_dict": model.state_dict(),
            "state_dict_ema": averaged.module.state_dict(),
        },
        "torchvision": {**luggage, "model": model.state_dict(), "model_ema": averaged.state_dict()},
        "tutorial": {"epoch": 1, "model_state_dict": model.state_dict(), "loss": torch.tensor(1.0)},
        "averaged": averaged.state_dict(),
        "parallel": torch.nn.DataParallel(model).state_dict(),
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()},
        "part": {f"net.backbone.{name}": tensor for name, tensor in model.state_dict().items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        state = read_checkpoint(tmp_path / f"{name}.pth", VARIANTS["b0"]).state
        np.testing.assert_array_equal(state["stem_conv/kernel"], right["conv_stem.weight"].transpose(2, 3, 1, 0), name)
        np.testing.assert_array_equal(state["predictions/bias"], right["classifier.bias"], name)
    torch.save(model, tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"class 'timm\.models\.efficientnet\.EfficientNet'.*save model\.state_dict"):
        read_checkpoint(tmp_path / "whole.pth", VARIANTS["b0"])
