"""`keras-effnet paper`: the paper's tables and figures next to ours, as Markdown, CSV and PNG."""

from pathlib import Path
from typing import Annotated

import typer

from keras_effnet.cli.help_page import at_least
from keras_effnet.design.latency import single_core_latencies
from keras_effnet.paper import REPORTS, write
from keras_effnet.paper.tables import table4

QUICK = "Trial run: measured in 2 runs at 64 pixels. Do not quote this number."


def paper(
    what: Annotated[list[str], typer.Argument(metavar="NAME", help=f"{', '.join(REPORTS)}, or all.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")] = Path("paper"),
    runs: Annotated[
        int, typer.Option(metavar="N", callback=at_least(1), help="table4: number of runs to average.")
    ] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="table4: two runs on small images, as a trial.")] = False,
) -> None:
    """Write the paper's tables and figures next to ours, as Markdown, CSV and, for figures, PNG.

    Everything is arithmetic except table4, which measures latencies on one core and takes minutes.
    """
    names = list(dict.fromkeys(name for wanted in what for name in (REPORTS if wanted == "all" else [wanted])))
    unknown = [name for name in names if name not in REPORTS]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} does not exist. Expected one of {', '.join(REPORTS)}, all.", param_hint="NAME"
        )
    size = 64 if quick else None
    for name in names:
        made = None
        if name == "table4":
            made = table4(
                lambda models: single_core_latencies(models, size=size, runs=2 if quick else runs),
                note=QUICK if quick else "",
                runs=2 if quick else runs,
            )
        try:
            for path in write(name, out, made=made):
                typer.echo(path)
        except (ImportError, OSError, ValueError) as error:
            typer.echo(f"keras-effnet: {error}", err=True)
            raise typer.Exit(1) from None
