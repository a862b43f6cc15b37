"""How `--help` looks: without the types that Typer prints behind flags and arguments, and without ranges."""

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

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


def at_least(least: float, at_most: float = math.inf) -> Callable[[float | None], float | None]:
    """The callback of a bounded option; Typer's own `min` and `max` print "[x>=1]" in the help."""

    def check(value: float | None) -> float | None:
        if value is not None and not least <= value <= at_most:
            expected = f"at least {least:g}" if at_most == math.inf else f"a number from {least:g} to {at_most:g}"
            raise typer.BadParameter(f"{value:g} is out of range. Expected {expected}.")
        return value

    return check
