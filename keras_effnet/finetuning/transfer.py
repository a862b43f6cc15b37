"""Transfer learning: put a new head on a pretrained network, and choose which of its blocks are trained.

Source: arXiv:1905.11946, section 5.3. Batch normalisation stays in inference mode, because the statistics of a few
small batches are worse than ImageNet's.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_effnet._keras import keras
from keras_effnet.errors import Range
from keras_effnet.inference.fusion import fuse
from keras_effnet.introspection import find_network, variant_of
from keras_effnet.network import classify


def replace_head(
    model: Any,
    classes: int,
    *,
    dropout_rate: float | None = None,
    activation: Any = "softmax",
    start: float | Sequence[float] | None = None,
) -> Any:
    """Replace the classifier of a model by a new one. All other layers are shared with the model.

    In the new classifier, all classes start equally likely: the first loss is ln(classes). For a regression, pass
    `activation=None` and the mean of the targets as `start`, so that the first loss is their variance.

    Args:
        model: an EfficientNet, with or without a classifier, alone or nested in another model.
        classes: number of outputs of the new classifier.
        dropout_rate: of the dropout before the classifier; by default the model's own rate.
        activation: of the new classifier; None for logits.
        start: the outputs at the start: one number, or one for each output; only without an activation.

    Raises:
        ValueError: the model is not an EfficientNet or ends in feature maps, or `start` does not fit the outputs.

    Example:
        >>> import keras_effnet
        >>> replace_head(keras_effnet.EfficientNetLite0(weights=None), 5).output_shape
        (None, 5)
    """
    if start is not None and (activation not in (None, "linear") or np.shape(start) not in ((), (classes,))):
        raise ValueError(
            f"start is {start!r} for {classes} outputs with the activation {activation!r}. Expected one number, or one "
            "for each output, and activation=None."
        )
    network = find_network(model)
    last = next((layer for layer in network.layers if layer.name == "top_activation"), None)
    if last is None:
        raise ValueError(
            f"The model {network.name!r} ends in feature maps. Expected a model with the layer 'top_activation', the "
            "input of a classifier. Build it with features=False."
        )
    rate = variant_of(network).dropout_rate if dropout_rate is None else dropout_rate
    outputs = classify(last.output, classes, activation, rate)
    replaced = keras.Model(network.input, outputs, name=network.name)
    if start is not None:
        replaced.get_layer("predictions").bias.assign(np.full(classes, start, np.float32))
    return replaced


def blocks_of(model: Any) -> tuple[str, ...]:
    """The names of the parts of a network, from input to output: "stem", "block1a", ..., "top".

    Raises:
        ValueError: the model is not an EfficientNet.

    Example:
        >>> import keras_effnet
        >>> blocks_of(keras_effnet.EfficientNetLite0(weights=None))[-3:]
        ('block6d', 'block7a', 'top')
    """
    parts = (part_of(layer) for layer in find_network(model).layers)
    return tuple(dict.fromkeys(part for part in parts if part in ("stem", "top") or part.startswith("block")))


def part_of(layer: Any) -> str:
    """The part of the network to which a layer belongs, from its name."""
    return layer.name.split("_")[0]


def first_block(model: Any, stages: int | str) -> str | None:
    """Find the first block to be trained.

    Args:
        model: an EfficientNet.
        stages: number of last stages (rows of the block table) to train, 0 for none; or the name of the first block:
            "block6a", "stem" for the whole network, "top" for the last convolution.

    Returns:
        The name of the block, or None.

    Raises:
        ValueError: the network does not have so many stages, or no block of this name.
    """
    blocks = blocks_of(model)
    # The last convolution counts as part of the last stage; the stem is only trained if it is named.
    firsts = [name for name in blocks if re.fullmatch(r"block\d+a", name)]
    if stages in blocks:
        return str(stages)
    if stages in Range(least=0, most=len(firsts), whole=True):
        return firsts[-int(stages)] if stages else None
    raise ValueError(
        f"The blocks to train are {stages!r}. Expected a number of stages from 0 to {len(firsts)}, or the first block, "
        f"one of {', '.join(blocks)}."
    )


def unfreeze(model: Any, stages: int | str = 3) -> None:
    """Make the head and the last stages of a network trainable, and freeze its other blocks.

    The batch normalisation of the network is always frozen: it uses its moving statistics, also in `fit`. All layers
    outside the network become trainable. Sets `trainable` of all layers of `model` in place, whatever it was before.
    Call `compile` afterwards.

    Args:
        model: an EfficientNet, alone or nested in another model.
        stages: number of last stages (rows of the block table) to train, 0 for only the head; or the name of the first
            block to train: "block6a", "stem" for the whole network.

    Raises:
        ValueError: the model is not an EfficientNet, or does not have so many stages or no block of this name.

    Example:
        >>> import keras_effnet
        >>> model = keras_effnet.EfficientNetLite0(weights=None, classes=5)
        >>> unfreeze(model, "block7a")
        >>> [tuple(variable.shape) for variable in model.trainable_weights][-2:]
        [(1280, 5), (5,)]
    """
    network = find_network(model)
    blocks = blocks_of(network)
    first = first_block(network, stages)
    frozen = set(blocks if first is None else blocks[: blocks.index(first)])
    # A model whose own flag is False has no trainable weights, whatever its layers are.
    model.trainable = True
    for layer in network.layers:
        part = part_of(layer)
        normalizes = part in blocks and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = part not in frozen and not normalizes


def split(model: Any, block: str) -> tuple[Any, Any]:
    """Split a network before a block into two models that share its layers; the second continues from the first.

    Raises:
        ValueError: the model is not an EfficientNet, or has no such block.

    Example:
        >>> import keras_effnet
        >>> trunk, tail = split(keras_effnet.EfficientNetLite0(weights=None), "block5a")
        >>> trunk.output_shape, tail.output_shape
        ((None, 14, 14, 80), (None, 1000))
    """
    network = find_network(model)
    first_block(network, block)
    cut = next(layer.input for layer in network.layers if part_of(layer) == block)
    return keras.Model(network.input, cut, name="trunk"), keras.Model(cut, network.output, name="tail")


class FrozenTrunk(NamedTuple):
    """A network for `fit` and its two parts. If the trunk is None, the tail is the whole network."""

    whole: Any
    trunk: Any
    tail: Any


def with_frozen_trunk(model: Any, block: str, fused: Any = None) -> FrozenTrunk:
    """Replace all layers before a block by a fused, frozen copy: `fit` is faster, and the copy has no dropout.

    The layers from the block on are shared with the model, so training them trains the model.

    Args:
        model: an EfficientNet.
        block: the first block that is not frozen.
        fused: a fused copy of the network with at least all layers before the block; None to make one.

    Raises:
        ValueError: the model is not an EfficientNet, or has no such block.
    """
    if block == "stem":
        network = find_network(model)
        return FrozenTrunk(network, None, network)
    # Keras 3 passes training=True of the outer model on, even to a nested model called with training=False.
    trunk, tail = split(model, block)
    if fused is None:
        frozen = fuse(trunk)
    else:
        cut = next(layer.input for layer in fused.layers if part_of(layer) == block)
        frozen = keras.Model(fused.input, cut, name="trunk")
    frozen.trainable = False
    for layer in frozen.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return FrozenTrunk(keras.Model(frozen.input, tail(frozen.output), name=model.name), frozen, tail)
