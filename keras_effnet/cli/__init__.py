"""The command `keras-effnet`: one verb per capability, each in a room of its own."""

import warnings
from typing import Annotated

import typer

from keras_effnet import __version__
from keras_effnet.cli import classify, evaluate, explain, export, finetune, paper, search, summary, train, weights

app = typer.Typer(
    help="EfficientNet for Keras: photos in, labels out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The order of --help.
for verb in (
    classify.classify,
    explain.explain,
    evaluate.evaluate,
    finetune.finetune,
    train.train,
    train.recipes,
    export.export,
    search.search,
    summary.summary,
    summary.models,
):
    app.command()(verb)
app.add_typer(weights.app, name="weights")
app.add_typer(paper.app)


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
