"""The one error type of weight files: whatever is wrong with a file, a set or a download ends in it."""


class WeightsError(ValueError):
    """Weights that cannot be had, read, or put into a model; the message says what to do."""
