"""`keras-effnet paper`: the paper's tables and figures next to ours, as Markdown, CSV and PNG."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import AsJson, console, plain_errors
from keras_effnet.design.latency import single_core_latencies
from keras_effnet.paper import REPORTS, check_reports, write
from keras_effnet.paper.report import Report
from keras_effnet.paper.tables import table4

QUICK = "Trial run: measured in 2 runs at 64 pixels. Do not quote this number."


def paper(
    what: Annotated[list[str], typer.Argument(metavar="NAME", help=f"{', '.join(REPORTS)}, or all.")],
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Folder for the files.")] = Path("paper"),
    runs: Annotated[
        int, typer.Option(metavar="N", callback=at_least(1), help="table4: number of runs to average.")
    ] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="table4: two runs on small images, as a trial.")] = False,
    as_json: AsJson = False,
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
    with plain_errors():
        check_reports(names)
        files: dict[str, list[str]] = {}
        with console(stderr=True).status("") as status:
            for name in names:
                status.update(f"{name}: measuring latencies ..." if name == "table4" else f"{name} ...")
                files[name] = [str(path) for path in write(name, out, made=_measured(name, runs, quick=quick))]
                if not as_json:
                    print("\n".join(files[name]), flush=True)
        if as_json:
            print(json.dumps(files, indent=2))


def _measured(name: str, runs: int, *, quick: bool) -> Report | None:
    """Table 4, which depends on the options; None for what is computed."""
    if name != "table4":
        return None
    runs, size = (2, 64) if quick else (runs, None)
    return table4(
        lambda models: single_core_latencies(models, size=size, runs=runs), note=QUICK if quick else "", runs=runs
    )
