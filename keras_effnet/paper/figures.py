"""The points of Figures 1, 3, 4, 5, 6 and 8: the paper's accuracies and our computed costs (arXiv:1905.11946)."""

from dataclasses import dataclass

from keras_effnet.complexity import complexity
from keras_effnet.paper import data as paper
from keras_effnet.paper.report import ACCURACY, COSTS, NONE, Report, model_name, quoted, short
from keras_effnet.paper.tables import scaled_b0, transfer_parameters
from keras_effnet.scaling import CompoundScaling, flops_ratio
from keras_effnet.variants import VARIANTS

# From the labels in the figures; not checked against a second source.
FIGURE_3 = {
    "width": (1.0, 1.4, 1.8, 2.6, 3.8, 5.0),
    "depth": (1.0, 2.0, 3.0, 4.0, 6.0, 8.0),
    "resolution": (1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.5),
}
FIGURE_4 = ((1.0, 1.0), (1.0, 1.3), (2.0, 1.0), (2.0, 1.3))
# Up to the end of the cost axis in Figure 8.
PHIS = (0, 1, 2, 3, 3.7)
LABELS = "The coefficients are from the labels in the paper's figure, not checked against a second source."
COST_AXIS = "Only the cost is computed. The accuracies would require training on ImageNet."


@dataclass(frozen=True)
class Point:
    """A network of Figure 1 or 5: parameters, FLOPS and accuracy in percent. `ours`: the costs are computed by us."""

    name: str
    params: float
    flops: float | None
    top1: float
    ours: bool


@dataclass(frozen=True)
class Scaled:
    """A scaled B0: series, coefficients, computed FLOPS (`macs`) and the prediction of Equation 3 (`predicted`)."""

    series: str
    depth: float
    width: float
    resolution: float
    macs: float
    predicted: float


def imagenet_points() -> list[Point]:
    """Return all networks of Table 2."""
    points = []
    for row in paper.TABLE_2:
        cost, ours = complexity(VARIANTS[row.peer]), row.model == model_name(row.peer)
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
    """Parameters and accuracy on ImageNet."""
    return _imagenet("Figure 1: model size and accuracy on ImageNet", "params")


def figure5() -> Report:
    """FLOPS and accuracy on ImageNet."""
    return _imagenet("Figure 5: FLOPS and accuracy on ImageNet", "FLOPS")


def figure6() -> Report:
    """Parameters and accuracy of transfer learning."""
    rows = []
    for row in paper.TABLE_5:
        ours = short(transfer_parameters(row.model, row.dataset))
        rows.append((row.dataset, row.rival, quoted(row.rival_params), NONE, quoted(row.rival_accuracy)))
        rows.append((row.dataset, model_name(row.model), quoted(row.params), ours, quoted(row.accuracy)))
    columns = ("data set", "model", "params (paper)", "params (ours)", "accuracy (paper)")
    notes = ("The points are from Table 5. The paper's figure has more.", COSTS, ACCURACY)
    return Report("Figure 6: parameters and accuracy of transfer learning", columns, tuple(rows), notes)


def scaled(series: str, depth: float, width: float, resolution: float) -> Scaled:
    """Scale B0 with these coefficients."""
    macs = complexity(scaled_b0(depth, width, resolution)).macs
    predicted = complexity(VARIANTS["b0"]).macs * flops_ratio(depth, width, resolution)
    return Scaled(series, depth, width, resolution, macs, predicted)


def single_axis() -> list[Scaled]:
    """Return the networks of Figure 3, in which one coefficient grows."""
    ones = {"depth": 1.0, "width": 1.0, "resolution": 1.0}
    return [scaled(axis, **{**ones, axis: value}) for axis, values in FIGURE_3.items() for value in values]


def widths() -> list[Scaled]:
    """Return the networks of Figure 4, in which width grows for four depths and resolutions."""
    return [scaled(f"d={d:.1f}, r={r:.1f}", d, w, r) for d, r in FIGURE_4 for w in FIGURE_3["width"]]


def methods() -> list[Scaled]:
    """Return the networks of Figure 8: one coefficient or all of them grow, up to 4.5 billion multiply-adds."""
    scaling = CompoundScaling()
    together = [scaled("compound", *scaling.coefficients(phi)) for phi in PHIS]
    return [*(point for point in single_axis() if point.macs < 4.5e9), *together]


def _costs(title: str, points: list[Scaled], note: str) -> Report:
    rows = []
    for point in points:
        coefficients = (f"{value:.2f}" for value in (point.depth, point.width, point.resolution))
        rows.append((point.series, *coefficients, short(point.macs), short(point.predicted)))
    columns = ("series", "depth", "width", "resolution", "FLOPS (ours)", "FLOPS (Equation 3)")
    return Report(title, columns, tuple(rows), (note, LABELS, COST_AXIS, COSTS))


ROUNDING = "Costs differ from Equation 3 because layers and filters are rounded and some parts do not scale."


def figure3() -> Report:
    """Cost of scaling one dimension."""
    return _costs("Figure 3: scaling one dimension of B0, cost axis", single_axis(), ROUNDING)


def figure4() -> Report:
    """Cost of scaling width for four depths and resolutions."""
    return _costs("Figure 4: scaling width for four baselines, cost axis", widths(), ROUNDING)


def figure8() -> Report:
    """Cost of the four scaling methods."""
    note = f"{ROUNDING} The picture also shows the paper's five accuracies (Table 7) at our costs."
    return _costs("Figure 8: scaling methods for B0, cost axis", methods(), note)
