"""The command `keras-effnet`: one verb per capability, each in its own file."""

import sys
from collections.abc import Callable
from io import TextIOWrapper

import typer

from keras_effnet.cli import (
    classify,
    embed,
    evaluate,
    explain,
    export,
    finetune,
    hub,
    inspect,
    paper,
    search,
    serve,
    summary,
    train,
    weights,
)
from keras_effnet.cli.help_page import Command, Group, begin
from keras_effnet.cli.terminal import INTERRUPTED, report_interrupt

EXIT_CODES = (
    "Exit codes: 0 success; 1 an error, or a photo that cannot be read; 2 wrong usage; 130 interrupted with Ctrl-C; "
    "141 the reader of the output, such as head, has closed it. Results go to stdout, everything else to stderr."
)
app = typer.Typer(
    help="EfficientNet for Keras: classify photos, train and fine-tune networks, export them.",
    epilog=EXIT_CODES,
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# The commands in the order of --help, each with the examples at the end of its own help.
COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    classify.classify: (
        "keras-effnet classify photos/ --model lite0",
        "keras-effnet classify 'photos/*.jpg' --out labels.csv",
        "curl -sL https://example.com/cat.jpg | keras-effnet classify -",
    ),
    explain.explain: (
        "keras-effnet explain photo.jpg --class tabby",
        "keras-effnet explain photo.jpg --model lite0 --model lite2 --out maps",
    ),
    evaluate.evaluate: (
        "keras-effnet evaluate val/ --model lite0",
        "keras-effnet evaluate photos/ --labels labels.txt --json",
    ),
    finetune.finetune: (
        "keras-effnet finetune flowers/ --out run",
        "keras-effnet classify photo.jpg --model run",
    ),
    inspect.inspect: (
        "keras-effnet inspect flowers/",
        "keras-effnet inspect flowers/ --model run --out inspection",
    ),
    embed.embed: (
        "keras-effnet embed photos/ --out features.npz",
        "keras-effnet embed photos/ --out features.parquet --model run",
    ),
    embed.similar: (
        "keras-effnet similar photo.jpg --in features.npz",
        "keras-effnet similar photos/ --in features.npz --top 1 --json",
    ),
    train.train: (
        "keras-effnet train imagenet/ --out run --model b0",
        "keras-effnet train 'tfrecords/train-*' --out run --strategy mirrored",
        "To train on a few hundred photos of your own, use keras-effnet finetune.",
    ),
    train.recipes: (),
    export.export: (
        "keras-effnet export lite0.tflite --model lite0",
        "keras-effnet export served/lite0 --format saved_model",
    ),
    serve.serve: (
        "keras-effnet serve lite0",
        "keras-effnet serve run --port 9000 --workers 2",
    ),
    hub.push: (
        "keras-effnet push hf:ann/flowers run",
        "keras-effnet push hf:ann/flowers flowers.tflite --private",
    ),
    hub.pull: (
        "keras-effnet pull hf:ann/flowers flowers",
        "keras-effnet pull hf:ann/flowers@v1 flowers",
    ),
    search.search: (
        "keras-effnet search photos/ --target-macs 8M --size 32",
        "keras-effnet search photos/ --storage sqlite:///search.db",
    ),
    summary.summary: ("keras-effnet summary b0",),
    summary.models: (),
    paper.paper: ("keras-effnet paper table2 figure1 --out paper",),
}
for verb, examples in COMMANDS.items():
    epilog = "\n\n".join(("Examples:", *examples)) if examples else None
    app.command(cls=Command, epilog=epilog, no_args_is_help=verb is paper.paper)(verb)
app.add_typer(weights.app, name="weights")
app.callback()(begin)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Labels and file names may not exist in the encoding of the terminal.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="keras-effnet")
    except KeyboardInterrupt:  # outside of a command, for example while it exits
        report_interrupt()
        sys.exit(INTERRUPTED)
