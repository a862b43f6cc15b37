"""The checks of settings: what passes, and messages that state the value and what was expected."""

import math
from fractions import Fraction

import numpy as np
import pytest

from keras_effnet.errors import COUNT, Range, at_least_one, check_choice


@pytest.mark.parametrize("value", [1, 3, 10**400, np.int64(4), np.uint8(4)])
def test_whole_numbers_pass(value: object) -> None:
    COUNT.check("epochs", value)


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, math.inf, math.nan, True, np.True_, "3", None, np.zeros(2), 1j])
def test_everything_else_is_rejected_for_a_count(value: object) -> None:
    with pytest.raises(ValueError, match=r"^epochs is .*\. Expected a whole number of at least 1\.$"):
        COUNT.check("epochs", value)


@pytest.mark.parametrize("value", [0, 0.5, 1, Fraction(1, 3), np.float32(0.5)])
def test_numbers_between_the_bounds_pass(value: object) -> None:
    Range(least=0, most=1).check("momentum", value)


@pytest.mark.parametrize("value", [-0.001, 1.001, math.nan, math.inf, -math.inf, True, "0.5"])
def test_numbers_outside_the_bounds_are_rejected(value: object) -> None:
    with pytest.raises(ValueError, match="Expected a number of at least 0 and at most 1"):
        Range(least=0, most=1).check("momentum", value)


@pytest.mark.parametrize("value", [0, 1])
def test_a_bound_can_be_excluded(value: object) -> None:
    with pytest.raises(ValueError, match=f"^share is {value}. Expected a number above 0 and below 1.$"):
        Range(above=0, below=1).check("share", value)


def test_infinity_is_never_in_a_range() -> None:
    assert 1e300 in Range()
    assert not {math.inf, -math.inf, math.nan} & {
        value for value in (math.inf, -math.inf, math.nan) if value in Range()
    }


def test_a_choice_is_one_of_a_sorted_list() -> None:
    check_choice("augment", None, ("randaugment", None, "autoaugment"))
    with pytest.raises(ValueError, match="^augment is 'mixup'. Expected one of None, autoaugment, randaugment.$"):
        check_choice("augment", "mixup", ("randaugment", None, "autoaugment"))


def test_no_limit_is_at_least_one() -> None:
    at_least_one(limit=None, top=1)
    with pytest.raises(ValueError, match="^top is True. Expected a whole number of at least 1"):
        at_least_one(limit=3, top=True)
