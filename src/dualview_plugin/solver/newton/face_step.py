"""The last steps: Newton's method for the dual on the face where β lies, which is exact once the face is the optimum's.

On a face the dual is a concave quadratic. With β ← β + Uᵀv its gradient along U becomes A(W) − U e_y − (A Aᵀ) v, so one
linear system finds the maximum. A ratio test keeps β ≥ 0: a step that is cut short ends on a smaller face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.linear.cholesky import solve_shifted
from dualview_plugin.solver.newton.free_face import FreeFace

_RIDGE = 1e-10  # of the mean diagonal: duplicate points make the system singular
_VANISHED = 1e-15  # of C


def step_on_the_face(state: SimplexState, face: FreeFace, weight: NDArray[np.float64]) -> tuple[float, SimplexState]:
    """The share of the full step that keeps β ≥ 0, and the state after it; 0 where the system is singular."""
    gram = face.gram()
    residual = face.apply(weight) - face.entries_at(state.classes[face.points, 0])
    try:
        v = solve_shifted(gram, residual, _RIDGE * np.trace(gram) / len(gram))
    except LinAlgError:
        return 0.0, state
    change = face.change_of_beta(v, state)
    shrinking = change < 0
    share = min(1.0, float(np.min(-state.beta[shrinking] / change[shrinking], initial=1.0)))
    return share, state.with_beta(_moved(state, share * change))


def _moved(state: SimplexState, change: NDArray[np.float64]) -> NDArray[np.float64]:
    """β + change, without what rounding leaves: below zero, or of a row's sum, which its largest entry takes."""
    beta = state.beta + change
    beta[beta < _VANISHED * state.C] = 0.0
    rows = np.flatnonzero(change.any(axis=1))
    beta[rows, beta[rows].argmax(axis=1)] += state.C - beta[rows].sum(axis=1)
    return beta
