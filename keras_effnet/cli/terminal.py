"""What the verbs of the command line share: results on stdout, everything else on stderr, errors in one line."""

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

Model = Annotated[str, typer.Option(metavar="NAME|PATH", help="A network (keras-effnet models) or a .keras file.")]
Weights = Annotated[str | None, typer.Option(metavar="SET|PATH", help="A weight set or file; by default the best set.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Photos that the model gets at a time.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def console(*, stderr: bool = False) -> Console:
    """The place to print to: stdout, or stderr."""
    # File names are no markup.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextmanager
def plain_errors() -> Iterator[None]:
    """End in one clear message and an exit status instead of a stack trace."""
    try:
        yield
        print(end="", flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader has had enough (| head); what is left in the buffer must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except (ImportError, ValueError, OSError) as error:
        complain(str(error))
        raise typer.Exit(1) from None


def complain(message: str) -> None:
    """Say on stderr, in one line, what has gone wrong."""
    console(stderr=True).print(f"keras-effnet: {printable(' '.join(message.splitlines()))}", soft_wrap=True)


def printable(text: str) -> str:
    """Text as it is, or escaped where a terminal would act on it."""
    # File names may hold line breaks, terminal codes and bytes that are no Unicode.
    return text if text.isprintable() else repr(text)[1:-1]


def start_keras() -> None:
    """Import Keras without the notes of its backend; a user who has set TF_CPP_MIN_LOG_LEVEL sees them."""
    warnings.filterwarnings("ignore", module="PIL")
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        with muted("Starting Keras ..."):
            silence_backend()
            importlib.import_module("keras_effnet._keras")


def silence_backend() -> None:
    """Turn the notes of Keras's backend off before it is imported, unless the user has set TF_CPP_MIN_LOG_LEVEL."""
    warnings.filterwarnings("ignore", module="PIL")
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
        logging.getLogger("absl").setLevel(logging.ERROR)


class _Follow(logging.Handler):
    """Show what the package logs as the status of a terminal."""

    def __init__(self, status: Status) -> None:
        super().__init__(logging.INFO)
        self.status, self.what = status, status.status

    def emit(self, record: logging.LogRecord) -> None:
        self.status.update(f"{self.what} {record.getMessage()}")


@contextmanager
def following(status: Status) -> Iterator[None]:
    """For a while, show the progress that the package logs."""
    log, handler = logging.getLogger("keras_effnet"), _Follow(status)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def muted(status: str) -> Iterator[None]:
    """Keep what libraries write past Python off stderr; who has set TF_CPP_MIN_LOG_LEVEL sees it."""
    # TensorFlow 2.21 writes some notes before it looks at its log level, and LiteRT looks at none.
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or sys.stderr is None:
        yield
        return
    with os.fdopen(os.dup(2), "w") as terminal, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            with Console(file=terminal).status(status) as shown, following(shown):
                yield
        finally:
            os.dup2(terminal.fileno(), 2)


def millions(count: int) -> str:
    """A count in millions."""
    return f"{count / 1e6:,.1f} M"


def plain_table(*columns: str, left: Sequence[str] = ()) -> Table:
    """A plain table: a line under the head, columns of numbers to the right, long names folded and never cut."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        text = name in left
        view.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold", min_width=5)
    return view
