"""A model as a list of steps: its layers in order, each with the steps whose outputs it receives.

A step is a layer that has an effect in inference. Nested models are replaced by their own steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, TypeVar

from keras_effnet._keras import keras
from keras_effnet.inference.fusion import IDENTITY
from keras_effnet.inference.layer_graph import LayerGraph, name_of

Value = TypeVar("Value")
IMAGES = "images of the network"


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


def steps_of(model: Any) -> list[Step]:
    """The steps of a model with one input and one output, in order.

    Raises:
        ValueError: the model is not a graph of layers, or calls a layer twice.

    Example:
        >>> import keras_effnet
        >>> [step.name for step in steps_of(keras_effnet.EfficientNetLite0(weights=None))][:3]
        ['normalization', 'stem_conv', 'stem_bn']
    """
    return steps_and_outputs(model)[0]


def steps_and_outputs(model: Any, source: str = IMAGES, prefix: str = "") -> tuple[list[Step], list[str]]:
    """The steps of a model with one input, in order, and the steps that are its outputs.

    Args:
        model: a functional or sequential Keras model.
        source: the step whose output the model receives.
        prefix: what the names of the steps start with.

    Raises:
        ValueError: the model is not a graph of layers, or calls a layer twice.
    """
    config = model.get_config()
    if "layers" not in config:
        raise ValueError(
            f"The model {model.name!r} is a {type(model).__name__} without a graph of layers. Expected a functional "
            "or sequential model. Rebuild it with keras.Model(inputs, outputs)."
        )
    _refuse_operations(model, config)
    graph, found = LayerGraph(config), list[Step]()
    outputs: dict[str, str] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            outputs[layer.name] = source
            continue
        # A sequential model does not name its input.
        sources = [outputs.get(name, source) for name in graph.sources(layer.name)] or [source]
        if isinstance(layer, keras.Model):
            inner, (outputs[layer.name],) = steps_and_outputs(layer, sources[0], f"{prefix}{layer.name}/")
            found += inner
        elif isinstance(layer, IDENTITY):
            outputs[layer.name] = sources[0]
        else:
            outputs[layer.name] = f"{prefix}{layer.name}"
            found.append(Step(outputs[layer.name], layer, tuple(sources)))
    return found, [outputs.get(name, source) for name in graph.outputs]


def _refuse_operations(model: Any, config: Mapping[str, Any]) -> None:
    """Refuse operations between the layers, such as `x / 255`: their constants do not belong to any layer."""
    names = {layer.name for layer in model.layers}
    for entry in config["layers"]:
        if entry["class_name"] != "InputLayer" and name_of(entry) not in names:
            raise ValueError(
                f"The model {model.name!r} calculates {name_of(entry)!r} ({entry['class_name']}) outside of "
                "its layers. Expected only layers. Use a layer, such as keras.layers.Rescaling for x / 255."
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


def activation_of(layer: Any) -> str:
    """The name of the activation of a layer, "" if it has none."""
    return str(getattr(getattr(layer, "activation", None), "__name__", ""))
