"""The points of Figures 1, 3, 4, 5, 6 and 8: the paper's accuracies over costs that are computed (arXiv:1905.11946)."""

from dataclasses import dataclass

from keras_effnet.complexity import complexity
from keras_effnet.paper import data as paper
from keras_effnet.paper.report import ACCURACY, COSTS, NONE, Report, model_name, quoted, short
from keras_effnet.paper.tables import scaled_b0, transfer_parameters
from keras_effnet.scaling import CompoundScaling, flops_ratio
from keras_effnet.variants import VARIANTS

# Read off the labels of the figures; not compared with a second source.
FIGURE_3 = {
    "width": (1.0, 1.4, 1.8, 2.6, 3.8, 5.0),
    "depth": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    "resolution": (1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5),
}
FIGURE_4 = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))
# As far as the cost axis of Figure 8 reaches.
PHIS = (0, 1, 2, 3, 3.7)
LABELS = "The coefficients were read off the labels of the paper's figure and not compared with a second source."
COST_AXIS = "Only the cost is computed: the accuracies of these networks would need ImageNet."


@dataclass(frozen=True)
class Point:
    """A network of Figure 1 or 5: parameters and FLOPS in units, accuracy in percent; `ours` if the costs are."""

    name: str
    params: float
    flops: float | None
    top1: float
    ours: bool


@dataclass(frozen=True)
class Scaled:
    """A scaled B0: its series, its three coefficients, its computed FLOPS and what Equation 3 predicts."""

    series: str
    depth: float
    width: float
    resolution: float
    macs: float
    law: float


def imagenet_points() -> list[Point]:
    """All networks of Table 2."""
    points = []
    for row in paper.TABLE_2:
        cost, ours = complexity(VARIANTS[row.beside]), row.model == model_name(row.beside)
        params = cost.trainable if ours else paper.number(row.params)
        flops = cost.macs if ours else paper.number(row.flops) if row.flops else None
        points.append(Point(row.model, params, flops, paper.number(row.top1), ours))
    return points


def _imagenet(title: str, axis: str) -> Report:
    rows = []
    for row, point in zip(paper.TABLE_2, imagenet_points(), strict=True):
        theirs, ours = getattr(row, axis.lower()), getattr(point, axis.lower())
        computed = short(ours) if point.ours else NONE
        rows.append((row.model, quoted(theirs), computed, quoted(row.top1)))
    columns = ("model", f"{axis} (paper)", f"{axis} (ours)", "top-1 (paper)")
    return Report(title, columns, tuple(rows), (COSTS, ACCURACY))


def figure1() -> Report:
    """Parameters against accuracy."""
    return _imagenet("Figure 1: model size and accuracy on ImageNet", "params")


def figure5() -> Report:
    """FLOPS against accuracy."""
    return _imagenet("Figure 5: FLOPS and accuracy on ImageNet", "FLOPS")


def figure6() -> Report:
    """Parameters against the accuracy of transfer learning."""
    rows = []
    for row in paper.TABLE_5:
        ours = short(transfer_parameters(row.model, row.dataset))
        rows.append((row.dataset, row.rival, quoted(row.rival_params), NONE, quoted(row.rival_accuracy)))
        rows.append((row.dataset, model_name(row.model), quoted(row.params), ours, quoted(row.accuracy)))
    columns = ("data set", "model", "params (paper)", "params (ours)", "accuracy (paper)")
    notes = ("The points are those of Table 5; the paper's figure has more of them.", COSTS, ACCURACY)
    return Report("Figure 6: parameters and accuracy of transfer learning", columns, tuple(rows), notes)


def scaled(series: str, depth: float, width: float, resolution: float) -> Scaled:
    """B0 with these coefficients."""
    macs = complexity(scaled_b0(depth, width, resolution)).macs
    law = complexity(VARIANTS["b0"]).macs * flops_ratio(depth, width, resolution)
    return Scaled(series, depth, width, resolution, macs, law)


def single_axis() -> list[Scaled]:
    """The networks of Figure 3: one coefficient grows."""
    ones = {"depth": 1.0, "width": 1.0, "resolution": 1.0}
    return [scaled(axis, **{**ones, axis: value}) for axis, values in FIGURE_3.items() for value in values]


def widths() -> list[Scaled]:
    """The networks of Figure 4: width grows at four depths and resolutions."""
    return [scaled(f"d={d:.1f}, r={r:.1f}", d, w, r) for d, r in FIGURE_4 for w in FIGURE_3["width"]]


def methods() -> list[Scaled]:
    """Figure 8: one axis or all together, up to some 4 billion multiply-adds."""
    law = CompoundScaling()
    together = [scaled("compound", *law.coefficients(phi)) for phi in PHIS]
    return [*(point for point in single_axis() if point.macs < 4.5e9), *together]


def _costs(title: str, points: list[Scaled], note: str) -> Report:
    rows = []
    for point in points:
        coefficients = (f"{value:.2f}" for value in (point.depth, point.width, point.resolution))
        rows.append((point.series, *coefficients, short(point.macs), short(point.law)))
    columns = ("series", "depth", "width", "resolution", "FLOPS (ours)", "FLOPS (Equation 3)")
    return Report(title, columns, tuple(rows), (note, LABELS, COST_AXIS, COSTS))


ROUNDING = "Networks differ from Equation 3 where layers and filters are rounded, and in what does not scale."


def figure3() -> Report:
    """What each axis costs alone."""
    return _costs("Figure 3: scaling one dimension of B0, cost axis", single_axis(), ROUNDING)


def figure4() -> Report:
    """What width costs at other depths and resolutions."""
    return _costs("Figure 4: scaling width for four baselines, cost axis", widths(), ROUNDING)


def figure8() -> Report:
    """What the four methods of scaling cost."""
    note = f"{ROUNDING} The picture adds the paper's five accuracies (Table 7) at our cost."
    return _costs("Figure 8: methods of scaling B0, cost axis", methods(), note)
