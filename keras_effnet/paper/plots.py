"""The plots of the figures: filled markers for computed costs, hollow ones for the paper's costs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keras_effnet.paper import data as paper
from keras_effnet.paper import figures
from keras_effnet.paper.report import model_name
from keras_effnet.paper.tables import transfer_parameters

OURS, THEIRS = "#c2185b", "#555555"
SERIES = {"width": "#1b7837", "depth": "#2166ac", "resolution": "#e08214", "compound": OURS}
BILLION, MILLION = 1e9, 1e6
PHI_LABELS = tuple(f"φ = {phi:g}" for phi in figures.PHIS)
_CROSS = {"marker": "x", "color": "black", "zorder": 3}
_HOLLOW = {"marker": "o", "color": THEIRS, "mfc": "white"}


def draw(name: str, path: Path) -> None:
    """Draw a figure as PNG with Matplotlib; works without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    PLOTS[name](figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


# Offsets of the labels from their markers, in points.
_LABELS_1 = {
    "DenseNet-169": (6, -3), "ResNet-50": (6, -4), "Inception-v3": (7, -7), "Xception": (7, 0),
    "DenseNet-264": (-76, -3), "ResNet-152": (6, -4), "Inception-v4": (-70, -4), "Inception-ResNet-v2": (6, -5),
    "ResNeXt-101": (6, -8), "PolyNet": (6, 0), "SENet": (7, -4), "NASNet-A": (-12, -14), "AmoebaNet-A": (-78, -6),
    "PNASNet": (2, 7), "AmoebaNet-C": (7, -3), "GPipe": (-14, 8),
}  # fmt: skip
_LABELS_5 = {
    "DenseNet-169": (-76, -3), "ResNet-50": (6, -5), "Inception-v3": (-70, -3), "Xception": (6, -3),
    "DenseNet-264": (-76, -3), "ResNet-152": (6, -4), "Inception-v4": (6, -9), "Inception-ResNet-v2": (6, 0),
    "ResNeXt-101": (-72, -4), "PolyNet": (6, -4), "SENet": (7, -4), "NASNet-A": (-12, -14), "AmoebaNet-A": (-78, -6),
    "PNASNet": (-4, 7), "AmoebaNet-C": (7, -3),
}  # fmt: skip


def _imagenet(figure: Any, axis: str, unit: float, xlabel: str, offsets: Mapping[str, tuple[int, int]]) -> None:
    figure.set_size_inches(8, 5.5)
    ax = figure.add_subplot()
    points = [point for point in figures.imagenet_points() if getattr(point, axis) is not None]
    ours, theirs = ([point for point in points if point.ours == mine] for mine in (True, False))
    printed = [row for row in paper.TABLE_2 if row.model == model_name(row.peer)]
    for cost, top1, style, label in (
        (
            [getattr(point, axis) for point in ours],
            ours,
            {"marker": "o", "color": OURS, "linestyle": "-"},
            "EfficientNet, computed cost",
        ),
        ([paper.number(getattr(row, axis)) for row in printed], ours, _CROSS, "EfficientNet, the paper's cost"),
        ([getattr(point, axis) for point in theirs], theirs, _HOLLOW, "others, the paper's cost"),
    ):
        accuracies = [point.top1 for point in top1]
        ax.plot([value / unit for value in cost], accuracies, label=label, **{"linestyle": "none", **style})
    for point in points:
        text = point.name.removeprefix("EfficientNet-") if point.ours else point.name
        offset = (-20, 5) if point.ours else offsets[point.name]
        colour, weight = (OURS, "bold") if point.ours else (THEIRS, "normal")
        style = {"textcoords": "offset points", "fontsize": 9, "color": colour, "weight": weight}
        ax.annotate(text, (getattr(point, axis) / unit, point.top1), xytext=offset, **style)
    _finish(ax, xlabel, "top-1 accuracy on ImageNet, % (paper)", log=True)
    left, right = ax.get_xlim()
    ax.set_xlim(left / 1.15, right * 2)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)


def _figure1(figure: Any) -> None:
    _imagenet(figure, "params", MILLION, "parameters, millions", _LABELS_1)


def _figure5(figure: Any) -> None:
    _imagenet(figure, "flops", BILLION, "multiply-adds, billions", _LABELS_5)


def _figure6(figure: Any) -> None:
    figure.set_size_inches(13, 6.8)
    axes = dict(zip([row.name for row in paper.TABLE_6], figure.subplots(2, 4).flat, strict=True))
    for name, ax in axes.items():
        ax.set_title(name, fontsize=11)
        ax.set_xlim(2, 1300)
        _finish(ax, "parameters, millions", "accuracy, % (paper)", log=True)
        ax.margins(y=0.35)
    for row in paper.TABLE_5:
        ax, above = axes[row.dataset], paper.number(row.accuracy) >= paper.number(row.rival_accuracy)
        x, y = transfer_parameters(row.model, row.dataset) / MILLION, paper.number(row.accuracy)
        # Shift the label to the right, or it overlaps the label of the dotted line.
        _mark(ax, x, y, model_name(row.model)[-2:], OURS, OURS, above=above, right=0 if row.rival_params else 14)
        if row.params:
            ax.plot(paper.number(row.params) / MILLION, y, linestyle="none", **_CROSS)
        y = paper.number(row.rival_accuracy)
        if row.rival_params:
            _mark(ax, paper.number(row.rival_params) / MILLION, y, row.rival, THEIRS, "white", above=not above)
        else:
            ax.axhline(y, color=THEIRS, linestyle=":", linewidth=1)
            place = {"xytext": (0, 3), "textcoords": "offset points", "fontsize": 9, "color": THEIRS}
            ax.annotate(f"{row.rival}, size unknown", (2.3, y), **place)
    figure.suptitle(
        "filled: EfficientNet, computed parameters     x: EfficientNet, the paper's     hollow: others, the paper's",
        fontsize=11,
    )


def _mark(ax: Any, x: float, y: float, text: str, colour: str, fill: str, *, above: bool, right: int = 0) -> None:
    ax.plot(x, y, "o", color=colour, mfc=fill)
    place = {"xytext": (right, 7 if above else -15), "textcoords": "offset points", "ha": "center"}
    ax.annotate(text, (x, y), fontsize=9, color=colour, **place)


def _figure3(figure: Any) -> None:
    figure.set_size_inches(12, 4.3)
    points = figures.single_axis()
    for ax, series in zip(figure.subplots(1, 3), figures.FIGURE_3, strict=True):
        chosen = [point for point in points if point.series == series]
        values = [getattr(point, series) for point in chosen]
        ax.plot([point.predicted / BILLION for point in chosen], values, "--", color=THEIRS, label="Equation 3")
        ax.plot([point.macs / BILLION for point in chosen], values, "o-", color=SERIES[series], label="computed")
        _finish(ax, "multiply-adds, billions", f"{series} coefficient")
        ax.legend(loc="lower right")


def _figure4(figure: Any) -> None:
    figure.set_size_inches(8, 5)
    ax = figure.add_subplot()
    lines: dict[str, list[figures.Scaled]] = {}
    for point in figures.widths():
        lines.setdefault(point.series, []).append(point)
    for (series, points), colour, mark in zip(lines.items(), SERIES.values(), "osD^", strict=True):
        widths = [point.width for point in points]
        ax.plot([point.macs / BILLION for point in points], widths, f"{mark}-", color=colour, label=series)
    _finish(ax, "multiply-adds, billions (computed)", "width coefficient", log=True)
    ax.legend(loc="lower right", title="depth and resolution")


def _figure8(figure: Any) -> None:
    figure.set_size_inches(8.5, 7)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for row, series in zip(paper.TABLE_7[1:], ("depth", "width", "resolution", "compound"), strict=True):
        point, top1 = figures.scaled(series, row.depth, row.width, row.resolution), paper.number(row.top1)
        top.plot(point.macs / BILLION, top1, "o", color=SERIES[series], label=f"{series}, computed cost")
        top.plot(paper.number(row.flops) / BILLION, top1, "o", color=SERIES[series], mfc="white")
    base, top1 = figures.scaled("", 1, 1, 1), paper.number(paper.TABLE_7[0].top1)
    top.plot(base.macs / BILLION, top1, "s", color="black", label="B0, computed cost")
    top.plot([], [], "o", color=THEIRS, mfc="white", label="hollow: the paper's cost")
    _finish(top, "", "top-1 accuracy, % (paper, Table 7)")
    top.legend(loc="center right")
    for i, series in enumerate(SERIES):
        points = [point for point in figures.methods() if point.series == series]
        bottom.plot([point.macs / BILLION for point in points], [i] * len(points), "o-", color=SERIES[series])
        labels = [f"{max(point.depth, point.width, point.resolution):g}" for point in points]
        for point, text in zip(points, PHI_LABELS if series == "compound" else labels, strict=True):
            place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 9}
            bottom.annotate(text, (point.macs / BILLION, i), color=SERIES[series], **place)
    bottom.set_yticks(range(len(SERIES)), list(SERIES))
    bottom.set_ylim(-0.5, 3.7)
    _finish(bottom, "multiply-adds, billions (computed)", "")


def _finish(ax: Any, xlabel: str, ylabel: str, *, log: bool = False) -> None:
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(visible=True, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


PLOTS: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        "figure1": _figure1,
        "figure3": _figure3,
        "figure4": _figure4,
        "figure5": _figure5,
        "figure6": _figure6,
        "figure8": _figure8,
    }
)
