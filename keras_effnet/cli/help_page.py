"""What all commands share before they run: `--help` without Typer's types and ranges, `--version`, and bounds."""

import math
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from keras_effnet import __version__

RUNNING: ContextVar[Any] = ContextVar("running", default=None)  # the command that is running


class _NoTypes:
    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.param_type_name == "argument":
                parameter.display_type = lambda ctx: ""  # not <list[str]>
            elif parameter.is_flag:
                parameter.metavar = ""  # not <bool>
        return parameters


class Command(_NoTypes, TyperCommand):
    """A command of `keras-effnet`."""

    def invoke(self, ctx: Any) -> Any:
        token = RUNNING.set(self)
        try:
            return super().invoke(ctx)
        finally:
            RUNNING.reset(token)


class Group(_NoTypes, TyperGroup):
    """A group of commands."""


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-effnet {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version.")
]


def begin(version: Version = False) -> None:
    """Run before every command."""
    # Pillow warns of decompression bombs, which are rejected anyway.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")


def at_least(least: float, at_most: float = math.inf) -> Callable[[float | None], float | None]:
    """The callback of a bounded option; Typer's own `min` and `max` print "[x>=1]" in the help."""

    def check(value: float | None) -> float | None:
        if value is not None and not least <= value <= at_most:
            expected = f"at least {least:g}" if at_most == math.inf else f"a number from {least:g} to {at_most:g}"
            raise typer.BadParameter(f"{value:g} is out of range. Expected {expected}.")
        return value

    return check
