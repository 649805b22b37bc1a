"""How many floating-point operations a second this machine does, for estimates of what a step will take."""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
from scipy.linalg import cho_factor

# A factorisation of this dimension takes milliseconds; larger ones reach a higher speed.
_DIMENSION = 500


@lru_cache(maxsize=1)
def operations_per_second() -> float:
    """The speed of a small Cholesky factorisation, measured once in a process: the better of three."""
    system = np.eye(_DIMENSION) + np.full((_DIMENSION, _DIMENSION), 1.0 / _DIMENSION)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        cho_factor(system, check_finite=False)
        seconds.append(time.perf_counter() - started)
    return _DIMENSION**3 / 3 / max(min(seconds), 1e-6)


def seconds_for(operations: float) -> float:
    """The estimated time of this many operations in BLAS and LAPACK."""
    return operations / operations_per_second()
