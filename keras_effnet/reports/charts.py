"""Charts as SVG inside a page: curves, a confusion matrix, a reliability diagram."""

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

COLORS = ("var(--blue)", "var(--amber)", "var(--red)")


def curves(series: Mapping[str, Sequence[float]], *, x_label: str, y_label: str) -> str:
    """Lines over 1, 2, 3, ...: one per name, with a legend. Values that are not finite are gaps.

    Args:
        series: the values of each line, in order.
        x_label, y_label: what the axes show.
    """
    width, height, left, bottom, top = 500, 260, 56, 44, 28
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(0.0, *finite), max(*finite, 1e-9)
    count = max(len(values) for values in series.values())

    def point(i: int, value: float) -> str:
        x = left + (width - left - 16) * (i / max(count - 1, 1))
        y = top + (height - top - bottom) * (1 - (value - low) / (high - low))
        return f"{x:.1f},{y:.1f}"

    parts = [_axes(width, height, left, bottom, top, x_label, y_label)]
    for share in (0.0, 0.5, 1.0):
        y = top + (height - top - bottom) * (1 - share)
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{low + share * (high - low):.2g}</text>')
    for x, tick in ((left, 1), (width - 16, count)):
        parts.append(f'<text x="{x}" y="{height - bottom + 18}" text-anchor="middle">{tick}</text>')
    for n, (name, values) in enumerate(series.items()):
        color = COLORS[n % len(COLORS)]
        points = [point(i, value) for i, value in enumerate(values) if math.isfinite(value)]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>' for x, y in (p.split(",") for p in points)]
        parts.append(f'<rect x="{left + 130 * n}" y="8" width="12" height="4" fill="{color}"/>')
        parts.append(f'<text x="{left + 18 + 130 * n}" y="15">{escape(name)}</text>')
    return _svg(width, height, f"{y_label} over {x_label}", parts)


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Photos by true class (row) and predicted class (column); darker cells are larger shares of their row.

    Args:
        counts: integers (classes, classes).
        classes: their names.
    """
    n, cell = len(classes), max(26, min(56, 560 // len(classes)))
    left = 14 + 7 * min(max(map(len, classes)), 24)
    width, height = left + n * cell + 8, left + n * cell + 8
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = []
    for i, name in enumerate(classes):
        shown = escape(name if len(name) <= 24 else f"{name[:23]}…")
        middle = left + (i + 0.5) * cell
        parts.append(f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">{shown}</text>')
        parts.append(f'<text transform="translate({middle + 4:.1f},{left - 8}) rotate(-90)">{shown}</text>')
        for j in range(n):
            x, y, share = left + j * cell, left + i * cell, shares[i, j]
            title = f"{counts[i, j]} of {counts[i].sum()} photos of {name} as {classes[j]}"
            color = COLORS[0] if i == j else COLORS[2]
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="var(--tint)"/>'
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{color}" '
                f'fill-opacity="{0.85 * share:.3f}"><title>{escape(title)}</title></rect>'
            )
            if counts[i, j]:
                fill = ' fill="#fff"' if share > 0.6 else ""
                parts.append(
                    f'<text x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle"{fill} '
                    f'pointer-events="none">{counts[i, j]}</text>'
                )
    return f'<div class="wide">{_svg(width, height, "confusion matrix", parts, fixed=True)}</div>'


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> str:
    """Share of correct answers by confidence. On the diagonal, a score of 0.8 is right in 8 of 10 cases.

    Args:
        confidence: the scores of the predicted classes, 0..1, (photos,).
        correct: whether these are right, bool (photos,).
        bins: number of intervals of equal width.
    """
    side, left, bottom, top = 320, 56, 44, 16
    span = side - left - 16
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [_axes(side, side, left, bottom, top, "score of the label", "share correct")]
    base, height = side - bottom, side - bottom - top
    parts.append(
        f'<line x1="{left}" y1="{base}" x2="{left + span}" y2="{top}" stroke="var(--soft)" stroke-dasharray="4 4"/>'
    )
    for share in (0, 0.5, 1):
        parts.append(f'<text x="{left - 8}" y="{base - share * height + 4:.1f}" text-anchor="end">{share:g}</text>')
        parts.append(f'<text x="{left + share * span:.1f}" y="{base + 18}" text-anchor="middle">{share:g}</text>')
    for b in range(bins):
        inside = where == b
        if inside.any():
            right = float(correct[inside].mean())
            title = (
                f"{int(inside.sum())} photos with a score of {b / bins:g} to {(b + 1) / bins:g}: {right:.0%} correct"
            )
            parts.append(
                f'<rect x="{left + span * b / bins + 2:.1f}" y="{base - right * height:.1f}" '
                f'width="{span / bins - 4:.1f}" height="{max(right * height, 1):.1f}" fill="{COLORS[0]}">'
                f"<title>{title}</title></rect>"
            )
    return _svg(side, side, "reliability diagram", parts)


def _axes(width: int, height: int, left: int, bottom: int, top: int, x_label: str, y_label: str) -> str:
    line = f"M{left},{top} V{height - bottom} H{width - 16}"
    middle = (top + height - bottom) / 2
    return (
        f'<path d="{line}" fill="none" stroke="var(--line)"/>'
        f'<text x="{(left + width - 16) / 2}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(14,{middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )


def _svg(width: int, height: int, label: str, parts: Sequence[str], *, fixed: bool = False) -> str:
    """`fixed`: keep the size on a narrow screen, where the element around it scrolls."""
    style = f' style="max-width: none; width: {width}px"' if fixed else f' width="{width}"'
    return (
        f'<svg viewBox="0 0 {width} {height}"{style} role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
