"""The paper's tables next to our computed or measured numbers (arXiv:1905.11946)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from keras_effnet.complexity import complexity, table
from keras_effnet.design.rival_tables import RIVALS, Rival, resnet50, rival_layers, rival_macs
from keras_effnet.paper import data as paper
from keras_effnet.paper.report import ACCURACY, COSTS, NONE, Report, model_name, quoted, ratio, short
from keras_effnet.scaling import round_resolution
from keras_effnet.variants import VARIANTS, Variant

Measure = Callable[[Sequence[str]], dict[str, float]]

# Reasons for differences of more than 5 % from Table 3.
DIFFERENCES = {
    ("MobileNetV1", 1.0, 1.0, 1.0): "0.569B, printed with one digit in the paper",
    ("ResNet-50", 4.0, 1.0, 1.0): (
        "64 blocks instead of 16. The paper's 16.2B is close to four times the whole network (16.4B), but the stem, "
        "the classifier and the more expensive first block of each stage occur only once"
    ),
    ("ResNet-50", 1.0, 2.0, 1.0): "all filters doubled; with strides in the first 1x1 it is {first} ({first_off})",
    ("ResNet-50", 1.4, 1.2, 1.3): (
        "25 blocks instead of 16, at 288 pixels. Equation 3 predicts 3.4 times the baseline, 14.0B; the paper does not "
        "describe its rounding"
    ),
}


WHOSE = ("paper", "ours")
RATIOS = (
    "Ratios are relative to the EfficientNet above. Ours are the paper's number for the other network divided by our "
    "computed number. Parameters are trainable parameters."
)
ABOVE = (
    "The paper's numbers for the scaled rows are higher than ours, and higher than its own rule: twice the resolution "
    "has four times the pixels, so that 0.39B (Table 2) becomes about 1.5B, not 1.9B. The paper gives no reason."
)


def table1() -> Report:
    """The stages of the baseline network."""
    rows = []
    for i, (theirs, ours) in enumerate(zip(paper.TABLE_1, table(VARIANTS["b0"]), strict=True), start=1):
        pairs = [(getattr(theirs, name), getattr(ours, name)) for name in ("resolution", "channels", "layers")]
        cells = [str(value) for pair in pairs for value in pair]
        rows.append((str(i), theirs.operator, ours.operator, *cells, f"{ours.parameters:,}", short(ours.macs)))
    names = [f"{name} ({whose})" for name in ("operator", "resolution", "channels", "layers") for whose in WHOSE]
    columns = ("stage", *names, "parameters (ours)", "FLOPS (ours)")
    notes = ("Parameters include the moving statistics of batch normalisation.", COSTS)
    return Report("Table 1: EfficientNet-B0", columns, tuple(rows), notes)


def table2() -> Report:
    """Accuracy, parameters and FLOPS on ImageNet."""
    rows = []
    for row in paper.TABLE_2:
        ours = complexity(VARIANTS[row.peer])
        params, flops, params_ratio, flops_ratio = short(ours.trainable), short(ours.macs), NONE, NONE
        if row.model != model_name(row.peer):
            params, flops = _computed_rival(row.model)
            params_ratio = ratio(paper.number(row.params) / ours.trainable)
            flops_ratio = ratio(paper.number(row.flops) / ours.macs) if row.flops else NONE
        pairs = ((row.params, params), (row.flops, flops), (row.params_ratio, params_ratio))
        cells = [cell for theirs, mine in pairs for cell in (quoted(theirs), mine)]
        rows.append((row.model, quoted(row.top1), quoted(row.top5), *cells, quoted(row.flops_ratio), flops_ratio))
    names = [f"{name} ({whose})" for name in ("params", "FLOPS", "params ratio", "FLOPS ratio") for whose in WHOSE]
    notes = (
        RATIOS,
        COSTS,
        ACCURACY,
    )
    columns = ("model", "top-1 (paper)", "top-5 (paper)", *names)
    return Report("Table 2: EfficientNet on ImageNet", columns, tuple(rows), notes)


def _computed_rival(model: str) -> tuple[str, str]:
    if model != "ResNet-50":
        return NONE, NONE
    rival = resnet50(strides_in="middle")
    return short(sum(layer.trainable for layer in rival_layers(rival))), short(rival_macs(rival))


def table3() -> Report:
    """Scaling up MobileNets and ResNet."""
    rows = []
    for row in paper.TABLE_3:
        coefficients = (row.depth, row.width, row.resolution)
        flops, macs = paper.number(row.flops), rival_macs(compared(row))
        reason = DIFFERENCES.get((row.network, *coefficients), "")
        if row.network == "ResNet-50":
            first = rival_macs(resnet50(*coefficients))
            reason = reason.format(first=short(first), first_off=f"{first / flops - 1:+.1%}")
        numbers = (quoted(row.flops), short(macs), f"{macs / flops - 1:+.1%}", quoted(row.top1), reason or NONE)
        rows.append((row.network, *map(str, coefficients), *numbers))
    columns = ("model", "depth", "width", "resolution", "FLOPS (paper)", "FLOPS (ours)", "difference", "top-1 (paper)")
    first = rival_macs(resnet50())
    notes = (
        "Depth multiplies the repeats of each stage, rounded up. The added blocks have no strides.",
        "Width multiplies all filters, resolution the 224 pixels. Both are rounded to multiples of 8.",
        "ResNet-50 is the network of 4.1B, with strides in the 3x3 convolution of a block.",
        f"ResNet-50 of keras.applications has strides in the first 1x1 convolution and costs {short(first)}.",
        COSTS,
        ACCURACY,
    )
    return Report("Table 3: scaling up MobileNets and ResNet", (*columns, "reason"), tuple(rows), notes)


def compared(row: paper.Scaled) -> Rival:
    """Return the network of a row of Table 3. The paper's ResNet-50 (4.1B) has its strides in the 3x3 convolution."""
    options = {"strides_in": "middle"} if row.network == "ResNet-50" else {}
    return RIVALS[row.network](row.depth, row.width, row.resolution, **options)


def table4(measure: Measure | None = None, *, runs: int = 20, note: str = "") -> Report:
    """Seconds for one image on a single core, from `measure(names)`; by default measured on this machine."""
    from keras_effnet.design.latency import machine, single_core_latencies

    names = {"ResNet-152": "ResNet152", "EfficientNet-B1": "b1", "EfficientNet-B7": "b7"}
    seconds = measure(list(names.values())) if measure else single_core_latencies(list(names.values()), runs=runs)
    rows = []
    for row in paper.TABLE_4:
        ours = f"{seconds[names[row.model]]:.3f}" if row.model in names else NONE
        speedup = ratio(seconds["ResNet152"] / seconds["b1"]) if row.model == "EfficientNet-B1" else NONE
        cells = (quoted(row.top1), quoted(row.seconds), ours, quoted(row.speedup), speedup)
        rows.append((row.model, *cells))
    notes = (
        f"One image at a time on a single core, random weights, mean of {runs} runs after three warm-up runs.",
        f"The paper used a Xeon E5-2690. Ours is {machine()}.",
        note,
        "GPipe, a network of 557 million parameters, was not published and cannot be rebuilt, so that B7 has no rival.",
        ACCURACY,
    )
    columns = ("model", "top-1 (paper)", "seconds (paper)", "seconds (ours)", "speed-up (paper)", "speed-up (ours)")
    return Report("Table 4: latency of inference", columns, tuple(rows), tuple(filter(None, notes)))


def table7() -> Report:
    """The scaled B0s of Figures 7 and 8."""
    rows = []
    for row in paper.TABLE_7:
        variant, flops = scaled_b0(row.depth, row.width, row.resolution), paper.number(row.flops)
        cost = complexity(variant)
        numbers = (quoted(row.flops), short(cost.macs), f"{cost.macs / flops - 1:+.1%}", short(cost.trainable))
        coefficients = map(str, (row.depth, row.width, row.resolution))
        rows.append((row.network, *coefficients, str(variant.resolution), *numbers, quoted(row.top1)))
    columns = ("model", "depth", "width", "resolution", "pixels", "FLOPS (paper)", "FLOPS (ours)", "difference")
    notes = (
        ABOVE,
        COSTS,
        ACCURACY,
    )
    title = "Table 7: the scaled models of the class activation maps"
    return Report(title, (*columns, "params (ours)", "top-1 (paper)"), tuple(rows), notes)


def scaled_b0(depth: float, width: float, resolution: float) -> Variant:
    """Return EfficientNet-B0 scaled with other coefficients."""
    return replace(
        VARIANTS["b0"],
        depth_coefficient=depth,
        width_coefficient=width,
        resolution=round_resolution(VARIANTS["b0"].resolution, resolution),
    )


PROTOCOL = "Training on ImageNet in the paper (section 5.2): " + "; ".join(paper.TRAINING) + "."
FINE_TUNING = (
    "The paper fine-tunes the whole network on each data set, starting from ImageNet weights (section 5.3). Our "
    "numbers are trainable parameters, with a classifier for the classes of the data set."
)

TRANSFER_RATIOS = (
    "Our ratios are the paper's parameters of the rival, if known, divided by our computed parameters. The paper "
    "divides rounded numbers, for example 41 / 10 = 4.1. Its ratio for Oxford-IIIT Pets does not follow from its "
    "numbers, 58 / 17 = 3.4."
)


def transfer_parameters(model: str, dataset: str) -> int:
    """Count the trainable parameters, with a classifier for the classes of a data set in Table 6."""
    classes = {row.name: int(paper.number(row.classes)) for row in paper.TABLE_6}
    return complexity(VARIANTS[model], classes=classes[dataset]).trainable


def table5() -> Report:
    """Transfer learning: accuracy and parameters of rivals and EfficientNets, for both halves of the table."""
    rows = []
    for against, mean in paper.TABLE_5_MEANS.items():
        ratios = []
        for row in (row for row in paper.TABLE_5 if row.against == against):
            ours = transfer_parameters(row.model, row.dataset)
            if row.rival_params:
                ratios.append(paper.number(row.rival_params) / ours)
            rival = (row.rival, quoted(row.rival_accuracy), quoted(row.rival_params))
            mine = (model_name(row.model), quoted(row.accuracy), quoted(row.params), short(ours))
            ratios_shown = (quoted(row.ratio), ratio(ratios[-1]) if row.rival_params else NONE)
            rows.append((against, row.dataset, *rival, *mine, *ratios_shown))
        average = ratio(math.prod(ratios) ** (1 / len(ratios)))
        rows.append((against, "geometric mean", *(NONE,) * 7, quoted(mean), average))
    columns = ("against", "data set", "rival", "rival's accuracy (paper)", "rival's params (paper)", "model")
    more = ("accuracy (paper)", "params (paper)", "params (ours)", "ratio (paper)", "ratio (ours)")
    notes = (
        FINE_TUNING,
        TRANSFER_RATIOS,
        COSTS,
        ACCURACY,
    )
    return Report("Table 5: transfer learning", (*columns, *more), tuple(rows), notes)


def table6() -> Report:
    """The data sets of transfer learning, and the parameters of B0 and B7 with a classifier for them."""
    rows = []
    for row in paper.TABLE_6:
        params = (short(transfer_parameters(model, row.name)) for model in ("b0", "b7"))
        rows.append((row.name, quoted(row.train), quoted(row.test), quoted(row.classes), *params))
    columns = ("data set", "train (paper)", "test (paper)", "classes (paper)", "B0 params (ours)", "B7 params (ours)")
    return Report("Table 6: data sets of transfer learning", columns, tuple(rows), (FINE_TUNING, PROTOCOL))


def table8() -> Report:
    """Accuracies on the validation and test images of ImageNet, with our costs."""
    rows = []
    for row in paper.TABLE_8:
        cost = complexity(VARIANTS[row.model])
        accuracies = map(quoted, (row.val_top1, row.val_top5, row.test_top1, row.test_top5))
        rows.append((model_name(row.model), *accuracies, short(cost.trainable), short(cost.macs)))
    names = ("validation top-1", "validation top-5", "test top-1", "test top-5")
    columns = ("model", *(f"{name} (paper)" for name in names), "params (ours)", "FLOPS (ours)")
    return Report("Table 8: validation and test set of ImageNet", columns, tuple(rows), (PROTOCOL, COSTS, ACCURACY))
