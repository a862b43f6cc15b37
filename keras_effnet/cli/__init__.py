"""The command `keras-effnet`: one verb per capability, each in a room of its own."""

import warnings
from typing import Annotated

import typer

from keras_effnet import __version__
from keras_effnet.cli import classify as cli_classify
from keras_effnet.cli import evaluate as cli_evaluate
from keras_effnet.cli import explain as cli_explain
from keras_effnet.cli import export as cli_export
from keras_effnet.cli import finetune as cli_finetune
from keras_effnet.cli import paper as paper_cli
from keras_effnet.cli import search as cli_search
from keras_effnet.cli import summary as cli_summary
from keras_effnet.cli import train as cli_train
from keras_effnet.cli import weights as cli_weights

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
