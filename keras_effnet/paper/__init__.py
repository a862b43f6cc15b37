"""The papers' tables and figures that need no training, as files: `write("table2", "out")`.

Sources: arXiv:1905.11946, and 2104.00298 for EfficientNetV2.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from keras_effnet.errors import check_choice, require_packages
from keras_effnet.paper import figures, tables, v2_tables
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

V2_REPORTS: Mapping[str, Callable[[], Report]] = MappingProxyType(
    {
        "table1": v2_tables.table1,
        "table2": v2_tables.table2,
        "table3": v2_tables.table3,
        "table4": v2_tables.table4,
        "table5": v2_tables.table5,
        "table6": v2_tables.table6,
        "table7": v2_tables.table7,
        "table8": v2_tables.table8,
        "search": v2_tables.search,
    }
)
PAPERS: Mapping[str, Mapping[str, Callable[[], Report]]] = MappingProxyType({"v1": REPORTS, "v2": V2_REPORTS})


def report(name: str, of: str = "v1") -> Report:
    """Create a table, or the table of a figure's points. The first paper's "table4" measures latencies for minutes.

    Args:
        name: such as "table2" or "figure5".
        of: the paper: "v1" (EfficientNet) or "v2" (EfficientNetV2).

    Raises:
        ValueError: the paper, the table or the figure does not exist.

    Example:
        >>> report("table1").rows[0][:3]
        ('1', 'Conv3x3', 'Conv3x3')
        >>> report("table4", of="v2").rows[1][:3]
        ('1', 'Fused-MBConv1, k3x3', 'Fused-MBConv1, k3x3')
    """
    check_choice("of", of, PAPERS)
    reports = PAPERS[of]
    if name not in reports:
        raise ValueError(f"There is no report {name!r}. Expected one of {', '.join(sorted(reports))}.")
    return reports[name]()


def check_reports(names: Iterable[str]) -> None:
    """Check that Matplotlib is installed if one of the reports is a figure.

    Raises:
        ImportError: it is not installed.
    """
    drawn = [name for name in names if name in PLOTS]
    if drawn:
        require_packages(f"Drawing {drawn[0]}", "matplotlib")


def write(name: str, folder: str | Path, *, of: str = "v1", made: Report | None = None) -> list[Path]:
    """Write a table or figure as Markdown and CSV, and a figure also as PNG. Returns the paths.

    Args:
        name: such as "table2" or "figure5".
        folder: folder for the files; it is created if it does not exist.
        of: the paper, as in `report`. The files of "v2" have names such as v2-table1.md.
        made: the report, if it has been created already.

    Raises:
        ValueError: the paper, the table or the figure does not exist.
        ImportError: Matplotlib is not installed, which figures need (extra `plots`).
    """
    check_reports([name])
    content = made or report(name, of)
    paths = []
    if of == "v1" and name in PLOTS:
        paths.append(Path(folder) / f"{name}.png")
        draw(name, paths[0])
    return [*content.write(Path(folder), name if of == "v1" else f"{of}-{name}"), *paths]
