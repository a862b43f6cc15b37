"""From a model back to its table: find a saved, fine-tuned or nested EfficientNet and read its settings."""

import re
from collections.abc import Mapping
from typing import Any

from keras_effnet.blocks import BlockArgs
from keras_effnet.normalization import PYTORCH, TENSORFLOW, Framework, Normalization
from keras_effnet.scaling import block_name
from keras_effnet.variants import VARIANTS, Variant, published_crop


def find_network(model: Any) -> Any:
    """Find the EfficientNet in a model: the model itself, or a model nested in it.

    Raises:
        ValueError: there is none, or its layers were renamed.
    """
    found = _search(model)
    if found is None:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} has no layer 'stem_conv'. Expected an EfficientNet of this "
            "package or of keras.applications, possibly nested in another model. Build it with one of the builders."
        )
    return found


def _search(model: Any) -> Any:
    layers = getattr(model, "layers", ())
    if any(layer.name == "stem_conv" for layer in layers):
        return model
    return next((found for layer in layers if (found := _search(layer)) is not None), None)


def variant_of(model: Any) -> Variant:
    """Return the table of a model after scaling, or the row of `VARIANTS` if it is a published network.

    Raises:
        ValueError: the model does not contain an EfficientNet.
    """
    layers = {layer.name: layer for layer in find_network(model).layers}
    blocks: list[BlockArgs] = []
    inputs = layers["stem_conv"].filters
    while f"{block_name(len(blocks) + 1, 0)}_project_conv" in layers:
        blocks.append(_row(layers, len(blocks) + 1, inputs))
        inputs = blocks[-1].filters
    found = Variant(
        model.name,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        resolution=layers["stem_conv"].input.shape[1] or 224,
        dropout_rate=layers["top_dropout"].rate if "top_dropout" in layers else 0.0,
        blocks=tuple(blocks),
        activation=re.sub("silu", "swish", layers["stem_activation"].activation.__name__),
        fix_ends=True,
        stem_filters=layers["stem_conv"].filters,
        head_filters=layers["top_conv"].filters if "top_conv" in layers else 1280,
        bn_momentum=layers["stem_bn"].momentum if "stem_bn" in layers else 0.99,
        depthwise=_depthwise(layers),
    )
    return next((row for row in VARIANTS.values() if _same(row, found)), found)


def _row(layers: Mapping[str, Any], stage: int, inputs: int) -> BlockArgs:
    repeats = 1
    while f"{block_name(stage, repeats)}_project_conv" in layers:
        repeats += 1
    first = block_name(stage, 0)
    depthwise, reduce = layers.get(f"{first}_{_depthwise(layers)}"), layers.get(f"{first}_se_reduce")
    expand, project = layers.get(f"{first}_expand_conv"), layers[f"{first}_project_conv"]
    spatial = depthwise or expand or project
    return BlockArgs(
        repeats=repeats,
        kernel_size=spatial.kernel_size[0],
        strides=spatial.strides[0],
        expand_ratio=expand.filters // inputs if expand else 1,
        filters=project.filters,
        se_ratio=reduce.filters / inputs if reduce else 0.0,
        conv_type="depthwise" if depthwise else "fused",
    )


def _depthwise(layers: Mapping[str, Any]) -> str:
    """The name of the depthwise layers of a model."""
    return "dwconv2" if any(name.endswith("_dwconv2") for name in layers) else "dwconv"


def _same(row: Variant, found: Variant) -> bool:
    shapes = [
        [(b.repeats, b.kernel_size, b.expand_ratio, b.filters, b.conv_type) for b in v.stages] for v in (row, found)
    ]
    return shapes[0] == shapes[1] and row.stem == found.stem and row.activation == found.activation


def framework_of_model(model: Any) -> Framework:
    """Return the padding and the batch-norm epsilon of a model.

    Raises:
        ValueError: the model does not contain an EfficientNet, or its batch normalisation was folded.
    """
    layers = _unfused_layers(model)
    pads = [side for name, layer in layers.items() if name.endswith("conv_pad") for side in layer.padding]
    kind = PYTORCH if pads and all(before == after for before, after in pads) else TENSORFLOW
    return Framework(kind.name, kind.padding, layers["stem_bn"].epsilon)


def normalization_of(model: Any) -> Normalization | None:
    """Return the normalisation constants inside a model, or None if it does not normalise its pixels.

    Raises:
        ValueError: the model does not contain an EfficientNet, or its normalisation was folded.
    """
    layer = _unfused_layers(model).get("normalization")
    if layer is None:
        return None
    scale, offset = (_flat(value) for value in (layer.scale, layer.offset))
    std = [1.0 / value for value in scale]
    return Normalization(tuple(-o * s for o, s in zip(offset, std, strict=True)), tuple(std))


def crop_of(model: Any) -> str | None:
    """Return the part of a photo that a model is meant for, as `View.crop`; "center" for models that are not ours.

    Example:
        >>> crop_of(None)
        'center'
    """
    try:
        variant = variant_of(model)
    except (AttributeError, ValueError):
        return "center"
    try:
        normalization = normalization_of(model)
    except ValueError:  # it was folded
        normalization = None
    return published_crop(variant, normalization, model.output_shape[-1])


def _unfused_layers(model: Any) -> dict[str, Any]:
    layers = {layer.name: layer for layer in find_network(model).layers}
    if "stem_bn" not in layers:
        raise ValueError(
            f"The model {getattr(model, 'name', model)!r} is fused: its normalisation is folded into the "
            "convolutions. Expected the original model. Load or save the weights of that one, and fuse it again."
        )
    return layers


def _flat(values: Any) -> list[float]:
    # With channels first, each constant is a nested list [[value]].
    return [float(v[0][0]) if isinstance(v, list | tuple) else float(v) for v in values]
