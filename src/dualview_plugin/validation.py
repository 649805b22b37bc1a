"""Checks of single parameters, each with the package's one form of message."""

from __future__ import annotations

import math
import numbers
from typing import TypeVar

import numpy as np

from dualview_plugin.errors import InvalidTypeError, InvalidValueError

Option = TypeVar("Option", bound=str)


def check_positive(value: object, parameter: str, owner: str, *, allow_zero: bool = False) -> float:
    """The value as a float, if it is a finite real number above zero (or at zero, where that is allowed)."""
    interval = "[0, inf)" if allow_zero else "(0, inf)"
    constraint = f"a finite real number in {interval}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(parameter, owner, constraint, repr(value))
    number = _as_float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not allow_zero):
        raise InvalidValueError(parameter, owner, constraint, repr(value))
    return number


def check_integer(value: object, parameter: str, owner: str, *, minimum: int = 1) -> int:
    """The value as an int, if it is an integer of at least ``minimum``."""
    constraint = f"an integer of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidTypeError(parameter, owner, constraint, repr(value))
    if value < minimum:
        raise InvalidValueError(parameter, owner, constraint, repr(value))
    return int(value)


def check_flag(value: object, parameter: str, owner: str) -> bool:
    """The value as a bool, if it is True or False, NumPy's, or the integer 1 or 0: a text such as "no" is true."""
    if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, numbers.Integral) and value in (0, 1)):
        raise InvalidTypeError(parameter, owner, "True or False", repr(value))
    return bool(value)


def check_option(value: Option, parameter: str, owner: str, options: tuple[str, ...]) -> Option:
    """The value, if it is one of the named options."""
    if not isinstance(value, str) or value not in options:
        raise InvalidValueError(parameter, owner, "one of " + ", ".join(map(repr, options)), repr(value))
    return value


def check_fraction(value: object, parameter: str, owner: str) -> float:
    """The value as a float, if it is a real number above zero and at most one."""
    constraint = "a real number in (0, 1]"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(parameter, owner, constraint, repr(value))
    number = _as_float(value)
    if not 0 < number <= 1:
        raise InvalidValueError(parameter, owner, constraint, repr(value))
    return number


def refuse_masked(values: object, parameter: str, owner: str) -> None:
    """Refuse an array with a mask, which would be ignored.

    Raises:
        InvalidTypeError: it is one.
    """
    if isinstance(values, np.ma.MaskedArray):
        constraint = "without a mask: write array.filled(value), or leave the masked entries out"
        raise InvalidTypeError(parameter, owner, constraint, type(values).__name__)


def _as_float(value: numbers.Real) -> float:
    """The number as a float; infinity if it is an integer beyond all floats."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
