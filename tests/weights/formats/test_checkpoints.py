"""Weight files of every format and library, written by the libraries themselves where they are installed."""

import importlib.util
import re
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from keras_effnet._keras import LEGACY, keras
from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET, ZERO_TO_ONE, Normalization
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.layer_names import LAYOUTS, TORCH_LAYOUTS, layer_names, variables
from keras_effnet.weights.registry import WEIGHTS

builders = pytest.mark.builders

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def random_state(variant, seed=0):
    """Random arrays for every variable of a network; their shapes are small, but have the right rank."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 3, 2, 4)}
    state = {}
    for layer in layer_names(variant):
        for name in variables(layer):
            shape = (4, 5) if layer == "predictions" and name == "kernel" else shapes.get(name, (4,))
            state[f"{layer}/{name}"] = rng.normal(size=shape).astype(np.float32)
    return state


def assert_same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def write_h5(path, state, *, root="", rename=lambda name: name):
    """A legacy weight file as Keras writes it: /layer/layer/variable:0."""
    with h5py.File(path, "w") as file:
        for name, array in state.items():
            layer, variable = rename(name).split("/")
            file[f"{root}{layer}/{layer}/{variable}:0"] = array
    return path


# --- files written by Keras ---


@pytest.fixture(scope="module")
def model(arrays):
    """The B0 of keras.applications with random weights and statistics, and its arrays."""
    model = keras.applications.EfficientNetB0(weights=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if type(layer).__name__ == "Normalization":
            layer.set_weights([MEAN, STD**2, np.array(0)])
        elif shapes:
            layer.set_weights([rng.uniform(0.1, 1, shape).astype(np.float32) for shape in shapes])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model, {name: array for name, array in arrays(model).items() if not name.startswith("normalization")}


@builders
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize(
    ("suffix", "layout"), [(".weights.h5", "keras-weights"), (".keras", "keras"), (".full.h5", "keras-h5")]
)
def test_files_written_by_keras_give_its_arrays(model, tmp_path, suffix, layout):
    model, expected = model
    path = tmp_path / f"file{suffix}"
    (model.save_weights if layout == "keras-weights" else model.save)(path)
    checkpoint = read_checkpoint(path.rename(tmp_path / "unrelated name"), VARIANTS["b0"])
    assert checkpoint.layout == layout
    assert checkpoint.normalization == IMAGENET
    assert_same(checkpoint.state, expected)


@builders
@pytest.mark.skipif(not LEGACY, reason="only tf_keras writes weight files in the legacy format")
def test_legacy_weights_written_by_tf_keras_give_its_arrays(model, tmp_path):
    model, expected = model
    model.save_weights(tmp_path / "file.h5")
    checkpoint = read_checkpoint(tmp_path / "file.h5", VARIANTS["b0"])
    assert (checkpoint.layout, checkpoint.normalization) == ("keras-h5", IMAGENET)
    assert_same(checkpoint.state, expected)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_optimizer_variables_of_a_compiled_model_are_ignored(arrays, tmp_path, suffix):
    from keras_effnet.models import create

    model = create(tiny(), classes=3)
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    path = tmp_path / f"file{suffix}"
    (model.save_weights if "weights" in suffix else model.save)(path)
    checkpoint = read_checkpoint(path, tiny())
    # Our normalisation has no variables: it is stored only in the configuration of a whole model.
    assert checkpoint.normalization == (IMAGENET if suffix == ".keras" else None)
    assert_same(checkpoint.state, arrays(model))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
@pytest.mark.parametrize("flat", [False, True])
def test_network_under_a_head_of_your_own_is_read(arrays, tmp_path, caplog, suffix, flat):
    from keras_effnet.models import create

    network = create(tiny(), include_top=False, pooling="avg", input_shape=(32, 32, 3))
    head = [keras.layers.BatchNormalization(name="mine"), keras.layers.Dense(3, name="fc")]
    x = network.output
    for layer in head if flat else ():
        x = layer(x)
    model = keras.Model(network.input, x) if flat else keras.Sequential([keras.Input((32, 32, 3)), network, *head])
    (model.save_weights if suffix == ".weights.h5" else model.save)(tmp_path / f"file{suffix}")
    state = read_checkpoint(tmp_path / f"file{suffix}", tiny()).state
    assert_same(state, arrays(network))
    assert any("Ignored 6 arrays outside the network" in message for message in caplog.messages)


def test_backslashes_in_group_names_are_separators(tmp_path):
    with h5py.File(tmp_path / "file", "w") as file:
        file.create_dataset("layers\\conv2d\\vars/0", data=np.ones((3, 3, 3, 8), "f4"))
        file["layers\\conv2d\\vars"].attrs["name"] = "stem_conv"
    assert set(read_checkpoint(tmp_path / "file", tiny()).state) == {"stem_conv/kernel"}


def test_file_of_keras_hub_is_named(tmp_path):
    with h5py.File(tmp_path / "file", "w") as file:
        for path, name in (("layers/conv2d", "stem_conv"), ("layers/mb_conv_block/conv1", "block1a_expand_conv_")):
            file[f"{path}/vars/0"] = np.ones((3, 3, 3, 8), np.float32)
            file[f"{path}/vars"].attrs["name"] = name
    with pytest.raises(WeightsError, match="was written by KerasHub"):
        read_checkpoint(tmp_path / "file", tiny())


@pytest.mark.parametrize("group", ["optimizer/vars/0", "metrics/mean/vars/0", "layers/dropout/seed_generator/vars/0"])
def test_training_state_is_ignored(tmp_path, group):
    with h5py.File(tmp_path / "file", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 8), np.float32)
        file["layers/conv2d/vars"].attrs["name"] = "stem_conv"
        file[group] = np.arange(4)
    assert set(read_checkpoint(tmp_path / "file", tiny()).state) == {"stem_conv/kernel"}


# --- legacy files, written by hand ---


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_legacy_files_are_read_by_layer_name(tmp_path, root):
    state = random_state(tiny())
    checkpoint = read_checkpoint(write_h5(tmp_path / "file", state, root=root), tiny())
    assert (checkpoint.layout, checkpoint.normalization) == ("keras-h5", None)
    assert_same(checkpoint.state, state)


def test_classifier_named_probs_is_read(tmp_path):
    state = random_state(tiny())
    path = write_h5(tmp_path / "file", state, rename=lambda name: name.replace("predictions", "probs"))
    assert_same(read_checkpoint(path, tiny()).state, state)


def test_file_without_a_classifier_is_read(tmp_path):
    state = {name: array for name, array in random_state(tiny()).items() if not name.startswith("predictions")}
    assert_same(read_checkpoint(write_h5(tmp_path / "file", state), tiny()).state, state)


def test_numbered_variable_scopes_belong_to_the_layer_of_their_group(tmp_path):
    with h5py.File(tmp_path / "file", "w") as file:
        file["stem_conv/stem_conv_2/kernel:0"] = np.ones((3, 3, 3, 8), np.float32)
        file["block1a_dwconv/block1a_dwconv_1/depthwise_kernel:0"] = np.ones((3, 3, 8, 1), np.float32)
    assert set(read_checkpoint(tmp_path / "file", tiny()).state) == {"stem_conv/kernel", "block1a_dwconv/kernel"}


def test_automatic_names_are_read_in_network_order(tmp_path):
    state = random_state(tiny())
    kinds, counts = {}, {}
    for layer in layer_names(tiny()):
        kind = "dense" if layer == "predictions" else "conv2d"
        kind = "batch_normalization" if layer.endswith("bn") else "depthwise_conv2d" if "dw" in layer else kind
        counts[kind] = counts.get(kind, 7) + 1  # earlier models used the lower numbers
        kinds[layer] = f"{kind}_{counts[kind]}"
    path = write_h5(tmp_path / "file", state, rename=lambda name: f"{kinds[name.split('/')[0]]}/{name.split('/')[1]}")
    assert_same(read_checkpoint(path, tiny()).state, state)


def test_automatic_names_of_another_network_are_rejected(tmp_path):
    with h5py.File(tmp_path / "file", "w") as file:
        for i in range(3):
            file[f"conv2d_{i}/kernel:0"] = np.ones((3, 3, 3, 8), np.float32)
    with pytest.raises(WeightsError, match=r"has 3 layers with automatic names like 'conv2d'.*Expected the 65 of b0"):
        read_checkpoint(tmp_path / "file", VARIANTS["b0"])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_all_float_types_become_float32(tmp_path, dtype):
    kernel = np.linspace(-1, 1, 216).reshape(3, 3, 3, 8).astype(dtype)
    with h5py.File(tmp_path / "file", "w") as file:
        file["stem_conv/kernel:0"] = kernel
        if dtype is ml_dtypes.bfloat16:
            file["stem_conv/kernel:0"].attrs["dtype"] = "bfloat16"  # as in Keras
    assert_same(read_checkpoint(tmp_path / "file", tiny()).state, {"stem_conv/kernel": kernel.astype(np.float32)})


# --- the normalisation in a file ---


@pytest.mark.parametrize(
    ("mean", "variance", "expected"),
    [
        pytest.param(MEAN, STD, IMAGENET, id="published: standard deviation instead of variance"),
        pytest.param(MEAN, STD**2, IMAGENET, id="adapted"),
        pytest.param(np.zeros(3, "f4"), np.ones(3, "f4"), ZERO_TO_ONE, id="not adapted: only x / 255"),
        pytest.param([0.5] * 3, [0.25] * 3, Normalization((127.5,) * 3, (127.5,) * 3), id="custom"),
        pytest.param([0.25], [0.25], Normalization((63.75,), (127.5,)), id="one channel"),
    ],
)
@pytest.mark.parametrize("names", [("normalization", "mean:0", "variance:0"), ("layers/normalization/vars", "0", "1")])
def test_normalization_layer_of_a_file_is_read(tmp_path, mean, variance, expected, names):
    group, first, second = names
    with h5py.File(tmp_path / "file", "w") as file:
        file[f"{group}/{first}"], file[f"{group}/{second}"] = np.float32(mean), np.float32(variance)
        file[f"{group}/{'2' if first == '0' else 'count:0'}"] = np.int64(3)
        file["stem_conv/kernel:0"] = np.ones((3, 3, 3, 8), np.float32)
    assert read_checkpoint(tmp_path / "file", tiny()).normalization == expected


@pytest.mark.parametrize("variance", [[0.0] * 3, [np.nan] * 3, [-1.0] * 3, [1.0]])
def test_invalid_normalization_is_rejected(tmp_path, variance):
    with h5py.File(tmp_path / "file", "w") as file:
        file["normalization/mean:0"], file["normalization/variance:0"] = MEAN, np.float32(variance)
    with pytest.raises(WeightsError, match=r"normalisation is mean .*, variance "):
        read_checkpoint(tmp_path / "file", tiny())


# --- other libraries ---


def write_safetensors(path, tensors):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    numpy.save_file({name: np.array(array, order="C") for name, array in tensors.items()}, path, {"format": "pt"})
    return path


def as_torch(state, layout, variant, prefix=""):
    """The same arrays with the names, axes and batch counters of a PyTorch library."""
    theirs = {ours: name for name, ours in layer_names(variant, layout).items()}
    renamed = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    tensors = {}
    for name, array in state.items():
        layer, variable = name.split("/")
        if variable == "kernel" and array.ndim == 4:
            array = np.transpose(array, (2, 3, 0, 1) if layer.endswith("dwconv") else (3, 2, 0, 1))
        elif variable == "kernel":
            array = array.T
        variable = renamed.get(variable, variable)
        tensors[f"{prefix}{theirs[layer]}.{variable}"] = array
        if variable == "running_mean":
            tensors[f"{prefix}{theirs[layer]}.num_batches_tracked"] = np.array(1)
    return tensors


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_lite_packages_have_every_layer(variant):
    module, file = WEIGHTS[variant, "imagenet"].package
    spec = importlib.util.find_spec(module)
    if spec is None:
        pytest.skip(f"the package {module} is not installed")
    checkpoint = read_checkpoint(Path(spec.origin).parent / file, VARIANTS[variant])
    layers = layer_names(VARIANTS[variant])
    assert checkpoint.layout == "lukemelas"
    assert set(checkpoint.state) == {f"{layer}/{name}" for layer in layers for name in variables(layer)}
    # Published numbers of parameters.
    total = {"lite0": 4_694_024, "lite1": 5_470_344, "lite2": 6_150_168}[variant]
    assert sum(array.size for array in checkpoint.state.values()) == total
    assert checkpoint.state["block2a_dwconv/kernel"].shape[2:] == (96, 1)
    assert checkpoint.state["predictions/kernel"].shape == (1280, 1000)


@pytest.mark.parametrize(
    ("layout", "prefix"),
    [("timm", ""), ("torchvision", ""), ("lukemelas", ""), ("transformers", ""), ("transformers", "efficientnet.")],
)
def test_library_is_detected_by_its_names(tmp_path, layout, prefix):
    state = random_state(tiny())
    checkpoint = read_checkpoint(write_safetensors(tmp_path / "file", as_torch(state, layout, tiny(), prefix)), tiny())
    assert (checkpoint.layout, checkpoint.normalization) == (layout, None)
    assert_same(checkpoint.state, state)


@pytest.mark.parametrize("layout", TORCH_LAYOUTS)
@pytest.mark.parametrize("base", ["backbone.", "backbone_net.model.", "encoder.features."])
def test_network_inside_a_larger_torch_model_is_read(tmp_path, caplog, layout, base):
    state = {name: array for name, array in random_state(tiny()).items() if not name.startswith("predictions")}
    tensors = as_torch(state, layout, tiny(), base + TORCH_LAYOUTS[layout][1])
    outside = {"fc.weight": np.ones((3, 8), "f4"), "bifpn.0.p6.weight": np.ones(3, "f4")}
    checkpoint = read_checkpoint(write_safetensors(tmp_path / "file", tensors | outside), tiny())
    assert checkpoint.layout == layout
    assert_same(checkpoint.state, state)
    assert f"Ignored 2 arrays outside the network {base!r}: bifpn.0.p6.weight, fc.weight." in caplog.messages


def test_padding_modules_of_lukemelas_forks_are_ignored(tmp_path):
    state = random_state(tiny())
    tensors = {
        re.sub(r"(_conv\w*|_se_\w+)\.(weight|bias)$", r"\1.conv.\2", name): array
        for name, array in as_torch(state, "lukemelas", tiny()).items()
    }
    assert "_conv_stem.conv.weight" in tensors
    assert_same(read_checkpoint(write_safetensors(tmp_path / "file", tensors), tiny()).state, state)


@pytest.mark.parametrize("averaged", ["ema_model.module.", "model_ema.", "swa.", "averaged."])
def test_averaged_network_is_read_and_the_other_is_named(tmp_path, caplog, averaged):
    state = random_state(tiny())
    tensors = {
        **as_torch(random_state(tiny(), seed=1), "timm", tiny(), "net."),
        **as_torch(state, "timm", tiny(), averaged),
    }
    assert_same(read_checkpoint(write_safetensors(tmp_path / "file", tensors), tiny()).state, state)
    assert f"outside the network {averaged!r}: net." in caplog.text


def test_network_under_two_names_is_read_once(tmp_path):
    state = random_state(tiny())
    tensors = {**as_torch(state, "timm", tiny(), "net."), **as_torch(state, "timm", tiny(), "model.")}
    assert_same(read_checkpoint(write_safetensors(tmp_path / "file", tensors), tiny()).state, state)


def test_file_with_several_torch_networks_is_rejected(tmp_path):
    states = {"student.": random_state(tiny()), "teacher.": random_state(tiny(), seed=1)}
    tensors = {name: array for base in states for name, array in as_torch(states[base], "timm", tiny(), base).items()}
    with pytest.raises(WeightsError, match=r"contains 2 networks, with the prefixes 'student\.', 'teacher\.'"):
        read_checkpoint(write_safetensors(tmp_path / "file", tensors), tiny())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_all_float_types_in_safetensors_become_float32(tmp_path, dtype):
    kernel = np.linspace(-1, 1, 216).reshape(8, 3, 3, 3).astype(dtype)
    path = write_safetensors(tmp_path / "file", {"conv_stem.weight": kernel, "bn1.weight": np.ones(8, dtype)})
    state = read_checkpoint(path, tiny()).state
    assert state.pop("stem_bn/gamma").tolist() == [1] * 8
    assert_same(state, {"stem_conv/kernel": kernel.astype(np.float32).transpose(2, 3, 1, 0)})


# --- rejected files ---


def test_unknown_layers_are_listed(tmp_path):
    state = random_state(tiny()) | {"block9a_dwconv/kernel": np.ones((3, 3, 8, 1), np.float32)}
    message = r"1 arrays in the file do not belong to tiny.*: block9a_dwconv/block9a_dwconv/kernel:0\. Expected"
    with pytest.raises(WeightsError, match=message):
        read_checkpoint(write_h5(tmp_path / "file", state), tiny())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_error_names_the_variant_of_a_larger_network(tmp_path, layout):
    state = random_state(VARIANTS["b7"])
    if layout == "keras":
        path = write_h5(tmp_path / "file", state)
    else:
        path = write_safetensors(tmp_path / "file", as_torch(state, layout, VARIANTS["b7"]))
    with pytest.raises(WeightsError, match=r"do not belong to b0.*The file has the layers of b7: choose that"):
        read_checkpoint(path, VARIANTS["b0"])


def test_nan_and_infinity_are_rejected(tmp_path):
    for value in (np.nan, np.inf):
        state = random_state(tiny()) | {"stem_bn/gamma": np.full(8, value, np.float32)}
        with pytest.raises(
            WeightsError, match=r"1 of the \d+ arrays in the file are not finite floats: stem_bn/gamma \(float32\)"
        ):
            read_checkpoint(write_h5(tmp_path / "file", state), tiny())


def test_integers_are_rejected(tmp_path):
    state = {"stem_bn/gamma": np.ones(8, np.int64)}
    with pytest.raises(WeightsError, match=r"not finite floats: stem_bn/gamma \(int64\)"):
        read_checkpoint(write_h5(tmp_path / "file", state), tiny())


def test_float64_beyond_the_float32_range_is_rejected(tmp_path):
    with pytest.raises(WeightsError, match="not finite floats"):
        read_checkpoint(write_h5(tmp_path / "file", {"stem_bn/gamma": np.full(8, 1e300)}), tiny())


def test_unknown_format_lists_the_known_ones(tmp_path):
    (tmp_path / "file.h5").write_text("<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(WeightsError, match=r"file\.h5: The file starts with b'<!DOCTYPE.*Expected HDF5"):
        read_checkpoint(tmp_path / "file.h5", tiny())


def test_names_of_an_unknown_library_are_listed(tmp_path):
    with pytest.raises(WeightsError, match=r"of an unknown library: .*fc\.weight.*lukemelas, timm"):
        read_checkpoint(write_safetensors(tmp_path / "file", {"fc.weight": np.ones(3)}), tiny())


def test_kernel_with_wrong_rank_is_rejected(tmp_path):
    with pytest.raises(WeightsError, match=r"kernel of stem_conv has the shape \(8, 27\)\. Expected 4"):
        read_checkpoint(write_safetensors(tmp_path / "file", {"conv_stem.weight": np.ones((8, 27))}), tiny())


def test_a_path_may_be_a_string(tmp_path):
    path = write_h5(tmp_path / "file", {"stem_bn/gamma": np.ones(8, np.float32)})
    assert_same(read_checkpoint(str(path), tiny()).state, {"stem_bn/gamma": np.ones(8, np.float32)})


def test_missing_file_raises_weights_error(tmp_path):
    with pytest.raises(WeightsError, match=r"missing: The file cannot be read \(FileNotFoundError"):
        read_checkpoint(tmp_path / "missing", tiny())
