"""`keras-effnet paper`: the paper's tables and figures next to ours, as Markdown, CSV and PNG."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import AsJson, console, plain_errors
from keras_effnet.design.latency import single_core_latencies
from keras_effnet.paper import PAPERS, REPORTS, V2_REPORTS, check_reports, write
from keras_effnet.paper.report import Report
from keras_effnet.paper.tables import table4

QUICK = "Trial run: measured in 2 runs at 64 pixels. Do not quote this number."


def paper(
    what: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help=f"{', '.join(REPORTS)}, or all; of v2: {', '.join(V2_REPORTS)}, or all."),
    ],
    of: Annotated[
        str,
        typer.Option(metavar="PAPER", help="v1 (EfficientNet, arXiv:1905.11946) or v2 (EfficientNetV2, 2104.00298)."),
    ] = "v1",
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Folder for the files.")] = Path("paper"),
    runs: Annotated[
        int, typer.Option(metavar="N", callback=at_least(1), help="table4: number of runs to average.")
    ] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="table4: two runs on small images, as a trial.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the paper's tables and figures next to ours, as Markdown, CSV and, for figures, PNG.

    Everything is arithmetic except table4 of v1, which measures latencies on one core and takes minutes.
    """
    if of not in PAPERS:
        raise typer.BadParameter(f"{of!r} does not exist. Expected one of {', '.join(PAPERS)}.", param_hint="--of")
    reports = PAPERS[of]
    names = list(dict.fromkeys(name for wanted in what for name in (reports if wanted == "all" else [wanted])))
    unknown = [name for name in names if name not in reports]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} does not exist. Expected one of {', '.join(reports)}, all.", param_hint="NAME"
        )
    with plain_errors():
        check_reports(names)
        files: dict[str, list[str]] = {}
        with console(stderr=True).status("") as status:
            for name in names:
                made = None
                if name == "table4" and of == "v1":
                    status.update(f"{name}: measuring latencies ...")
                    made = _measured(runs, quick=quick)
                files[name] = [str(path) for path in write(name, out, of=of, made=made)]
                if not as_json:
                    print("\n".join(files[name]), flush=True)
        if as_json:
            print(json.dumps(files, indent=2))


def _measured(runs: int, *, quick: bool) -> Report:
    """Table 4 of the first paper, which depends on the options."""
    runs, size = (2, 64) if quick else (runs, None)
    return table4(
        lambda models: single_core_latencies(models, size=size, runs=runs), note=QUICK if quick else "", runs=runs
    )
