"""What a table of the paper becomes: Markdown for people, CSV for programs, the paper's numbers beside ours."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.paper.data import verified

MARK = "†"
NONE = "-"
FOOTNOTE = f"{MARK} a number of the paper that has not been compared with a second source."
ACCURACY = "Accuracies, in percent, are the paper's: nothing was trained here."
COSTS = "Ours are computed from the tables of blocks; FLOPS are multiply-adds, as in the paper."


@dataclass(frozen=True)
class Report:
    """A table to be written.

    Args:
        title: its heading, with the paper's number of the table.
        columns: the headings; "(paper)" and "(ours)" tell whose numbers they are.
        rows: the cells.
        notes: what a reader has to know.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    @property
    def all_notes(self) -> tuple[str, ...]:
        """The notes, with the meaning of the mark where it occurs."""
        marked = any(MARK in cell for row in self.rows for cell in row)
        return (*self.notes, FOOTNOTE) if marked else self.notes

    def markdown(self) -> str:
        """The table in Markdown, its notes below."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"# {self.title}\n\n{body}\n\n" + "\n\n".join(self.all_notes) + "\n"

    def csv(self) -> str:
        """The table as CSV: the mark becomes a last column that lists which of the row's columns bear it."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow((*self.columns, "not verified"))
        for row in self.rows:
            marked = [column for column, cell in zip(self.columns, row, strict=True) if MARK in cell]
            cells = ["" if cell == NONE else cell.replace(MARK, "") for cell in row]
            writer.writerow((*cells, "; ".join(marked)))
        return buffer.getvalue()

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write both files and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.md", folder / f"{name}.csv"]
        for path, text in zip(paths, (self.markdown(), self.csv()), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths


def quoted(printed: str) -> str:
    """A number as the paper prints it, marked unless it was compared with a second source."""
    if not printed:
        return NONE
    return printed.rstrip("+") if verified(printed) else printed + MARK


def short(value: float) -> str:
    """A number of parameters or multiply-adds with three digits.

    Example:
        >>> short(5_288_548), short(385_815_000)
        ('5.29M', '386M')
    """
    scaled, unit = (value / 1e9, "B") if value >= 1e9 else (value / 1e6, "M")
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f}{unit}"


def ratio(value: float) -> str:
    """A ratio as the paper writes it.

    Example:
        >>> ratio(4.92), ratio(16.1)
        ('4.9x', '16x')
    """
    return f"{value:.1f}x" if value < 9.95 else f"{value:.0f}x"


def model_name(key: str) -> str:
    """The paper's name of a variant, "EfficientNet-B0"."""
    return f"EfficientNet-{key.capitalize()}"
