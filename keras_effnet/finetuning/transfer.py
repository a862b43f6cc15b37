"""A pretrained network for a task of one's own: a new head, and as much of the network trained as is wanted.

Source: arXiv:1905.11946, section 5.3, for the task; batch normalisation stays in inference mode, since the statistics
of a few small batches are worse than those of ImageNet.
"""

import re
from typing import Any, NamedTuple

from keras_effnet._keras import keras
from keras_effnet.errors import Range
from keras_effnet.inference.fusion import fuse
from keras_effnet.introspection import find_network, variant_of
from keras_effnet.layers import Conventions
from keras_effnet.network import classify


def replace_head(model: Any, classes: int, *, dropout_rate: float | None = None, activation: Any = "softmax") -> Any:
    """Put a new, random classifier on the network of a model, which shares all other layers with it.

    Args:
        model: an EfficientNet, with or without a classifier, alone or nested in another model.
        classes: outputs of the new classifier.
        dropout_rate: rate of the dropout before it; by default the one that the model has.
        activation: of the new classifier; None for logits.

    Raises:
        ValueError: no EfficientNet, or one that ends in feature maps.

    Example:
        >>> import keras_effnet
        >>> replace_head(keras_effnet.EfficientNetLite0(weights=None), 5).output_shape
        (None, 5)
    """
    network = find_network(model)
    last = next((layer for layer in network.layers if layer.name == "top_activation"), None)
    if last is None:
        raise ValueError(
            f"The model {network.name!r} ends in feature maps. Expected one with the layer 'top_activation', on which "
            "a classifier can stand. Build it with features=False."
        )
    rate = variant_of(network).dropout_rate if dropout_rate is None else dropout_rate
    outputs = classify(last.output, classes, activation, rate, Conventions())
    return keras.Model(network.input, outputs, name=network.name)


def blocks_of(model: Any) -> tuple[str, ...]:
    """The parts of a network from the input on: "stem", "block1a", ..., "top".

    Raises:
        ValueError: no EfficientNet.

    Example:
        >>> import keras_effnet
        >>> blocks_of(keras_effnet.EfficientNetLite0(weights=None))[-3:]
        ('block6d', 'block7a', 'top')
    """
    parts = (part_of(layer) for layer in find_network(model).layers)
    return tuple(dict.fromkeys(part for part in parts if part in ("stem", "top") or part.startswith("block")))


def part_of(layer: Any) -> str:
    """The part of the network that a layer belongs to, by its name."""
    return layer.name.split("_")[0]


def first_block(model: Any, stages: int | str) -> str | None:
    """The first of the blocks that are trained.

    Args:
        model: an EfficientNet.
        stages: how many of the last rows of the block table are trained, 0 for none of the network; or the name of the
            first block: "block6a", "stem" for the whole network, "top" for the last convolution.

    Returns:
        The name of the block, None for none.

    Raises:
        ValueError: a number or a name that the network does not have.
    """
    blocks = blocks_of(model)
    # The last convolution belongs to the last row, the stem to all rows.
    firsts = [name for name in blocks if re.fullmatch(r"block\d+a", name)]
    if stages in blocks:
        return str(stages)
    if stages in Range(least=0, most=len(firsts), whole=True):
        return firsts[-int(stages)] if stages else None
    raise ValueError(
        f"The blocks to train are given as {stages!r}. Expected a number of stages from 0 to {len(firsts)}, or the "
        f"first block, one of {', '.join(blocks)}. Choose one of these."
    )


def unfreeze(model: Any, stages: int | str = 3) -> None:
    """Let the head and the last stages of a network be trained and nothing else; batch normalisation stays frozen.

    Frozen batch normalisation works with its moving statistics, also in `fit`. Call `compile` afterwards.

    Args:
        model: an EfficientNet, alone or nested in another model.
        stages: how many of the last rows of the block table are trained, 0 for the head alone; or the name of the first
            block that is: "block6a", "stem" for the whole network.

    Raises:
        ValueError: no EfficientNet, or a number or a name that it does not have.

    Example:
        >>> import keras_effnet
        >>> model = keras_effnet.EfficientNetLite0(weights=None, classes=5)
        >>> unfreeze(model, "block7a")
        >>> [variable.shape for variable in model.trainable_weights][-2:]
        [(1280, 5), (5,)]
    """
    network = find_network(model)
    blocks = blocks_of(network)
    first = first_block(network, stages)
    frozen = set(blocks if first is None else blocks[: blocks.index(first)])
    for layer in network.layers:
        layer.trainable = part_of(layer) not in frozen and not isinstance(layer, keras.layers.BatchNormalization)


def split(model: Any, block: str) -> tuple[Any, Any]:
    """Cut a network before a block: two models that share its layers, of which the second takes the first's output.

    Raises:
        ValueError: no EfficientNet, or no such block.

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
    """A network for `fit`, and the two models that it is made of; without a trunk, all of it is the tail."""

    whole: Any
    trunk: Any
    tail: Any


def with_frozen_trunk(model: Any, block: str) -> FrozenTrunk:
    """The same network for `fit`, with the inference twin of all before a block: faster, and with no dropout.

    The layers from the block on are the network's own; those of the twin cannot be trained.

    Raises:
        ValueError: no EfficientNet, or no such block.
    """
    if block == "stem":
        network = find_network(model)
        return FrozenTrunk(network, None, network)
    # Keras 3 hands `training` of the outer model down even where a nested one is called with training=False.
    trunk, tail = split(model, block)
    twin = fuse(trunk)
    twin.trainable = False
    for layer in twin.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return FrozenTrunk(keras.Model(twin.input, tail(twin.output), name=model.name), twin, tail)
