"""Symmetric positive definite systems by Cholesky's factorisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve


def solve_shifted(system: NDArray[np.float64], right: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    """Solves (shift · I + system) x = right from the lower triangle of the system, which is overwritten.

    Raises:
        LinAlgError: the shifted system is not positive definite.
    """
    return np.asarray(cho_solve(factor_of_shifted(system, shift), right, check_finite=False))


def factor_of_shifted(system: NDArray[np.float64], shift: float) -> tuple[NDArray[np.float64], bool]:
    """The Cholesky factor of shift · I + system, for ``cho_solve``; raises and overwrites as ``solve_shifted`` does."""
    system.flat[:: len(system) + 1] += shift
    factor: tuple[NDArray[np.float64], bool] = cho_factor(system.T, lower=False, overwrite_a=True, check_finite=False)
    return factor
