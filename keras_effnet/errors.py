"""The one error type of weight files, and what is repeated of the errors of others."""

from numbers import Integral


class WeightsError(ValueError):
    """Weights that cannot be had, read, or put into a model; the message says what to do."""


def first_line(error: Exception) -> str:
    """The first line of a message, of 300 characters at most: what follows is a stack, or all of a configuration."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def at_least_one(**counts: int | None) -> None:
    """Refuse counts below 1; None means that there is no limit.

    Raises:
        ValueError: a count below 1.
    """
    for name, value in counts.items():
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ValueError(f"{name} is {value!r}. Expected a whole number of at least 1. Pass for example {name}=5.")
