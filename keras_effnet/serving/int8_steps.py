"""A network as steps, and which of its numbers are kept in 8 bits.

A step is a layer that does something in inference; models within the model are taken apart into theirs.
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
# Clipping is part of a convolution that writes 8 bits.
CLIPPING = ("relu", "relu6")
SWISH = ("swish", "silu")


@dataclass(frozen=True)
class Arithmetic:
    """How an engine calculates in 8 bits.

    Args:
        fused: the activations that it applies before a convolution's output is rounded.
        levels: of a weight, from 0 to the largest of its channel.
    """

    fused: tuple[str, ...]
    levels: int


LITERT = Arithmetic(CLIPPING, 127)
# Processors with AVX2 and no VNNI add two products in 16 bits, and cut off what is more: 2 x 255 x 64 still fits.
OPENVINO = Arithmetic((*CLIPPING, *SWISH), 64)


@dataclass(frozen=True)
class Step:
    """A layer, called on the outputs of others.

    Args:
        name: of the layer, after those of the models that it is in.
        layer: from Keras.
        sources: the names of the steps whose outputs it takes, or `IMAGES`.
    """

    name: str
    layer: Any
    sources: tuple[str, ...]


def steps_of(model: Any, source: str = IMAGES, prefix: str = "") -> list[Step]:
    """What a model does, in order, from its one input to its one output.

    Raises:
        ValueError: it is no graph of layers alone, or calls one of them twice.

    Example:
        >>> import keras_effnet
        >>> [step.name for step in steps_of(keras_effnet.EfficientNetLite0(weights=None))][:3]
        ['normalization', 'stem_conv', 'stem_bn']
    """
    config = model.get_config()
    if "layers" not in config:
        raise ValueError(
            f"The model {model.name!r} is a {type(model).__name__} without a graph of layers. Expected a functional "
            "or sequential model. Wrap it in keras.Model(inputs, outputs), or export it without 'int8'."
        )
    _refuse_operations(model, config)
    graph, found = LayerGraph(config), list[Step]()
    outputs: dict[str, str] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        # A sequential model names no input.
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
    """Refuse what is calculated between the layers, as in `x / 255`: the layers do not know its numbers."""
    names = {layer.name for layer in model.layers}
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer" and name_of(entry) not in names:
            raise ValueError(
                f"The model {model.name!r} calculates {name_of(entry)!r} ({entry['class_name']}) outside of "
                "its layers. Expected layers alone for 'int8'. Take a layer for it, as keras.layers.Rescaling for "
                "x / 255, or export without 'int8'."
            )


def call_layer(layer: Any, inputs: Sequence[Any]) -> Any:
    """What a layer gives in inference; those that augment photos are in training unless they are told."""
    options = {"training": False} if "training" in signature(layer.call).parameters else {}
    return layer(inputs[0] if len(inputs) == 1 else list(inputs), **options)


def follow(steps: Sequence[Step], images: Value, call: Callable[[Step, list[Value]], Value]) -> Value:
    """Take something through a network; nothing is kept longer than until its last taker has had it."""
    last = {source: step.name for step in steps for source in step.sources}
    values = {IMAGES: images}
    for step in steps:
        values[step.name] = call(step, [values[source] for source in step.sources])
        for source in set(step.sources):
            if last[source] == step.name:
                del values[source]
    return values[steps[-1].name]


def is_convolution(layer: Any) -> bool:
    """Whether a layer can multiply 8 bits: what it makes is a map, and it clips at most."""
    return (
        type(layer) in CONVOLUTIONS
        and layer.data_format == "channels_last"
        and getattr(layer, "groups", 1) == 1
        and getattr(layer, "depth_multiplier", 1) == 1
        and layer.use_bias
        and activation_of(layer) in ("linear", *CLIPPING)
        # Those of squeeze and excitation cost nothing, and weigh whole channels.
        and tuple(layer.output.shape[1:3]) != (1, 1)
    )


def activation_of(layer: Any) -> str:
    """The name of the activation that a layer applies; nothing if it has none."""
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))


def in_8_bits(steps: Sequence[Step], kept: Collection[str]) -> frozenset[str]:
    """The steps that calculate in 8 bits, but for those to be kept in float32."""
    return frozenset(step.name for step in steps if step.name not in kept and _has_8_bits(step.layer))


def _has_8_bits(layer: Any) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return activation_of(layer) in (*CLIPPING, *SWISH)
    # The mean over a map that weighs its channels; the one before a classifier stays, as the classifier does.
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return bool(layer.keepdims)
    return is_convolution(layer) or type(layer) in (
        keras.layers.Add,
        keras.layers.Multiply,
        keras.layers.ZeroPadding2D,
    )


def rounded_outputs(steps: Sequence[Step], eight: Collection[str], *, fused: Collection[str]) -> frozenset[str]:
    """The steps whose outputs are rounded: all that 8-bit steps take and give, but what is within a convolution.

    Args:
        eight: the steps that calculate in 8 bits.
        fused: the activations that an engine applies before a convolution's output is rounded.
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
