"""Reads the official TensorFlow checkpoints by the names of their variables, with moving averages if they have them."""

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.scaling import block_name, is_depthwise
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.checkpoint_bundle import Bundle
from keras_effnet.weights.formats.layer_names import layer_names, variables

STEM = "/stem/conv2d/kernel"
# Optimizer slots that may be in a checkpoint; they are ignored.
SLOTS = ("RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")


def read_google(bundle: Bundle, variant: Variant, *, ema: bool = True) -> dict[str, np.ndarray]:
    """Read the weights of a network from an official checkpoint.

    Args:
        bundle: the checkpoint.
        variant: the network.
        ema: read the exponential moving averages, to which the published accuracies refer, instead of the weights.

    Returns:
        "layer/variable" -> array, with the names of keras.applications; possibly read-only views of the file.

    Raises:
        WeightsError: the checkpoint is of another network. Damage may also raise errors of the standard library.
    """
    models = [name.removesuffix(STEM) for name in bundle.entries if name.endswith(STEM)]
    if len(models) != 1:
        raise WeightsError(
            f"The checkpoint has {len(models)} variables that end in {STEM!r}. Expected one network, as in "
            "'efficientnet-b0/stem/conv2d/kernel'. Pass a checkpoint of the official EfficientNet."
        )
    names = {ours: f"{models[0]}/{theirs}" for ours, theirs in tf_names(variant).items()}
    averaged = any(name.endswith(EMA) for name in bundle.entries)
    suffix = EMA if ema and averaged else ""
    state = {ours: bundle.read(name + suffix) for ours, name in names.items() if name + suffix in bundle.entries}
    known = {name + end for name in names.values() for end in ("", EMA, *(f"/{slot}" for slot in SLOTS))}
    unknown = [name for name in bundle.entries if name.startswith(f"{models[0]}/") and name not in known]
    if unknown:
        raise WeightsError(
            f"The checkpoint has {len(unknown)} variables that {variant.name} does not have: {', '.join(unknown[:5])}. "
            f"Expected the variables of {variant.name}. Choose the variant of the checkpoint."
        )
    return state


EMA = "/ExponentialMovingAverage"
NORM = "tpu_batch_normalization"
ENDS = {
    "stem_conv": "stem/conv2d",
    "stem_bn": f"stem/{NORM}",
    "top_conv": "head/conv2d",
    "top_bn": f"head/{NORM}",
    "predictions": "head/dense",
}
# TensorFlow numbers the unnamed layers of a block in the order of their creation.
BLOCK = (
    ("_expand_conv", "conv2d"),
    ("_expand_bn", NORM),
    ("_dwconv", "depthwise_conv2d"),
    ("_bn", NORM),
    ("_se_reduce", "se/conv2d"),
    ("_se_expand", "se/conv2d"),
    ("_project_conv", "conv2d"),
    ("_project_bn", NORM),
)


def tf_names(variant: Variant) -> dict[str, str]:
    """ "layer/variable" -> name in a checkpoint, without the prefix of the model's name.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> tf_names(VARIANTS["b0"])["block1a_project_conv/kernel"]
        'blocks_0/conv2d/kernel'
    """
    known = set(layer_names(variant).values())
    layers = dict(ENDS)
    blocks = [block_name(i, j) for i, row in enumerate(variant.stages, start=1) for j in range(row.repeats)]
    for n, block in enumerate(blocks):
        counts: dict[str, int] = {}
        for suffix, kind in BLOCK:
            layer = f"{block}_{variant.depthwise}" if suffix == "_dwconv" else block + suffix
            if layer in known:
                number = counts[kind] = counts.get(kind, -1) + 1
                layers[layer] = f"blocks_{n}/{kind}" + (f"_{number}" if number else "")
    return {
        f"{layer}/{name}": f"{place}/{'depthwise_' if is_depthwise(layer) else ''}{name}"
        for layer, place in layers.items()
        for name in variables(layer)
    }
