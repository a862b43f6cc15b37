"""Scores for networks that need neither weights nor photos nor a graph: arithmetic on the block table."""

import math

from keras_effnet.complexity import layers
from keras_effnet.variants import Variant

# arXiv:2303.02165, section 4: the last scale counts eight times, as the classifier sees that one alone.
LAST_SCALE = 8.0


def entropy(variant: Variant) -> float:
    """The upper bound of a network's entropy, summed over its scales (DeepMAD, arXiv:2303.02165, section 4).

    Of the layers up to the end of each scale log(inputs * kernel_size^2 / groups) is summed up, and multiplied with
    log(filters * side^2) of the map there. Squeeze-excite, skips and the classifier do not count: the bound knows
    nothing of them, nor of the photos. It grows with whatever makes a network larger, so it is of use only among
    networks that cost about the same.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> entropy(VARIANTS["b0"]) < entropy(VARIANTS["b1"])
        True
    """
    convolutions = [layer for layer in layers(variant, include_top=False) if layer.norm]
    total = passed = 0.0
    for i, layer in enumerate(convolutions):
        passed += math.log(layer.inputs * layer.kernel_size**2 / layer.groups)
        last = i == len(convolutions) - 1
        if last or convolutions[i + 1].output_size < layer.output_size:
            total += (LAST_SCALE if last else 1.0) * math.log(layer.filters * layer.output_size**2) * passed
    return total
