"""Tables of the layer names in each library: keras.applications, timm, torchvision, and so on."""

import re
from collections.abc import Collection, Iterator

from keras_effnet.blocks import BlockArgs
from keras_effnet.complexity import layers
from keras_effnet.errors import WeightsError
from keras_effnet.scaling import block_name, is_depthwise
from keras_effnet.variants import VARIANTS, Variant

# One row per layer of stem and head. {head} is the number after torchvision's last stage.
ENDS = (
    # keras.applications  lukemelas      timm           torchvision          transformers
    ("stem_conv",         "_conv_stem",  "conv_stem",   "features.0.0",      "embeddings.convolution"),
    ("stem_bn",           "_bn0",        "bn1",         "features.0.1",      "embeddings.batchnorm"),
    ("top_conv",          "_conv_head",  "conv_head",   "features.{head}.0", "encoder.top_conv"),
    ("top_bn",            "_bn1",        "bn2",         "features.{head}.1", "encoder.top_bn"),
    ("predictions",       "_fc",         "classifier",  "classifier.1",      "classifier"),
)  # fmt: skip

# One row per layer of a block; fused blocks have neither "_dwconv" nor "_bn". torchvision and timm number the layers
# that exist: {i} and {bn} count up. timm names convolutions by their role in the block: {expand} and {project}.
BLOCK = (
    # keras.applications  lukemelas            timm              torchvision      transformers
    ("_expand_conv",      "_expand_conv",      "{expand}",       "block.{i}.0",   "expansion.expand_conv"),
    ("_expand_bn",        "_bn0",              "bn{bn}",         "block.{i}.1",   "expansion.expand_bn"),
    ("_dwconv",           "_depthwise_conv",   "conv_dw",        "block.{i}.0",   "depthwise_conv.depthwise_conv"),
    ("_bn",               "_bn1",              "bn{bn}",         "block.{i}.1",   "depthwise_conv.depthwise_norm"),
    ("_se_reduce",        "_se_reduce",        "se.conv_reduce", "block.{i}.fc1", "squeeze_excite.reduce"),
    ("_se_expand",        "_se_expand",        "se.conv_expand", "block.{i}.fc2", "squeeze_excite.expand"),
    ("_project_conv",     "_project_conv",     "{project}",      "block.{i}.0",   "projection.project_conv"),
    ("_project_bn",       "_bn2",              "bn{bn}",         "block.{i}.1",   "projection.project_bn"),
)  # fmt: skip

# The prefix of a block: {n} counts all blocks from 0, {stage} counts stages from 1, {j} counts within a stage from 0.
PREFIXES = {
    "keras": "{name}",
    "lukemelas": "_blocks.{n}.",
    "timm": "blocks.{stage0}.{j}.",
    "torchvision": "features.{stage}.{j}.",
    "transformers": "encoder.blocks.{n}.",
}
LAYOUTS = tuple(PREFIXES)
# Libraries that have EfficientNetV2, and which of its variants.
V2_LAYOUTS = {"keras": None, "timm": None, "torchvision": ("v2-s", "v2-m", "v2-l")}
# The classes of layers with weights, as in Keras's automatic names.
KINDS = ("conv2d", "depthwise_conv2d", "batch_normalization", "dense")
HEAD = ("top_conv", "top_bn", "predictions")

# How files of each PyTorch library are recognised, and the prefix that names other than the classifier's may have.
TORCH_LAYOUTS = {
    # layout         variable in every file           prefix
    "lukemelas":    ("_conv_stem.weight",             ""),
    "timm":         ("conv_stem.weight",              ""),
    "torchvision":  ("features.0.0.weight",           ""),
    "transformers": ("embeddings.convolution.weight", "efficientnet."),
}  # fmt: skip
# Keras's name of a variable -> PyTorch's.
TORCH_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def layer_names(variant: Variant, layout: str = "keras") -> dict[str, str]:
    """The name of each layer with weights in a library.

    Args:
        variant: the network.
        layout: one of `LAYOUTS`; "keras" is keras.applications.

    Returns:
        Name in that library -> name in keras.applications, in network order.

    Raises:
        WeightsError: the library does not have the network.

    Example:
        >>> layer_names(VARIANTS["b0"], "timm")["blocks.1.0.conv_pwl"]
        'block2a_project_conv'
    """
    if not has_network(layout, variant):
        raise WeightsError(
            f"{layout} does not have {variant.name}. Expected one of {', '.join(V2_LAYOUTS)} for EfficientNetV2 "
            "(torchvision: S, M and L)."
        )
    column = LAYOUTS.index(layout)
    stages = variant.stages
    ends = {row[column].format(head=len(stages) + 1): row[0] for row in ENDS}
    stem, head = dict(list(ends.items())[:2]), dict(list(ends.items())[2:])
    return stem | dict(_blocks(variant, layout, column)) | head


def has_network(layout: str, variant: Variant) -> bool:
    """Whether a library has a network: not all of them have EfficientNetV2."""
    if not variant.fused:
        return True
    return layout in V2_LAYOUTS and variant.name in (V2_LAYOUTS[layout] or (variant.name,))


def _blocks(variant: Variant, layout: str, column: int) -> Iterator[tuple[str, str]]:
    n = 0
    for stage, args in enumerate(variant.stages, start=1):
        expand, project = _timm_names(args)
        for j in range(args.repeats):
            name = block_name(stage, j)
            prefix = PREFIXES[layout].format(name=name, n=n, stage=stage, stage0=stage - 1, j=j)
            i, bn = -1, 0
            for row in _rows(args):
                i += row[0] in ("_expand_conv", "_dwconv", "_se_reduce", "_project_conv")
                bn += row[0].endswith("_bn")
                ours = f"_{variant.depthwise}" if row[0] == "_dwconv" else row[0]
                theirs = ours if layout == "keras" else row[column]
                yield prefix + theirs.format(i=i, bn=bn, expand=expand, project=project), name + ours
            n += 1


def _timm_names(args: BlockArgs) -> tuple[str, str]:
    """timm's names of the convolutions that expand and project."""
    if args.conv_type == "fused":
        return "conv_exp", "conv_pwl" if args.expand_ratio > 1 else "conv"
    return "conv_pw", "conv_pwl" if args.expand_ratio > 1 else "conv_pw"


def _rows(args: BlockArgs) -> list[tuple[str, ...]]:
    return [
        row
        for row in BLOCK
        if not (row[0].startswith("_expand") and args.expand_ratio == 1)
        and not (row[0].startswith("_se") and not args.se_ratio)
        and not (row[0] in ("_dwconv", "_bn") and args.conv_type == "fused")
    ]


def kind_of(layer: str) -> str:
    """The class of a layer in Keras's automatic names: one of `KINDS`."""
    if layer.endswith("bn"):
        return "batch_normalization"
    if is_depthwise(layer):
        return "depthwise_conv2d"
    return "dense" if layer == "predictions" else "conv2d"


def variables(layer: str) -> tuple[str, ...]:
    """The variables of a layer, given its name in keras.applications, in Keras's order.

    Example:
        >>> variables("block1a_se_reduce")
        ('kernel', 'bias')
    """
    if layer.endswith("bn"):
        return "gamma", "beta", "moving_mean", "moving_variance"
    if "_se_" in layer or layer == "predictions":
        return "kernel", "bias"
    return ("kernel",)


def from_torch(layer: str, torch_variable: str) -> str | None:
    """Keras's name of a PyTorch variable, None if the layer has no such variable.

    Example:
        >>> from_torch("stem_bn", "weight"), from_torch("stem_conv", "weight")
        ('gamma', 'kernel')
    """
    return next((name for name in variables(layer) if TORCH_VARIABLES[name] == torch_variable), None)


def torch_axes(layer: str) -> tuple[int, ...]:
    """The axes of a Keras kernel in the order in which PyTorch stores them.

    Keras stores (height, width, in, out) and, for depthwise kernels, (height, width, in, 1); PyTorch stores
    (out, in, height, width) and (in, 1, height, width).

    Example:
        >>> torch_axes("stem_conv"), torch_axes("predictions")
        ((3, 2, 0, 1), (1, 0))
    """
    if layer == "predictions":
        return 1, 0
    return (2, 3, 0, 1) if is_depthwise(layer) else (3, 2, 0, 1)


def shapes(variant: Variant, classes: int = 1000) -> dict[str, tuple[int, ...]]:
    """The shape of every variable of a network, computed without building it.

    Args:
        variant: the network.
        classes: outputs of the classifier.

    Returns:
        "layer/variable" -> shape, with the axes of Keras.

    Example:
        >>> shapes(VARIANTS["b0"])["stem_conv/kernel"]
        (3, 3, 3, 32)
    """
    found: dict[str, tuple[int, ...]] = {}
    for layer in layers(variant, classes=classes):
        side = layer.kernel_size
        if layer.name == "predictions":
            found["predictions/kernel"] = (layer.inputs, layer.filters)
        else:
            channels = (layer.filters, 1) if layer.groups > 1 else (layer.inputs, layer.filters)
            found[f"{layer.name}/kernel"] = (side, side, *channels)
        if layer.bias:
            found[f"{layer.name}/bias"] = (layer.filters,)
        if layer.norm:
            norm = re.sub("(dwconv2?|conv)$", "bn", layer.name)
            found |= {f"{norm}/{name}": (layer.filters,) for name in variables(norm)}
    return found


def unknown_names(unknown: Collection[str], layers: Collection[str], variant: Variant, layout: str) -> str:
    """The error message for a file with names that a network does not have.

    Args:
        unknown: these names, as in the file.
        layers: all layers in the file, as in the file.
        variant: the network.
        layout: one of `LAYOUTS`.
    """
    like = " or ".join(_matching_variants(layers, layout))
    return (
        f"{len(unknown)} arrays in the file do not belong to {variant.name} with the names of {layout}: "
        f"{', '.join(sorted(unknown)[:5])[:500]}{', ...' if len(unknown) > 5 else ''}. Expected only the layers of "
        f"{variant.name}. "
        + (
            f"The file has the layers of {like}: choose that variant."
            if like
            else "Choose the variant of the file; if the network is part of a larger model, save the network alone."
        )
    )


def _matching_variants(layers: Collection[str], layout: str) -> list[str]:
    """The published networks with exactly these layers, ignoring the head."""
    found = []
    for variant in (row for row in VARIANTS.values() if has_network(layout, row)):
        names = layer_names(variant, layout)
        head = {theirs for theirs, ours in names.items() if ours in HEAD}
        if set(layers) - head == set(names) - head:
            found.append(variant.name)
    return found
