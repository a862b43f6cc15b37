"""The paper's tables and figures that need no training, as files: `write("table2", "out")` (arXiv:1905.11946)."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from keras_effnet.errors import require_packages
from keras_effnet.paper import figures, tables
from keras_effnet.paper.plots import PLOTS, draw
from keras_effnet.paper.report import Report

REPORTS: Mapping[str, Callable[[], Report]] = MappingProxyType(
    {
        "table1": tables.table1,
        "table2": tables.table2,
        "table3": tables.table3,
        "table4": tables.table4,
        "table5": tables.table5,
        "table6": tables.table6,
        "table7": tables.table7,
        "table8": tables.table8,
        "figure1": figures.figure1,
        "figure3": figures.figure3,
        "figure4": figures.figure4,
        "figure5": figures.figure5,
        "figure6": figures.figure6,
        "figure8": figures.figure8,
    }
)


def report(name: str) -> Report:
    """Create a table, or the table of a figure's points. "table4" measures latencies, which takes minutes.

    Raises:
        ValueError: the table or figure does not exist.

    Example:
        >>> report("table1").rows[0][:3]
        ('1', 'Conv3x3', 'Conv3x3')
    """
    if name not in REPORTS:
        raise ValueError(f"There is no report {name!r}. Expected one of {', '.join(sorted(REPORTS))}.")
    return REPORTS[name]()


def check_reports(names: Iterable[str]) -> None:
    """Check that Matplotlib is installed if one of the reports is a figure.

    Raises:
        ImportError: it is not installed.
    """
    drawn = [name for name in names if name in PLOTS]
    if drawn:
        require_packages(f"Drawing {drawn[0]}", "matplotlib")


def write(name: str, folder: str | Path, *, made: Report | None = None) -> list[Path]:
    """Write a table or figure as Markdown and CSV, and a figure also as PNG. Returns the paths.

    Args:
        name: such as "table2" or "figure5".
        folder: folder for the files; it is created if it does not exist.
        made: the report, if it has been created already.

    Raises:
        ValueError: the table or figure does not exist.
        ImportError: Matplotlib is not installed, which figures need (extra `plots`).
    """
    check_reports([name])
    content = made or report(name)
    paths = []
    if name in PLOTS:
        paths.append(Path(folder) / f"{name}.png")
        draw(name, paths[0])
    return [*content.write(Path(folder), name), *paths]
