"""A network as a list of steps, and which of them calculate in 8 bits.

A step is a layer that has an effect in inference. Nested models are replaced by their own steps.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

from keras_effnet._keras import keras
from keras_effnet.inference.fusion import CONVOLUTIONS, IDENTITY
from keras_effnet.inference.layer_graph import LayerGraph, name_of

Value = TypeVar("Value")
IMAGES = "images of the network"
# A convolution with 8-bit outputs can clip at no cost.
CLIPPING = ("relu", "relu6")
SWISH = ("swish", "silu")


@dataclass(frozen=True)
class Arithmetic:
    """How an engine calculates in 8 bits.

    Args:
        fused: the activations that it applies before it rounds the output of a convolution.
        levels: the number of steps of a weight, from 0 to the largest one of its channel.
    """

    fused: tuple[str, ...]
    levels: int


LITERT = Arithmetic(CLIPPING, 127)
# Processors with AVX2 but without VNNI add two products in 16 bits and saturate: 2 x 255 x 64 still fits.
OPENVINO = Arithmetic((*CLIPPING, *SWISH), 64)


@dataclass(frozen=True)
class Step:
    """A layer and its inputs.

    Args:
        name: the name of the layer, prefixed with the names of the models that contain it.
        layer: the Keras layer.
        sources: the names of the steps whose outputs are its inputs, or `IMAGES`.
    """

    name: str
    layer: Any
    sources: tuple[str, ...]


def steps_of(model: Any, source: str = IMAGES, prefix: str = "") -> list[Step]:
    """The steps of a model with one input and one output, in order.

    Raises:
        ValueError: the model is not a graph of layers, or calls a layer twice.

    Example:
        >>> import keras_effnet
        >>> [step.name for step in steps_of(keras_effnet.EfficientNetLite0(weights=None))][:3]
        ['normalization', 'stem_conv', 'stem_bn']
    """
    config = model.get_config()
    if "layers" not in config:
        raise ValueError(
            f"The model {model.name!r} is a {type(model).__name__} without a graph of layers. Expected a functional "
            "or sequential model. Rebuild it with keras.Model(inputs, outputs), or export it without 'int8'."
        )
    _refuse_operations(model, config)
    graph, found = LayerGraph(config), list[Step]()
    outputs: dict[str, str] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        # A sequential model does not name its input.
        sources = [outputs.get(name, source) for name in graph.sources(layer.name)] or [source]
        if isinstance(layer, keras.Model):
            inner = steps_of(layer, sources[0], f"{prefix}{layer.name}/")
            outputs[layer.name] = inner[-1].name if inner else sources[0]
            found += inner
        elif isinstance(layer, IDENTITY):
            outputs[layer.name] = sources[0]
        else:
            outputs[layer.name] = f"{prefix}{layer.name}"
            found.append(Step(outputs[layer.name], layer, tuple(sources)))
    return found


def _refuse_operations(model: Any, config: Mapping[str, Any]) -> None:
    """Refuse operations between the layers, such as `x / 255`: their constants do not belong to any layer."""
    names = {layer.name for layer in model.layers}
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer" and name_of(entry) not in names:
            raise ValueError(
                f"The model {model.name!r} calculates {name_of(entry)!r} ({entry['class_name']}) outside of "
                "its layers. Expected only layers for 'int8'. Use a layer, such as keras.layers.Rescaling for x / 255, "
                "or export without 'int8'."
            )


def call_layer(layer: Any, inputs: Sequence[Any]) -> Any:
    """The output of a layer in inference. Layers for data augmentation augment unless training=False is passed."""
    options = {"training": False} if "training" in signature(layer.call).parameters else {}
    return layer(inputs[0] if len(inputs) == 1 else list(inputs), **options)


def follow(steps: Sequence[Step], images: Value, call: Callable[[Step, list[Value]], Value]) -> Value:
    """Pass values through a network. Each value is dropped after the last step that needs it."""
    last = {source: step.name for step in steps for source in step.sources}
    values = {IMAGES: images}
    for step in steps:
        values[step.name] = call(step, [values[source] for source in step.sources])
        for source in set(step.sources):
            if last[source] == step.name:
                del values[source]
    return values[steps[-1].name]


def is_convolution(layer: Any) -> bool:
    """Whether a layer is a convolution that can run in 8 bits: its output is a feature map, and it clips at most."""
    return (
        type(layer) in CONVOLUTIONS
        and layer.data_format == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "depth_multiplier", 1) == 1
        and layer.use_bias
        and activation_of(layer) in ("linear", *CLIPPING)
        # The convolutions of squeeze-and-excitation are cheap, and their outputs scale whole channels.
        and tuple(layer.output.shape[1:3]) != (1, 1)
    )


def activation_of(layer: Any) -> str:
    """The name of the activation of a layer, "" if it has none."""
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def in_8_bits(steps: Sequence[Step], kept: Collection[str]) -> frozenset[str]:
    """The steps that calculate in 8 bits. The steps in `kept` stay in float32."""
    return frozenset(step.name for step in steps if step.name not in kept and _has_8_bits(step.layer))


def _has_8_bits(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return activation_of(layer) in (*CLIPPING, *SWISH)
    # Only the mean inside squeeze-and-excitation; the one before the classifier stays in float32 with it.
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return bool(layer.keepdims)
    return is_convolution(layer) or type(layer) in (
        keras.layers.Add,
        keras.layers.Multiply,
        keras.layers.ZeroPadding2D,
    )


def rounded_outputs(steps: Sequence[Step], eight: Collection[str], *, fused: Collection[str]) -> frozenset[str]:
    """The steps whose outputs are rounded: the inputs and outputs of 8-bit steps.

    The output of a convolution is not rounded if the engine applies the following activation first.

    Args:
        steps: the network.
        eight: the steps that calculate in 8 bits.
        fused: the activations that the engine applies before it rounds the output of a convolution.
    """
    takers: dict[str, list[Step]] = {}
    for step in steps:
        for source in step.sources:
            takers.setdefault(source, []).append(step)
    given = {source for step in steps if step.name in eight for source in step.sources}
    within = {
        step.name
        for step in steps
        if is_convolution(step.layer)
        and step.name in eight
        and [(taker.name in eight, activation_of(taker.layer) in fused) for taker in takers.get(step.name, ())]
        == [(True, True)]
        and isinstance(takers[step.name][0].layer, keras.layers.Activation)
    }
    return (frozenset(eight) | given) - within
