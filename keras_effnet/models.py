"""The builders: `EfficientNetB0` and its relatives, and `EfficientNet` for your own tables (arXiv:1905.11946)."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, Unpack, cast

from keras_effnet._keras import deep_graphs, dtype_policy, keras
from keras_effnet.blocks import BlockArgs, decode_blocks
from keras_effnet.builder_signature import Builder, BuilderV2, Options
from keras_effnet.forks import check_fork
from keras_effnet.layers import Conventions, restore_initializers
from keras_effnet.network import build, image_input
from keras_effnet.normalization import Normalization, find_framework
from keras_effnet.variants import VARIANTS, Variant, as_variant
from keras_effnet.weights import loading as weight_sets


def create(
    variant: Variant,
    include_top: bool = True,
    weights: Any = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = "softmax",
    name: str = "efficientnet",
    *,
    include_preprocessing: bool = True,
    dropout_rate: float | None = None,
    drop_connect_rate: float = 0.2,
    in_channels: int | None = None,
    features: bool = False,
    dtype: Any = None,
    framework: str | None = None,
) -> keras.Model:
    """Build the model of a variant and load its weights; the arguments are those of `EfficientNetB0`."""
    check_fork()
    dropout_rate = variant.dropout_rate if dropout_rate is None else dropout_rate
    _check(pooling=pooling, classes=classes, dropout_rate=dropout_rate, drop_connect_rate=drop_connect_rate)
    include_top = include_top and not features
    image = image_input(input_tensor, input_shape, in_channels, size=variant.resolution if include_top else None)
    # Before building: the file may define the normalisation, and a wrong name should fail early.
    pretrained = _open(variant, weights, include_top=include_top, framework=framework)
    normalization = variant.normalization if pretrained is None else pretrained.normalization
    with dtype_policy(dtype), deep_graphs():
        outputs = build(
            variant,
            image,
            include_top=include_top,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            normalization=normalization if include_preprocessing else None,
            dropout_rate=dropout_rate,
            drop_connect_rate=drop_connect_rate,
            features=features,
            conventions=_conventions(variant, pretrained, framework),
        )
        # Inside the policy: `compile` uses the model's own policy to decide whether to scale the loss.
        model = keras.Model(_sources(image), outputs, name=name)
    if pretrained is not None:
        below = () if input_tensor is None else keras.Model(_sources(image), image).layers
        _load(model, pretrained, below, new_head=include_top)
    return model


def _open(variant: Variant, weights: Any, *, include_top: bool, framework: str | None) -> weight_sets.Pretrained | None:
    if weights is None:
        return None
    return weight_sets.open_weights(variant, weights, include_top=include_top, framework=framework)


def _conventions(variant: Variant, pretrained: weight_sets.Pretrained | None, framework: str | None) -> Conventions:
    kind = find_framework(framework or "tensorflow") if pretrained is None else pretrained.framework
    return Conventions(
        variant.activation,
        padding=kind.padding,
        bn_momentum=variant.bn_momentum,
        bn_epsilon=kind.bn_epsilon,
        depthwise=variant.depthwise,
        initialize=pretrained is None,
    )


def _sources(image: Any) -> Any:
    sources = keras.utils.get_source_inputs(image)
    return sources[0] if len(sources) == 1 else sources


def _load(model: Any, pretrained: weight_sets.Pretrained, below: Sequence[Any], *, new_head: bool) -> None:
    """Load the weights into all layers except those below the user's `input_tensor`."""
    names = {layer.name for layer in below}
    layers = [layer for layer in model.layers if layer.name not in names]
    weight_sets.put(pretrained, layers, new_head=new_head)
    restore_initializers(layers)


def _check(*, pooling: str | None, classes: int, dropout_rate: float, drop_connect_rate: float) -> None:
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling is {pooling!r}. Expected None, 'avg' or 'max'.")
    if not isinstance(classes, Integral):
        raise TypeError(f"classes is {classes!r}. Expected a whole number. Pass the number of labels.")
    if classes < 1:
        raise ValueError(f"classes is {classes!r}. Expected at least 1. Pass the number of labels.")
    for name, rate in (("dropout_rate", dropout_rate), ("drop_connect_rate", drop_connect_rate)):
        if not 0 <= rate < 1:
            raise ValueError(f"{name} is {rate!r}. Expected at least 0 and less than 1. Pass 0 to switch it off.")


def EfficientNet(
    width_coefficient: Variant | str | float,
    depth_coefficient: float | None = None,
    resolution: int | None = None,
    *,
    blocks: Sequence[BlockArgs] | Sequence[str] | None = None,
    dropout_rate: float | None = None,
    activation: str | None = None,
    normalization: Normalization | None = None,
    fix_ends: bool | None = None,
    stem_filters: int | None = None,
    head_filters: int | None = None,
    **options: Unpack[Options],
) -> keras.Model:
    """Build a network from a row of `VARIANTS`, or your own from a block table and scaling coefficients.

    Args:
        width_coefficient: factor for all numbers of filters; the results are rounded to multiples of 8. Or the name of
            a network or a `Variant`: then every other argument changes one of its values.
        depth_coefficient: factor for all numbers of repeats; the results are rounded up.
        resolution: side of the square input image in pixels.
        blocks: rows of `BlockArgs` (by default B0's), or block strings such as "r1_k3_s11_e1_i32_o16_se0.25".
        dropout_rate: dropout rate before the classifier.
        activation: "swish" or "relu6".
        normalization: mean and standard deviation of the pixels. If a weight file contains its own, that is used.
        fix_ends: do not scale stem, head and the repeats of the first and the last stage (EfficientNet-Lite).
        stem_filters: filters of the first convolution before scaling.
        head_filters: filters of the last convolution before scaling.
        **options: the arguments of `EfficientNetB0`. `weights` is None (random weights, the default) or the path of a
            weight file.

    Returns:
        A functional `keras.Model` from images (batch, height, width, 3), pixels 0..255, to probabilities
        (batch, classes).

    Raises:
        ValueError: an argument is out of range.
        WeightsError: the weight file cannot be read or does not fit the network.

    Example:
        >>> EfficientNet(VARIANTS["lite0"], classes=10).output_shape
        (None, 10)
        >>> from keras_effnet.blocks import B0_BLOCKS
        >>> shallow = (*B0_BLOCKS[:5], replace(B0_BLOCKS[5], repeats=2), B0_BLOCKS[6])
        >>> EfficientNet(1.0, 1.0, 128, blocks=shallow, classes=10).output_shape
        (None, 10)
    """
    changes = {
        "depth_coefficient": depth_coefficient,
        "resolution": resolution,
        "blocks": blocks if blocks is None else _table(blocks),
        "dropout_rate": dropout_rate,
        "activation": activation,
        "normalization": normalization,
        "fix_ends": fix_ends,
        "stem_filters": stem_filters,
        "head_filters": head_filters,
    }
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if isinstance(width_coefficient, str | Variant):
        variant = as_variant(width_coefficient)
        if variant.name in VARIANTS:
            options.setdefault("name", f"efficientnet{variant.name}")
        return create(replace(variant, **given), **options)
    if depth_coefficient is None or resolution is None:
        raise TypeError(
            "EfficientNet() needs width_coefficient, depth_coefficient and resolution. Pass all three, or the name of "
            'a network: EfficientNet("b0").'
        )
    name = options.get("name", "efficientnet")
    return create(Variant(name, width_coefficient, **{"dropout_rate": 0.2, **given}), **options)


def _table(blocks: Sequence[BlockArgs] | Sequence[str]) -> tuple[BlockArgs, ...]:
    """Rows of `BlockArgs` from rows or from block strings."""
    rows = [row for row in blocks if not isinstance(row, str)]
    return (*rows, *decode_blocks([row for row in blocks if isinstance(row, str)]))


def _builder(key: str, best: str) -> Builder:
    """The builder of a variant with the signature of EfficientNetB0 in keras.applications, and ours behind the star."""
    return cast(Builder, _bind(key, Builder, weights=best, name=VARIANTS[key].builder.lower()))


def _builder_v2(key: str, best: str) -> BuilderV2:
    """The same with the signature of EfficientNetV2 there, which has `include_preprocessing` before `name`."""
    return cast(BuilderV2, _bind(key, BuilderV2, weights=best, name=f"efficientnet{key}"))


def _bind(key: str, protocol: type[Builder | BuilderV2], **defaults: str) -> Callable[..., keras.Model]:
    """Bind `create` to a variant: the signature is that of the protocol, with the defaults of the variant."""
    variant, title = VARIANTS[key], VARIANTS[key].builder
    declared = inspect.signature(protocol.__call__)
    parameters = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in declared.parameters.items()
        if name != "self"
    ]
    signature = declared.replace(parameters=parameters)

    def builder(*args: Any, **options: Any) -> keras.Model:
        try:
            given = signature.bind(*args, **options)
        except TypeError as error:
            raise TypeError(f"{title}() {error}") from None
        given.apply_defaults()
        return create(variant, **given.arguments)

    builder.__name__ = builder.__qualname__ = title
    builder.__signature__ = signature  # type: ignore[attr-defined]
    builder.__doc__ = _document(variant, title, defaults["weights"])
    return builder


def _document(variant: Variant, title: str, best: str) -> str:
    """The docstring of a builder: the defaults of its variant, then the docstring of `Builder.__call__`."""
    arguments = inspect.cleandoc(Builder.__call__.__doc__ or "").partition("\n")[2]
    size = variant.resolution
    return (
        f"Build {title}, for images of {size} x {size} pixels, and load its weights.\n\n"
        f'Defaults: weights="{best}", input_shape=({size}, {size}, 3), dropout_rate={variant.dropout_rate}.\n'
        f"{arguments.replace('EfficientNetB0', title)}\n"
    )


# Each with the set that scores best among those published for it (V2: with the set of keras.applications).
# "imagenet" of B0-B7 was trained with AutoAugment.
EfficientNetB0 = _builder("b0", "imagenet")
EfficientNetB1 = _builder("b1", "imagenet")
EfficientNetB2 = _builder("b2", "imagenet")
EfficientNetB3 = _builder("b3", "imagenet")
EfficientNetB4 = _builder("b4", "imagenet")
EfficientNetB5 = _builder("b5", "imagenet")
EfficientNetB6 = _builder("b6", "imagenet")
EfficientNetB7 = _builder("b7", "imagenet")
EfficientNetB8 = _builder("b8", "advprop")
EfficientNetL2 = _builder("l2", "noisy-student")
EfficientNetLite0 = _builder("lite0", "imagenet")
EfficientNetLite1 = _builder("lite1", "imagenet")
EfficientNetLite2 = _builder("lite2", "imagenet")
EfficientNetLite3 = _builder("lite3", "imagenet")
EfficientNetLite4 = _builder("lite4", "imagenet")
EfficientNetV2B0 = _builder_v2("v2-b0", "imagenet")
EfficientNetV2B1 = _builder_v2("v2-b1", "imagenet")
EfficientNetV2B2 = _builder_v2("v2-b2", "imagenet")
EfficientNetV2B3 = _builder_v2("v2-b3", "imagenet")
EfficientNetV2S = _builder_v2("v2-s", "imagenet")
EfficientNetV2M = _builder_v2("v2-m", "imagenet")
EfficientNetV2L = _builder_v2("v2-l", "imagenet")
# No weights of ImageNet alone were ever published for XL.
EfficientNetV2XL = _builder_v2("v2-xl", "imagenet21k-ft1k")
