"""The one error type of weight files, and what is repeated of the errors of others."""


class WeightsError(ValueError):
    """Weights that cannot be had, read, or put into a model; the message says what to do."""


def first_line(error: Exception) -> str:
    """The first line of a message, of 300 characters at most: what follows is a stack, or all of a configuration."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
