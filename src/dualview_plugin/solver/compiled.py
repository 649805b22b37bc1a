"""One way to compile the solver's inner loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Sums may be reordered, so that dot products use vector instructions; infinities and NaN keep their meaning.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: _Function) -> _Function:
    """The function as machine code, kept on disk beside its source, so that only a machine's first run compiles.

    No kernel starts threads of its own: numba's thread pools end a process that forks (as a DataLoader's workers do).
    """
    return cast(_Function, njit(cache=True, nogil=True, fastmath=_FASTMATH)(function))
