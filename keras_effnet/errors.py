"""The error type for weight files, and the checks of arguments and settings. Standard library only."""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any


class WeightsError(ValueError):
    """Weights that cannot be found, read or put into a model; the message explains what to do."""


class OfflineError(WeightsError):
    """Weights that cannot be downloaded because no server can be reached; the message has three lines."""


# The names by which packages are installed, where these differ from their import names.
_DISTRIBUTIONS = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def require_packages(purpose: str, *packages: str, otherwise: str = "") -> None:
    """Check that packages are installed, without importing them.

    Args:
        purpose: what needs them, the subject of the message.
        packages: all that are needed, by their import names.
        otherwise: another way out, added to the command: "or ...".

    Raises:
        ImportError: one is missing; the message contains one command that installs all of them.
    """
    missing = [name for name in packages if name not in sys.modules and find_spec(name) is None]
    missing += [name for name in packages if name in sys.modules and sys.modules[name] is None]
    if missing:
        absent, needed = (
            [_DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in names] for names in (missing, packages)
        )
        advice = ", ".join(filter(None, (f"Run pip install {' '.join(needed)}", otherwise)))
        raise ImportError(f"{purpose} needs {', '.join(absent)}, not installed here. {advice}.")


def first_line(error: Exception) -> str:
    """First line of an error message, cut to 300 characters; the rest is usually a stack trace or a dumped config."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def counted(count: int, noun: str) -> str:
    """A count with its noun in the singular or the plural.

    Example:
        >>> counted(1, "photo"), counted(1200, "class")
        ('1 photo', '1,200 classes')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The valid values of a number. Infinity, NaN and booleans are never valid.

    Args:
        least: lower bound, valid itself.
        most: upper bound, valid itself.
        above: lower bound, not valid itself.
        below: upper bound, not valid itself.
        whole: whether the number must be an integer.

    Example:
        >>> 1 in Range(above=0, below=1), 0.5 in Range(above=0, below=1), 0.5 in Range(whole=True)
        (False, True, False)
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        kind: Any = Integral if self.whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        # All comparisons with NaN are false.
        return bool(self.least <= value <= self.most and self.above < value < self.below)

    def __str__(self) -> str:
        bounds = {"above": self.above, "of at least": self.least, "below": self.below, "at most": self.most}
        limits = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound))
        return f"a {'whole ' if self.whole else ''}number {limits}".rstrip()

    def check(self, name: str, value: object) -> None:
        """Reject a value that is not in the range.

        Raises:
            ValueError: the value is not in the range.

        Example:
            >>> Range(least=1, whole=True).check("epochs", 2.5)
            Traceback (most recent call last):
            ValueError: epochs is 2.5. Expected a whole number of at least 1.
        """
        if value not in self:
            raise ValueError(f"{name} is {value!r}. Expected {self}.")


COUNT = Range(least=1, whole=True)
# NumPy accepts no other seeds.
SEED = Range(least=0, most=2**32 - 1, whole=True)


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Reject a value that is not one of the choices; the message lists them.

    Raises:
        ValueError: the value is not one of the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}. Expected one of {', '.join(sorted(map(str, choices)))}.")


def at_least_one(**counts: int | None) -> None:
    """Reject counts that are not whole numbers of at least 1; None means no limit.

    Raises:
        ValueError: a count is not a whole number of at least 1.
    """
    for name, value in counts.items():
        if value is not None:
            COUNT.check(name, value)
