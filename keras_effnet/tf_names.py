"""What the official TensorFlow checkpoints call the variables of a network (tensorflow/tpu, models/efficientnet)."""

from keras_effnet.layer_names import layer_names, variables
from keras_effnet.scaling import block_name
from keras_effnet.variants import Variant

EMA = "/ExponentialMovingAverage"
NORM = "tpu_batch_normalization"
ENDS = {
    "stem_conv": "stem/conv2d",
    "stem_bn": f"stem/{NORM}",
    "top_conv": "head/conv2d",
    "top_bn": f"head/{NORM}",
    "predictions": "head/dense",
}
# TensorFlow numbers the layers of a block that have no names of their own in the order in which they were made.
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
    """ "layer/variable" -> its name in a checkpoint, without the model's name that all of them begin with.

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
            if block + suffix in known:
                number = counts[kind] = counts.get(kind, -1) + 1
                layers[block + suffix] = f"blocks_{n}/{kind}" + (f"_{number}" if number else "")
    return {
        f"{layer}/{name}": f"{place}/{'depthwise_' if layer.endswith('dwconv') else ''}{name}"
        for layer, place in layers.items()
        for name in variables(layer)
    }
