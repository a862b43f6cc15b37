"""Plots of a fine-tuning run: learning curves and confusion matrix, as PNG. They need no display."""

import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

OURS, THEIRS = "#c2185b", "#555555"
# Maximum numbers of classes for which names and numbers are legible.
_MOST_NAMES, _MOST_NUMBERS = 60, 25


def learning_curves(file: BinaryIO, history: Sequence[Any]) -> None:
    """Plot loss and accuracy of every epoch; a dotted line separates the phases of fine-tuning."""
    figure = _figure(9, 3.8)
    epochs = range(1, len(history) + 1)
    head = sum(row.phase == "head" for row in history)
    for ax, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        ax.plot(epochs, [getattr(row, name) for row in history], color=THEIRS, label="training photos")
        ax.plot(epochs, [getattr(row, f"val_{name}") for row in history], color=OURS, label="validation photos")
        if 0 < head < len(history):
            ax.axvline(head + 0.5, color="black", linewidth=0.8, linestyle=":")
        ax.set_xlabel("epoch (head, then blocks)" if head else "epoch")
        ax.set_title(name)
        ax.grid(alpha=0.3)
        ax.legend()
    _save(figure, file)


def confusion_matrix(file: BinaryIO, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Plot how many photos of each class got each prediction; the colour shows the share of the row."""
    side = float(np.clip(2.5 + 0.45 * len(classes), 4, 16))
    figure = _figure(side + 1, side)
    ax = figure.add_subplot()
    parts = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = ax.imshow(parts, cmap="RdPu", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label="share of the class", shrink=0.8)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    if len(classes) <= _MOST_NAMES:
        upright = len(classes) > 8
        turned = {"rotation": 90 if upright else 30, "ha": "center" if upright else "right"}
        # parse_math=False, because a dollar sign in a name does not start a formula.
        ax.set_xticks(range(len(classes)), classes, parse_math=False, **turned)
        ax.set_yticks(range(len(classes)), classes, parse_math=False)
    if len(classes) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if parts[row, column] > 0.55 else "black"
            ax.text(column, row, str(count), ha="center", va="center", color=colour)
    _save(figure, file)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, file: BinaryIO) -> None:
    with warnings.catch_warnings():
        # Matplotlib's default font has no Chinese, Japanese and Korean glyphs, and draws boxes instead.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="png")
