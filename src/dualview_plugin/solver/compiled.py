"""How the solver's inner loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Sums may be reordered, so that dot products use vector instructions; infinities and NaN keep their meaning.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: _Function) -> _Function:
    """The function as machine code whose sums may be reordered.

    The code is stored on disk beside the source, so that only the first run on a machine compiles it. No kernel starts
    threads: numba's thread pools end a process that forks (as the workers of a DataLoader do).
    """
    return _compiled(function, fastmath=_FASTMATH)


def compiled_exactly(function: _Function) -> _Function:
    """As ``compiled``, but every operation is rounded as it is written: for compensated sums."""
    return _compiled(function, fastmath=False)


def _compiled(function: _Function, *, fastmath: set[str] | bool) -> _Function:
    options: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
    try:
        kernel = njit(cache=True, **options)(function)
    except (RuntimeError, OSError):  # no folder for the cache can be written: every run compiles
        kernel = njit(**options)(function)
    return cast(_Function, kernel)
