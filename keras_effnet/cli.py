"""The command `keras-effnet`: one verb per capability, each in a room of its own."""

import warnings
from typing import Annotated

import typer

from keras_effnet import (
    __version__,
    cli_classify,
    cli_evaluate,
    cli_explain,
    cli_export,
    cli_finetune,
    cli_search,
    cli_summary,
    cli_train,
    cli_weights,
    paper_cli,
)

app = typer.Typer(
    help="EfficientNet for Keras: photos in, labels out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The order of --help.
for verb in (
    cli_classify.classify,
    cli_explain.explain,
    cli_evaluate.evaluate,
    cli_finetune.finetune,
    cli_train.train,
    cli_train.recipes,
    cli_export.export,
    cli_search.search,
    cli_summary.summary,
    cli_summary.models,
):
    app.command()(verb)
app.add_typer(cli_weights.app, name="weights")
app.add_typer(paper_cli.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-effnet {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")]


@app.callback()
def _root(version: Version = False) -> None:
    # Pillow's warning of a decompression bomb, which is refused anyway.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")


def main() -> None:
    """Run the command line."""
    app(prog_name="keras-effnet")
