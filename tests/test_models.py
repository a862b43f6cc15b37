"""The networks, compared with `keras.applications` at equal weights, and with themselves under other options."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import LEGACY, keras
from keras_effnet.blocks import B0_BLOCKS, BlockArgs, encode_blocks
from keras_effnet.complexity import complexity
from keras_effnet.models import EfficientNet, create
from keras_effnet.normalization import IMAGENET
from keras_effnet.variants import VARIANTS, find_variant, tiny
from keras_effnet.weights.loading import Pretrained, put

builders = pytest.mark.builders

GOLDEN_NAMES = json.loads((Path(__file__).parent / "goldens" / "layer_names.json").read_text())
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def peer(name, **options):
    """A `keras.applications` model with random weights and the normalisation of its published weights."""
    model = getattr(keras.applications, f"EfficientNet{name}")(weights=None, classifier_activation=None, **options)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:  # those of V2 are constants
            layer.set_weights([MEAN, STD**2, np.array(0)])
            layer.finalize_state()
    return model


@pytest.fixture
def pair(randomise, arrays):
    """A model of `keras.applications` and ours, with equal random weights and statistics."""

    def make(name, **options):
        theirs = peer(name, **options)
        randomise(theirs)
        ours = getattr(keras_effnet, f"EfficientNet{name}")(weights=None, classifier_activation=None, **options)
        state = {name: value for name, value in arrays(theirs).items() if not name.startswith("normalization")}
        put(Pretrained(Path("peer"), state, IMAGENET), ours.layers)
        if options.get("include_top", True):
            assert_size_and_names(name, theirs, ours)
        return theirs, ours

    return make


def assert_same(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def assert_size_and_names(name, theirs, ours):
    """The number of parameters is the computed one, and layers with weights have the stored names."""
    variant = find_variant(name)
    assert ours.count_params() == complexity(variant).parameters
    if variant.name in GOLDEN_NAMES:
        for model in (theirs, ours):
            layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.Normalization)]
            assert [layer.name for layer in layers if layer.weights] == GOLDEN_NAMES[variant.name]


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [pytest.param("B0", marks=builders), "B1", "B3", "V2B0", "V2B3", slow("V2S")])
def test_logits_match_keras_applications_at_native_size(name, photo, run, pair):
    theirs, ours = pair(name)
    images = photo(find_variant(name).resolution)
    assert_same(run(ours, images), run(theirs, images))


@pytest.mark.parametrize("name", ["B2", "B4", slow("B5"), slow("B6"), "B7", "V2B1", "V2B2", slow("V2M"), slow("V2L")])
def test_logits_match_keras_applications_at_an_odd_size(name, photo, run, pair):
    theirs, ours = pair(name, input_shape=(75, 101, 3))
    images = photo(101)[:, :75]
    assert_same(run(ours, images), run(theirs, images))


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_features_without_a_classifier_match_keras_applications(pooling, photo, run, pair):
    theirs, ours = pair("B0", include_top=False, pooling=pooling, input_shape=(96, 96, 3))
    assert_same(run(ours, photo(96)), run(theirs, photo(96)))


@builders
def test_layers_with_weights_have_the_names_of_keras_applications():
    """The tests of logits compare those of B0, B7 and V2-B0 with the installed keras.applications too."""
    assert GOLDEN_NAMES.keys() == {"b0", "b7", "v2-b0", "v2-s"}
    for key in ("b0", "v2-b0"):
        model = create(VARIANTS[key])
        assert [layer.name for layer in model.layers if layer.weights] == GOLDEN_NAMES[key]


def test_v2_s_has_the_names_of_keras_applications():
    theirs, ours = peer("V2S"), create(VARIANTS["v2-s"])
    assert_size_and_names("v2-s", theirs, ours)


@pytest.mark.parametrize("key", ["b0", "lite0", "lite4", "v2-s"])
def test_built_models_have_the_computed_number_of_parameters(key):
    model = create(VARIANTS[key])
    cost = complexity(VARIANTS[key])
    assert model.count_params() == cost.parameters
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == cost.trainable


@pytest.mark.parametrize("key", [pytest.param("b1", marks=builders), "b3", "v2-b1"])
def test_an_open_input_shape_gives_the_same_logits_as_a_fixed_one(key, photo, randomise, run):
    static = create(VARIANTS[key], classifier_activation=None)
    randomise(static)
    free = create(VARIANTS[key], classifier_activation=None, input_shape=(None, None, 3))
    free.set_weights(static.get_weights())
    images = photo(VARIANTS[key].resolution)
    assert_same(run(free, images), run(static, images))


def test_a_network_deeper_than_the_recursion_limit_is_built():
    # EfficientNetV2-XL has 1,300 layers.
    deep = replace(tiny(), blocks=(BlockArgs(110, 3, 1, 2, 8),))
    assert len(create(deep).layers) > sys.getrecursionlimit()


def test_b0_built_after_a_larger_network_equals_b0_built_alone():
    alone = create(VARIANTS["b0"])
    create(VARIANTS["b2"])
    again = create(VARIANTS["b0"])
    configs = [[layer.get_config() for layer in model.layers[1:]] for model in (alone, again)]
    assert configs[0] == configs[1]
    assert [w.shape for w in alone.weights] == [w.shape for w in again.weights]


@builders
def test_the_signature_starts_as_in_keras_applications():
    theirs = inspect.signature(keras.applications.EfficientNetB0).parameters.values()
    ours = inspect.signature(keras_effnet.EfficientNetB0).parameters.values()
    shared = [(p.name, p.default) for p in theirs if p.name not in ("name", "kwargs")]
    assert [(p.name, p.default) for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD] == [
        *shared,
        ("name", "efficientnetb0"),
    ]


@builders
def test_the_drop_rates_of_a_built_b0_match_the_formula():
    model = create(VARIANTS["b0"])
    rates = {layer.name: layer.rate for layer in model.layers if layer.name.endswith("_drop")}
    blocks = [f"block{i + 1}{'abcd'[j]}" for i, row in enumerate(B0_BLOCKS) for j in range(row.repeats)]
    expected = {f"{name}_drop": 0.2 * b / 16 for b, name in enumerate(blocks) if not name.endswith("a")}
    assert rates == pytest.approx(expected)


@builders
def test_features_are_the_last_maps_of_each_stride():
    model = keras_effnet.EfficientNetB0(weights=None, features=True, input_shape=(224, 224, 3))
    assert [tuple(shape) for shape in model.output_shape] == [
        (None, 112, 112, 16),
        (None, 56, 56, 24),
        (None, 28, 28, 40),
        (None, 14, 14, 112),
        (None, 7, 7, 320),
    ]
    assert keras_effnet.EfficientNetB0(weights=None, features=True).input_shape == (None, None, None, 3)


@builders
def test_preprocessing_can_be_done_by_the_caller(photo, randomise, run):
    inside = create(tiny(), classifier_activation=None)
    randomise(inside)
    outside = create(tiny(), classifier_activation=None, include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    images = photo(32)
    by_hand = ((images / 255 - MEAN) / STD).astype("float32")
    assert_same(run(outside, by_hand), run(inside, images))


@builders
def test_an_input_tensor_and_the_layers_before_it_become_part_of_the_model(photo, run):
    image = keras.Input((32, 32, 3))
    flipped = keras.layers.Conv2D(3, 1, name="before")(image)
    model = create(tiny(), input_tensor=flipped)
    assert model.get_layer("before").output is not None
    assert run(model, photo(32)).shape == (1, 1000)


@builders
def test_other_numbers_of_channels_and_classes_are_built():
    model = create(tiny(), in_channels=5, classes=7)
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 5), (None, 7))


@builders
@pytest.mark.parametrize(
    ("policy", "depthwise"),
    [("mixed_float16", "float32"), ("mixed_bfloat16", "bfloat16"), ("float32", "float32")],
)
def test_depthwise_convolutions_compute_in_float32_under_mixed_float16(policy, depthwise):
    model = create(tiny(), dtype=policy)
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.BatchNormalization, keras.layers.Activation)
    found = {kind: {layer.compute_dtype for layer in model.layers if type(layer) is kind} for kind in kinds}
    others = policy.removeprefix("mixed_")
    assert list(found.values()) == [{depthwise}, {others}, {others}]


@builders
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_normalisation_and_logits_in_float32(policy, photo, randomise, run):
    full = create(tiny(), classifier_activation=None)
    randomise(full)
    mixed = create(tiny(), classifier_activation=None, dtype=policy)
    mixed.set_weights(full.get_weights())
    assert keras.mixed_precision.global_policy().name == "float32"
    assert mixed.get_layer("stem_conv").compute_dtype == policy.removeprefix("mixed_")
    assert mixed.get_layer("normalization").compute_dtype == "float32"
    result = run(mixed, photo(32))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, run(full, photo(32)), atol=0.05 * np.abs(result).max())


@builders
def test_channels_first_gives_the_same_logits(photo, randomise, run):
    if LEGACY or keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolutions on a CPU")
    last = create(tiny(), classifier_activation=None)
    randomise(last)
    keras.backend.set_image_data_format("channels_first")
    try:
        first = create(tiny(), classifier_activation=None)
        first.set_weights(last.get_weights())
        assert first.input_shape == (None, 3, 32, 32)
        answer = run(first, photo(32).transpose(0, 3, 1, 2))
    finally:
        keras.backend.set_image_data_format("channels_last")
    assert_same(answer, run(last, photo(32)))


@builders
def test_a_saved_model_gives_the_same_scores(tmp_path, photo, randomise, run):
    model = create(tiny(activation="relu6"))
    randomise(model)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(run(again, photo(32)), run(model, photo(32)), rtol=1e-6)


def test_a_saved_model_loads_without_this_package(tmp_path):
    if LEGACY:
        pytest.skip("tested with Keras 3 only, because it starts an interpreter")
    model = create(tiny(activation="relu6"))
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules['keras_effnet'] = None; import keras; "
        f"print(keras.saving.load_model({str(tmp_path / 'model.keras')!r}).count_params())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == str(model.count_params())


@builders
def test_a_stage_can_be_changed_without_touching_the_others():
    deeper = (*B0_BLOCKS[:5], replace(B0_BLOCKS[5], repeats=5), B0_BLOCKS[6])
    model = EfficientNet(1.0, 1.0, 64, blocks=deeper, classes=10)
    assert "block6e_project_conv" in {layer.name for layer in model.layers}
    strings = EfficientNet(1.0, 1.0, 64, blocks=encode_blocks(deeper), classes=10)
    assert strings.count_params() == model.count_params()


@builders
@pytest.mark.parametrize("row", [VARIANTS["lite0"], "lite0", "EfficientNetLite0", "LITE_0"])
def test_a_network_is_built_from_its_row_or_its_name_in_any_spelling(row: Any) -> None:
    model = EfficientNet(row, classes=10)
    expected = keras_effnet.EfficientNetLite0(weights=None, classes=10)
    assert (model.name, model.input_shape, model.count_params()) == (
        *(expected.name, expected.input_shape, expected.count_params()),
    )
    assert [layer.name for layer in model.layers[1:]] == [layer.name for layer in expected.layers[1:]]


@builders
def test_arguments_beside_a_row_change_its_values() -> None:
    row = replace(VARIANTS["b0"], name="my own", resolution=64)
    assert EfficientNet(row, classes=3, name="mine").input_shape == (None, 64, 64, 3)
    model = EfficientNet(row, resolution=96, depth_coefficient=2.0, activation="relu6", dropout_rate=0)
    assert model.input_shape == (None, 96, 96, 3)
    assert "block7b_add" in {layer.name for layer in model.layers}
    assert {"dropout", "top_dropout"}.isdisjoint(layer.name for layer in model.layers)
    with pytest.raises(TypeError, match="needs width_coefficient, depth_coefficient and resolution"):
        EfficientNet(1.0, 1.0)


@builders
def test_kernels_have_the_published_distribution():
    # VarianceScaling(2.0, fan_out): the standard deviation of a 1 x 1 convolution is sqrt(2 / filters).
    kernels = {layer.name: layer.get_weights()[0] for layer in create(VARIANTS["b0"]).layers if layer.weights}
    assert kernels["top_conv"].std() == pytest.approx(np.sqrt(2 / 1280), rel=0.02)
    assert kernels["block7a_dwconv"].std() == pytest.approx(np.sqrt(2 / 9), rel=0.05)
    assert np.abs(kernels["predictions"]).max() == pytest.approx(1 / np.sqrt(1000), rel=0.01)
    assert not np.array_equal(kernels["block6b_expand_conv"], kernels["block6c_expand_conv"])


@builders
@pytest.mark.parametrize("classes", [2, 5, 999, 1001, 10_000])
def test_head_for_other_than_1000_classes_starts_at_the_loss_of_chance(classes):
    model = create(tiny(), classes=classes)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    assert -np.log(model.predict(images, verbose=0)) == pytest.approx(np.full((2, classes), np.log(classes)), rel=0.1)
    assert model.get_layer("predictions").get_weights()[0].any()  # or the first update would not reach the network
    clone = keras.models.clone_model(model)
    assert -np.log(clone.predict(images, verbose=0)[0, 0]) == pytest.approx(np.log(classes), rel=0.1)


@builders
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (16, 16, 3)}, "at least 32 pixels"),
        ({"input_shape": (224, 224)}, "Expected height, width and channels"),
        ({"input_shape": (64, 64, 3), "in_channels": 1}, "in_channels is 1"),
        ({"pooling": "sum"}, "pooling is 'sum'. Expected None, 'avg' or 'max'"),
        ({"classes": 0}, "classes is 0. Expected at least 1"),
        ({"drop_connect_rate": 1.0}, "drop_connect_rate is 1.0. Expected at least 0 and less than 1"),
        ({"dropout_rate": -0.1}, "dropout_rate is -0.1"),
    ],
)
def test_invalid_arguments_are_rejected_with_what_was_expected(options, message):
    with pytest.raises(ValueError, match=message):
        keras_effnet.EfficientNetB0(weights=None, **options)


@builders
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "5"}, "classes is '5'. Expected a whole number"),
        ({"input_shape": 224}, r"input_shape is 224. Expected three numbers. Pass for example \(224, 224, 3\)"),
    ],
)
def test_arguments_of_another_type_are_named(options, message):
    with pytest.raises(TypeError, match=message):
        keras_effnet.EfficientNetB0(weights=None, **options)


@builders
def test_an_array_as_input_tensor_is_rejected():
    with pytest.raises(TypeError, match="Expected a Keras tensor"):
        keras_effnet.EfficientNetB0(weights=None, input_tensor=np.zeros((1, 224, 224, 3)))


@builders
def test_an_unknown_activation_is_rejected():
    with pytest.raises(ValueError, match="activation is 'gelu'. Expected one of relu6, swish"):
        EfficientNet(1.0, 1.0, 64, activation="gelu")
