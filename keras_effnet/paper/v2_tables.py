"""EfficientNetV2's tables next to our computed numbers (arXiv:2104.00298)."""

from dataclasses import replace

from keras_effnet.complexity import complexity, table
from keras_effnet.design.v2_space import PARAMETERS_EXPONENT, STEP_TIME_EXPONENT, v2_reward, v2_space
from keras_effnet.paper import v2_data as paper
from keras_effnet.paper.data import number
from keras_effnet.paper.report import ACCURACY, COSTS, NONE, Report, quoted, short
from keras_effnet.training.progressive import make_stages
from keras_effnet.training.recipes import RECIPES
from keras_effnet.variants import VARIANTS, Variant

WHOSE = ("paper", "ours")
SPEED = (
    "Speeds and training times are the paper's: they need its TPUs (v3) and its V100, and ImageNet. On this machine, "
    "benchmarks/photo_to_label.py and benchmarks/training_step.py measure inference and training."
)
OLDER_S = (
    "The paper's 8.8B (Table 7) and 24M parameters (Table 8) are those of an older S, with a last stage of 272 filters "
    "and a head of 1792. Table 4 and all published weights have 256 and 1280."
)


def _costs(variant: Variant, params: str, flops: str) -> tuple[str, ...]:
    """Parameters and multiply-adds: the paper's, ours and the difference."""
    ours = complexity(variant)
    pairs = ((params, ours.trainable), (flops, ours.macs))
    return tuple(
        cell
        for printed, value in pairs
        for cell in (quoted(printed), short(value), f"{value / number(printed) - 1:+.1%}" if printed else NONE)
    )


_COSTS = ("params (paper)", "params (ours)", "difference", "FLOPS (paper)", "FLOPS (ours)", "difference of FLOPS")


def _networks(title: str, rows: tuple[paper.Network, ...], *notes: str, speed: bool) -> Report:
    made = []
    for row in rows:
        costs: tuple[str, ...] = (quoted(row.params), NONE, NONE, quoted(row.flops), NONE, NONE)
        if row.variant:
            costs = _costs(VARIANTS[row.variant], row.params, row.flops)
        times = (quoted(row.ms), quoted(row.hours)) if speed else ()
        made.append((row.model, quoted(row.top1), *costs, *times))
    times = ("ms of inference (paper)", "hours of training (paper)") if speed else ()
    columns = ("model", "top-1 (paper)", *_COSTS, *times)
    return Report(title, columns, tuple(made), (*notes, COSTS, ACCURACY, *([SPEED] if speed else [])))


def table1() -> Report:
    """EfficientNet-B6 and its rivals."""
    return _networks("V2, Table 1: B6 and other networks", paper.TABLE_1, speed=False)


def table2() -> Report:
    """Training B6 at two image sizes."""
    rows = []
    for row in paper.TABLE_2:
        speeds = map(quoted, (row.tpu_32, row.tpu_128, row.v100_12, row.v100_24))
        cost = complexity(VARIANTS["b6"], resolution=row.size)
        rows.append((str(row.size), quoted(row.top1), *speeds, short(cost.macs)))
    names = ("TPUv3, batch 32", "TPUv3, batch 128", "V100, batch 12", "V100, batch 24")
    columns = ("image size", "top-1 (paper)", *(f"{name} (paper)" for name in names), "FLOPS (ours)")
    notes = (
        "Images per second and core. A missing speed was out of memory.",
        COSTS,
        ACCURACY,
        SPEED,
    )
    return Report("V2, Table 2: B6 trained at two image sizes", columns, tuple(rows), notes)


def fused_b4(stages: int) -> Variant:
    """Return B4 whose first stages have fused blocks, without squeeze-and-excitation."""
    base = VARIANTS["b4"]
    fused = tuple(replace(row, conv_type="fused", se_ratio=0.0) for row in base.blocks[:stages])
    return replace(base, blocks=(*fused, *base.blocks[stages:]))


def table3() -> Report:
    """B4 with fused stages."""
    rows = []
    for row in paper.TABLE_3:
        stages = f"1 to {row.stages}" if row.stages else "none"
        costs = _costs(fused_b4(row.stages), row.params, row.flops)
        rows.append((stages, *costs, quoted(row.top1), quoted(row.tpu), quoted(row.v100)))
    columns = ("fused stages", *_COSTS, "top-1 (paper)", "TPU (paper)", "V100 (paper)")
    notes = (
        "Speeds are images per second and core. Our fused blocks keep B4's kernels and have no squeeze-and-excitation.",
        "The paper gives no details of its networks. Each of its fused ones costs about 2B less than ours.",
        COSTS,
        ACCURACY,
        SPEED,
    )
    return Report("V2, Table 3: B4 with fused stages", columns, tuple(rows), notes)


def table4() -> Report:
    """The stages of V2-S."""
    rows = []
    strides = [2, *(row.strides for row in VARIANTS["v2-s"].stages), 1]
    for i, (theirs, ours) in enumerate(zip(paper.TABLE_4, table(VARIANTS["v2-s"]), strict=True)):
        pairs = ((theirs.strides, strides[i]), (theirs.channels, ours.channels), (theirs.layers, ours.layers))
        cells = [str(value) for pair in pairs for value in pair]
        rows.append((str(i), theirs.operator, ours.operator, *cells, f"{ours.parameters:,}", short(ours.macs)))
    names = [f"{name} ({whose})" for name in ("operator", "stride", "channels", "layers") for whose in WHOSE]
    columns = ("stage", *names, "parameters (ours)", "FLOPS (ours)")
    notes = ("Parameters include the moving statistics of batch normalisation.", OLDER_S, COSTS)
    return Report("V2, Table 4: EfficientNetV2-S", columns, tuple(rows), notes)


def table5() -> Report:
    """Regularisation of different strength at different image sizes."""
    rows = tuple((str(row.size), *map(quoted, (row.weak, row.medium, row.strong))) for row in paper.TABLE_5)
    columns = ("image size", *(f"top-1, magnitude {i} (paper)" for i in (5, 10, 15)))
    notes = (
        "Each number takes a training on ImageNet. Train at a size with `keras-effnet train --size`.",
        ACCURACY,
    )
    return Report("V2, Table 5: RandAugment at different image sizes", columns, rows, notes)


def _settings(network: str) -> dict[str, str]:
    """The settings of our recipe in the first and the last stage, as Table 6 prints them."""
    variant, recipe = VARIANTS[f"v2-{network}"], RECIPES[f"imagenet-v2-{network}"]
    size = variant.train_resolution or variant.resolution
    first, *_, last = make_stages(recipe, size=size, magnitude=recipe.magnitude, epochs=int(recipe.epochs))
    return {
        "image size": f"{first.size} to {last.size}",
        "RandAugment": f"{first.magnitude:g} to {last.magnitude:g}",
        "mixup alpha": f"{first.mixup:g} to {last.mixup:g}",
        "dropout": f"{variant.dropout_rate:g}",
    }


def table6() -> Report:
    """Progressive learning: the first and the last stage."""
    ours = {network: _settings(network) for network in ("s", "m", "l")}
    rows = []
    for row in paper.TABLE_6:
        pairs = ((quoted(getattr(row, network)), ours[network][row.setting]) for network in ours)
        rows.append((row.setting, *(cell for pair in pairs for cell in pair)))
    columns = ("setting", *(f"{network.upper()} ({whose})" for network in ours for whose in WHOSE))
    notes = (
        (
            "Ours are the recipes imagenet-v2-s, -m and -l, with the values of the authors' code, which trained the "
            "published weights: four stages, the first of which is already above 128 pixels; CutMix with MixUp's "
            "alpha, each on half of a batch; and a fixed dropout."
        ),
        "The paper's Algorithm 1 grows all settings linearly from the first to the last stage.",
    )
    return Report("V2, Table 6: progressive learning", columns, tuple(rows), notes)


def table7() -> Report:
    """Accuracy, parameters and FLOPS on ImageNet."""
    title = "V2, Table 7: EfficientNetV2 on ImageNet"
    note = "(21k): trained on ImageNet-21k first. All V2 rows were trained with progressive learning."
    return _networks(title, paper.TABLE_7, note, OLDER_S, speed=True)


def table8() -> Report:
    """Transfer learning: accuracies, and our parameters with a classifier for 100 classes."""
    rows = []
    for row in paper.TABLE_8:
        ours = short(complexity(VARIANTS[row.variant], classes=100).trainable) if row.variant else NONE
        accuracies = map(quoted, (row.imagenet, row.cifar10, row.cifar100, row.flowers, row.cars))
        rows.append((row.model, quoted(row.params), ours, *accuracies))
    names = ("ImageNet", "CIFAR-10", "CIFAR-100", "Flowers", "Cars")
    columns = ("model", "params (paper)", "params (ours)", *(f"{name} accuracy (paper)" for name in names))
    notes = (
        (
            "All were trained on ImageNet's 1,000 classes. Our parameters are those of CIFAR-100; the paper's include "
            "the 1,000 classes."
        ),
        OLDER_S,
        COSTS,
        ACCURACY,
    )
    return Report("V2, Table 8: transfer learning", columns, tuple(rows), notes)


# Accuracy in percent and images per second and core of the TPU, from Table 3.
_REWARDED = ((0, 82.8, 262), (3, 83.1, 362), (5, 83.1, 327), (7, 81.7, 254))


def search() -> Report:
    """The search space, and the rewards of the networks of Table 3."""
    space = v2_space()
    rows = [
        (name.replace("_", " "), str(len(values)), ", ".join(map(str, values)))
        for name, values in space.choices.items()
    ]
    _, _, speed = _REWARDED[0]
    size = complexity(fused_b4(0)).trainable
    for stages, accuracy, images in _REWARDED:
        reward = v2_reward(accuracy, speed / images, complexity(fused_b4(stages)).trainable / size)
        rows.append((f"reward of B4 with {stages} fused stages", NONE, f"{reward:.2f}"))
    notes = (
        (
            f"The space has {space.size:.3g} points around B4. The paper does not give the numbers of layers (1 to 10 "
            "here), and does not describe the choice of squeeze-and-excitation."
        ),
        (
            f"Reward: A * S^w * P^v with w = {STEP_TIME_EXPONENT} and v = {PARAMETERS_EXPONENT}. The examples take A "
            "and S from Table 3 (accuracy in percent; time of a TPU's training step as a multiple of B4's) and P from "
            "our parameters, as a multiple of B4's."
        ),
        (
            "The paper trained up to 1,000 networks of the space for about 10 epochs each. That is not repeated here. "
            "`keras_effnet.design.search.search(score, v2_space())` searches it for a goal in multiply-adds."
        ),
    )
    return Report("V2, section 3.3: architecture search", ("choice", "values", "which (ours)"), tuple(rows), notes)
