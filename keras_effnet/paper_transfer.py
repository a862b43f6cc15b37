"""Tables 5, 6 and 8 of the paper: transfer learning, its data sets, and the test set (arXiv:1905.11946, section 5)."""

import math

from keras_effnet import paper_data as paper
from keras_effnet.complexity import complexity
from keras_effnet.paper_report import ACCURACY, COSTS, NONE, Report, model_name, quoted, ratio, short
from keras_effnet.variants import VARIANTS

PROTOCOL = "The paper's training on ImageNet (section 5.2): " + "; ".join(paper.TRAINING) + "."
FINE_TUNING = (
    "The paper takes weights of ImageNet and fine-tunes the whole network on each data set (section 5.3). Our "
    "parameters are those that training changes, with a classifier of the data set's classes."
)

TRANSFER_RATIOS = (
    "Our ratios divide the paper's parameters of the rival by our computed ones, if it gives them. "
    "The paper's divide its rounded numbers, 41 / 10 = 4.1; that of Oxford-IIIT Pets does not follow from the numbers "
    "beside it, 58 / 17 = 3.4."
)


def transfer_parameters(model: str, dataset: str) -> int:
    """Parameters that training changes, with a classifier for the classes of a data set of Table 6."""
    classes = {row.name: int(paper.number(row.classes)) for row in paper.TABLE_6}
    return complexity(VARIANTS[model], classes=classes[dataset]).trainable


def table5() -> Report:
    """Transfer learning: the rival's accuracy and parameters beside ours, once for each half of the table."""
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
    columns = ("against", "data set", "rival", "its accuracy (paper)", "its params (paper)", "model")
    more = ("accuracy (paper)", "params (paper)", "params (ours)", "ratio (paper)", "ratio (ours)")
    notes = (
        FINE_TUNING,
        TRANSFER_RATIOS,
        COSTS,
        ACCURACY,
    )
    return Report("Table 5: transfer learning", (*columns, *more), tuple(rows), notes)


def table6() -> Report:
    """The data sets of transfer learning, and what the classifier for them makes of B0 and B7."""
    rows = []
    for row in paper.TABLE_6:
        params = (short(transfer_parameters(model, row.name)) for model in ("b0", "b7"))
        rows.append((row.name, quoted(row.train), quoted(row.test), quoted(row.classes), *params))
    columns = ("data set", "train (paper)", "test (paper)", "classes (paper)", "B0 params (ours)", "B7 params (ours)")
    return Report("Table 6: data sets of transfer learning", columns, tuple(rows), (FINE_TUNING, PROTOCOL))


def table8() -> Report:
    """Accuracies on the validation and on the test images of ImageNet, with our costs."""
    rows = []
    for row in paper.TABLE_8:
        cost = complexity(VARIANTS[row.model])
        accuracies = map(quoted, (row.val_top1, row.val_top5, row.test_top1, row.test_top5))
        rows.append((model_name(row.model), *accuracies, short(cost.trainable), short(cost.macs)))
    names = ("validation top-1", "validation top-5", "test top-1", "test top-5")
    columns = ("model", *(f"{name} (paper)" for name in names), "params (ours)", "FLOPS (ours)")
    return Report("Table 8: validation and test set of ImageNet", columns, tuple(rows), (PROTOCOL, COSTS, ACCURACY))
