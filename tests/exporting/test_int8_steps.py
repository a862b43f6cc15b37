"""Quantization in the graph: what is rounded, and what the files of the engines contain."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.exporting.int8_steps import (
    CLIPPING,
    LITERT,
    OPENVINO,
    SWISH,
    in_8_bits,
    is_convolution,
    rounded_outputs,
)
from keras_effnet.inference.fusion import fuse
from keras_effnet.inference.layer_steps import steps_of
from keras_effnet.models import create
from keras_effnet.variants import tiny

tf = pytest.importorskip("tensorflow", reason="TensorFlow, which calibrates networks, is not installed")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="calibration needs TensorFlow")


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.uniform(0, 255, (12, 1, 1, 3)) + rng.normal(0, 60, (12, 32, 32, 3))).clip(0, 255).astype("float32")


@pytest.fixture
def network(spread_scores: Callable[..., Any], images: np.ndarray) -> Any:
    return fuse(spread_scores(create(tiny(), classes=7), images))


def test_a_nested_model_is_replaced_by_its_steps() -> None:
    inner_image = keras.Input((8, 8, 3))
    inner = keras.Model(inner_image, keras.layers.Conv2D(2, 3, name="conv")(inner_image), name="inner")
    image = keras.Input((8, 8, 3))
    x = keras.layers.Dropout(0.5)(inner(keras.layers.Rescaling(2.0, name="scale")(image)))
    x = keras.layers.Flatten(name="flat")(x)
    model = keras.Model(image, keras.layers.Add(name="add")([x, x]))
    steps = {step.name: step.sources for step in steps_of(model)}
    assert list(steps) == ["scale", "inner/conv", "flat", "add"]
    assert steps["inner/conv"] == ("scale",)
    assert steps["flat"] == ("inner/conv",)
    assert steps["add"] == ("flat", "flat")


def test_a_layer_that_is_called_twice_is_refused() -> None:
    image, conv = keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="twice")
    with pytest.raises(ValueError, match=r"'twice' is called 2 times\. Expected"):
        steps_of(keras.Model(image, conv(conv(image))))


def test_operations_outside_of_layers_are_refused() -> None:
    image = keras.Input((8, 8, 3))
    conv = keras.layers.Conv2D(3, 1)
    with pytest.raises(ValueError, match=r"calculates '\w+' \((True)?Divide\) outside of its layers"):
        steps_of(keras.Model(image, conv(image / 255.0)))
    with pytest.raises(ValueError, match=r"calculates '\w+' \(Softmax\)"):
        steps_of(keras.Model(image, keras.ops.softmax(conv(image))))


def test_a_subclassed_model_in_a_graph_is_refused() -> None:
    class Head(keras.Model):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)

        def call(self, inputs: Any) -> Any:
            return inputs

    image = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"The model 'own' is a Head without a graph of layers\. Expected"):
        steps_of(keras.Model(image, Head(name="own")(keras.layers.Conv2D(3, 1)(image))))


def test_augmentation_layers_do_not_change_the_calibration_photos(images: np.ndarray) -> None:
    image = keras.Input((32, 32, 3))
    conv = keras.layers.Conv2D(4, 3, activation="relu", name="conv")
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.5)])
    model = keras.Model(image, conv(keras.Sequential([keras.layers.Dropout(0.9)])(augment(image))))
    from keras_effnet.exporting.tf_int8 import calibrate

    net = calibrate(steps_of(model), images, kept=["conv"], arithmetic=LITERT)
    np.testing.assert_allclose(net.call(images), conv(images), rtol=1e-5, atol=1e-4)
    traced = tf.function(net.call)
    np.testing.assert_allclose(traced(images), conv(images), rtol=1e-5, atol=1e-4)


def test_a_convolution_is_rounded_after_its_fused_activation(network: Any) -> None:
    steps = steps_of(network)
    eight = in_8_bits(steps, ())
    lite, vino = (rounded_outputs(steps, eight, fused=fused) for fused in (CLIPPING, (*CLIPPING, *SWISH)))
    assert {"normalization", "stem_conv", "stem_activation", "block1a_se_excite"} <= lite
    assert lite - vino >= {"stem_conv", "block1a_dwconv", "top_conv"}
    assert "block1a_project_conv" in vino
    assert not {"predictions", "avg_pool", "block1a_se_reduce"} & lite


def test_int8_keeps_the_means_and_nearly_the_scores(network: Any, images: np.ndarray) -> None:
    from keras_effnet.exporting.tf_int8 import calibrate

    net = calibrate(steps_of(network), images, kept=("stem_conv",), arithmetic=LITERT)
    assert "stem_conv" in net.float_layers
    stem = network.get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(net.weights["stem_conv"][0], stem)
    exact, rough = network.predict(images, verbose=0), np.asarray(net.call(images))
    assert 0 < abs(exact - rough).max() < 0.2
    # log(probabilities) differs from the logits by one constant per image.
    shift = np.log(rough) - np.log(exact)
    shift -= shift.mean(axis=1, keepdims=True)
    assert abs(shift.mean(axis=0)).max() < 0.02


def test_the_corrected_bias_keeps_the_mean_of_the_outputs() -> None:
    from keras_effnet.exporting.tf_int8 import calibrate

    rng = np.random.default_rng(2)
    photos = rng.uniform(0, 3, (20, 8, 8, 3)).astype("float32")
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, name="one")(image)
    model = keras.Model(image, keras.layers.DepthwiseConv2D(3, name="two")(x))
    net = calibrate(steps_of(model), photos, kept=(), arithmetic=LITERT)
    exact, rough = model.predict(photos, verbose=0), np.asarray(net.call(photos))
    step = np.ptp(net.ranges["two"]) / 255
    assert np.sqrt(np.square(exact - rough).mean()) < 3 * step
    np.testing.assert_allclose(rough.mean(axis=(0, 1, 2)), exact.mean(axis=(0, 1, 2)), atol=step / 4)


def test_two_openvino_products_fit_in_16_bits() -> None:
    assert 2 * 255 * OPENVINO.levels <= np.iinfo(np.int16).max < 2 * 255 * LITERT.levels


def test_the_first_and_last_convolutions_stay_in_float32(network: Any) -> None:
    from keras_effnet.exporting.tf_convert import _ends

    steps = steps_of(network)
    convolutions = [step.name for step in steps if is_convolution(step.layer)]
    for first, last in ((0.5, 0), (0.5, 1), (1.0, 0), (0.0, 2)):
        kept, cut = _ends(steps, first, last), len(convolutions) - last
        assert {name for name in convolutions if name in kept} == {
            *convolutions[: round(first * len(convolutions))],
            *convolutions[cut:],
        }
    names = [step.name for step in steps]
    assert _ends(steps, 0.0, 1) == ("normalization", *names[names.index("top_conv") :])


@pytest.mark.parametrize("arithmetic", [LITERT, OPENVINO])
@pytest.mark.parametrize("kind", [keras.layers.Conv2D, keras.layers.DepthwiseConv2D])
def test_the_graph_contains_the_rounded_weights(kind: Any, arithmetic: Any) -> None:
    from keras_effnet.exporting.int8_rounding import round_layer
    from keras_effnet.exporting.tf_int8 import Quantized

    rng, depthwise = np.random.default_rng(4), kind is keras.layers.DepthwiseConv2D
    layer = kind(3) if depthwise else kind(5, 3)
    kernel, identity = rng.normal(size=(3, 3, 4, 1 if depthwise else 5)), np.eye(9 if depthwise else 36)
    covariance = np.stack([identity] * 4) if depthwise else identity
    kernel = round_layer(kernel, covariance, levels=arithmetic.levels).astype("float32")
    found = np.asarray(Quantized((), frozenset(), arithmetic, {}, {}).on_its_grid(kernel, layer))
    np.testing.assert_allclose(found, kernel, atol=1e-5)
    tops = abs(kernel).max(axis=(0, 1, 3) if depthwise else (0, 1, 2))
    units = kernel.transpose(0, 1, 3, 2) / tops * arithmetic.levels if depthwise else kernel / tops * arithmetic.levels
    np.testing.assert_allclose(units, units.round(), atol=1e-4)


def test_litert_convolutions_are_in_8_bits_with_one_scale_per_channel(network: Any, images: np.ndarray) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai_edge_litert is not installed")
    from keras_effnet.exporting.tf_convert import litert_candidates

    model, kept = next(litert_candidates(network, 32, images))
    interpreter = litert.Interpreter(model_content=model)
    interpreter.allocate_tensors()
    tensors = {row["index"]: row for row in interpreter.get_tensor_details()}
    convolutions = [op for op in interpreter._get_ops_details() if op["op_name"].endswith("CONV_2D")]
    types = [tensors[op["inputs"][1]]["dtype"] for op in convolutions]
    convs = [layer for layer in network.layers if "conv" in layer.name]
    assert types.count(np.int8) == sum(layer.name not in kept for layer in convs)
    for op, dtype in zip(convolutions, types, strict=True):
        if dtype == np.int8:
            weights = tensors[op["inputs"][1]]
            outputs = weights["shape"][-1 if op["op_name"].startswith("DEPTHWISE") else 0]
            assert len(weights["quantization_parameters"]["scales"]) == outputs


def test_openvino_matches_the_calibrated_network(network: Any, images: np.ndarray) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    from keras_effnet.exporting.tf_convert import to_openvino
    from keras_effnet.exporting.tf_int8 import calibrate

    net = calibrate(steps_of(network), images, kept=(), arithmetic=OPENVINO)
    compiled = openvino.Core().compile_model(to_openvino(net.call, 32), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours, theirs = np.asarray(net.call(images)), compiled(images)[0]
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert np.abs(ours - theirs).mean() < 0.03 < 0.1 * np.ptp(ours)
