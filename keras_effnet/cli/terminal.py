"""What the commands share: results go to stdout, everything else to stderr, and each error is one line."""

import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, TextIO

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.table import Column, Table

from keras_effnet.cli.help_page import RUNNING, at_least
from keras_effnet.errors import OfflineError
from keras_effnet.native_logs import LEVEL, muted_stderr, wants_logs
from keras_effnet.variants import VARIANTS

Photos = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PHOTO",
        help="Photos, folders of photos, patterns such as 'photos/*.jpg', or - for one photo on standard input.",
    ),
]
Samples = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Photo from scikit-image, for example chelsea or coffee; can be repeated."),
]


def _complete_model(typed: str) -> list[str]:
    return [name for name in VARIANTS if name.startswith(typed)]


Model = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        autocompletion=_complete_model,  # the shell completes paths where no name matches
        help="Network name (see keras-effnet models), .keras file, or folder of a training run.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Weight set (see keras-effnet weights list) or weight file. Default: the most accurate set.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Labels of the model, one per line. Default: labels.txt beside the model, ImageNet's, or indices.",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", callback=at_least(1), help="Side of the images, for a network by name or a model of any size."
    ),
]
Crop = Annotated[
    str,
    typer.Option(
        metavar="CROP",
        help="center for the central square, none for the whole photo. Default: as the model was exported, or center.",
    ),
]
Decode = Annotated[
    str | None,
    typer.Option(
        metavar="WAY",
        help="exact, or fast to decode large JPEG photos at a smaller size. Default: as exported, or exact.",
    ),
]
BatchSize = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Photos per batch.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


# The width of output that is not a terminal: lines are never folded, whatever COLUMNS is.
UNLIMITED = 100_000
# Words up to this length stay whole in a table; longer ones, such as paths, are folded in narrow terminals.
LONGEST_WORD = 14


def console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr."""
    width = None if is_terminal(sys.stderr if stderr else sys.stdout) else UNLIMITED
    # File names can look like markup or emoji codes.
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to `plain_errors`; Rich would exit with 1."""
        raise BrokenPipeError


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal. Unlike Rich's answer, this does not depend on FORCE_COLOR."""
    return stream is not None and not stream.closed and stream.isatty()


# Exit statuses as those of a shell: 128 plus the number of the signal that would have ended the process.
INTERRUPTED, CLOSED_PIPE = 130, 141


@contextmanager
def plain_errors(*, resume: str = "") -> Iterator[None]:
    """Print one clear message and exit with a status instead of a stack trace.

    Args:
        resume: how to resume the command after Ctrl-C.
    """
    try:
        yield
        print(end="", flush=True)
    except KeyboardInterrupt:
        report_interrupt(resume)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader has closed the pipe (| head). Flushing the rest at exit must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None
    except OfflineError as error:
        first, *others = str(error).splitlines()
        complain(first)
        for line in others:
            console(stderr=True).print(printable(line), soft_wrap=True)
        raise typer.Exit(1) from None
    except (ImportError, ValueError, OSError) as error:
        complain(_in_option_names(str(error)))
        raise typer.Exit(1) from None


def _in_option_names(message: str) -> str:
    """A message of the Python API, with the options of the running command instead of Python's arguments."""
    command = RUNNING.get()
    for parameter in command.params if command else ():
        typed = [option for option in parameter.opts if any(word.split("=")[0] == option for word in sys.argv)]
        option = (typed or parameter.opts)[0]
        if option.startswith("--") and parameter.name:
            message = re.sub(rf"(?:^|(?<=\. )|(?<= and )){parameter.name}(?= is | was )", option, message)
            message = re.sub(rf"\b{parameter.name}=(?=[,.])", option, message)
            message = re.sub(rf"(?<![\w.-]){parameter.name}=(?=\S)", f"{option} ", message)
    # A message may name both interfaces.
    message = re.sub(r"(--[\w-]+)(?: \S+)?, or \1 on the command line", r"\1", message)
    # None is what an option is that is left out.
    return message.replace(", None or ", " or ").replace("None, ", "")


def report_interrupt(advice: str = "") -> None:
    """Print that the command was interrupted; a terminal shows ^C on the line of the cursor, so start a new one."""
    if is_terminal(sys.stderr):
        console(stderr=True).print()
    complain(f"Interrupted. {advice}".rstrip())


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to stdout, whatever the width of the terminal is."""
    for line in lines:
        console().print(printable(line), soft_wrap=True)


def complain(message: str) -> None:
    """Print a problem to stderr in one line."""
    console(stderr=True).print(f"keras-effnet: {printable(' '.join(message.splitlines()))}", soft_wrap=True)


def printable(text: str) -> str:
    """Text, escaped if it contains characters that a terminal would interpret."""
    # File names can contain line breaks, terminal codes and bytes that are not Unicode.
    return text if text.isprintable() else repr(text)[1:-1]


def start_keras() -> None:
    """Import Keras without the log messages of its backend, unless TF_CPP_MIN_LOG_LEVEL asks for them."""
    silence_backend()
    with muted("Starting Keras ..."):
        importlib.import_module("keras_effnet._keras")


def silence_backend() -> None:
    """Turn the backend's log messages off before it is imported, unless TF_CPP_MIN_LOG_LEVEL asks for them."""
    warnings.filterwarnings("ignore", module="PIL")
    if not wants_logs():
        os.environ.setdefault(LEVEL, "2")
        logging.getLogger("absl").setLevel(logging.ERROR)


class _Follow(logging.Handler):
    """Show the log messages of the package as the terminal's status line."""

    def __init__(self, status: Status) -> None:
        super().__init__(logging.INFO)
        self.status, self.what = status, status.status

    def emit(self, record: logging.LogRecord) -> None:
        self.status.update(f"{self.what} {record.getMessage()}")


@contextmanager
def following(status: Status) -> Iterator[None]:
    """Show the progress that the package logs, inside the block."""
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
    """Hide what native libraries write to stderr, and show a status instead, unless TF_CPP_MIN_LOG_LEVEL forbids it."""
    with muted_stderr() as real:
        if real is None or sys.stderr is None:
            yield
            return
        # The status has its own copy of stderr, in its encoding: not every terminal shows the spinner.
        terminal = os.fdopen(os.dup(real), "w", encoding=sys.stderr.encoding, errors="backslashreplace")
        with terminal, Console(file=terminal).status(status) as shown, following(shown):
            yield


def millions(count: int) -> str:
    """A count in millions, from 1,000 millions on in billions (G).

    Example:
        >>> millions(999_900_000), millions(1_827_100_000)
        ('999.9 M', '1.8 G')
    """
    return f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.1f} G"


def plain_table(*columns: str, left: Sequence[str] = ()) -> Table:
    """A table with a line under its header, numbers aligned right and text left, to be printed with `print_table`."""
    view = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        text = name in left
        view.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    return view


def print_table(view: Table) -> None:
    """Print a table to stdout. A narrow terminal folds long texts; numbers and words are never cut."""
    terminal = console()
    widths = [max(cell_len(line) for line in _lines(column)) for column in view.columns]
    spaces = 2 * (len(widths) - 1)
    least = [
        width if column.no_wrap else min(LONGEST_WORD, max(cell_len(word) for word in " ".join(_lines(column)).split()))
        for column, width in zip(view.columns, widths, strict=True)
    ]
    while sum(widths) + spaces > terminal.width:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    for column, width in zip(view.columns, widths, strict=True):
        column.width = width
    terminal.width = max(terminal.width, sum(widths) + spaces)  # lines that cannot be shorter overflow
    terminal.print(view)


def _lines(column: Column) -> list[str]:
    return [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
