"""A table with the paper's numbers next to ours, written as Markdown and CSV."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.paper.data import verified

MARK = "†"
NONE = "-"
FOOTNOTE = f"{MARK} The paper's number, not checked against a second source."
ACCURACY = "Accuracies are the paper's, in percent. Nothing was trained here."
COSTS = "Our costs are computed from the block tables. FLOPS are multiply-adds, as in the paper."


@dataclass(frozen=True)
class Report:
    """A table with a title and notes.

    Args:
        title: the heading, with the number of the table in the paper.
        columns: the column names; "(paper)" and "(ours)" mark the source of the numbers.
        rows: the cells.
        notes: paragraphs below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, plus the explanation of the mark if it occurs."""
        marked = any(MARK in cell for row in self.rows for cell in row)
        return (*self.notes, FOOTNOTE) if marked else self.notes

    def markdown(self) -> str:
        """Format the table as Markdown, with the notes below."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"# {self.title}\n\n{body}\n\n" + "\n\n".join(self.all_notes) + "\n"

    def csv(self) -> str:
        """Format the table as CSV. Instead of marks, the last column lists the columns with unverified numbers."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow((*self.columns, "not verified"))
        for row in self.rows:
            marked = [column for column, cell in zip(self.columns, row, strict=True) if MARK in cell]
            cells = ["" if cell == NONE else cell.replace(MARK, "") for cell in row]
            writer.writerow((*cells, "; ".join(marked)))
        return buffer.getvalue()

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write both files. Returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.md", folder / f"{name}.csv"]
        for path, text in zip(paths, (self.markdown(), self.csv()), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths


def quoted(printed: str) -> str:
    """Format a number as in the paper, with a mark unless it was checked against a second source."""
    if not printed:
        return NONE
    return printed.rstrip("+") if verified(printed) else printed + MARK


def short(value: float) -> str:
    """Format a number of parameters or multiply-adds with three digits.

    Example:
        >>> short(5_288_548), short(385_815_000)
        ('5.29M', '386M')
    """
    scaled, unit = (value / 1e9, "B") if value >= 1e9 else (value / 1e6, "M")
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f}{unit}"


def ratio(value: float) -> str:
    """Format a ratio as in the paper.

    Example:
        >>> ratio(4.92), ratio(16.1)
        ('4.9x', '16x')
    """
    return f"{value:.1f}x" if value < 9.95 else f"{value:.0f}x"


def model_name(key: str) -> str:
    """Return the paper's name of a variant, such as "EfficientNet-B0"."""
    return f"EfficientNet-{key.capitalize()}"
