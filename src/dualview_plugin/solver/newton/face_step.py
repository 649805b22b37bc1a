"""Newton's method for the dual on the face where β lies; one step is exact once the face is that of the optimum.

On a face the dual is a concave quadratic. With β ← β + Uᵀv its gradient along U becomes A(W) − U e_y − (A Aᵀ) v, so one
linear system finds the maximum. A ratio test keeps β ≥ 0: a step that is shortened by it ends on a smaller face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.linear.cholesky import solve_shifted
from dualview_plugin.solver.newton.free_face import FreeFace

# This fraction of the mean diagonal is added to the system, which duplicate points make singular.
_RIDGE = 1e-10
# Multipliers below this fraction of C are set to zero.
_VANISHED = 1e-15


def step_on_the_face(face: FreeFace, weight: NDArray[np.float64]) -> tuple[float, SimplexState]:
    """The fraction of the full step that keeps β ≥ 0, and the state after it; 0 where the system is singular."""
    state, gram = face.state, face.gram()
    residual = face.apply(weight) - face.entries_at_label
    try:
        v = solve_shifted(gram, residual, _RIDGE * np.trace(gram) / len(gram))
    except LinAlgError:
        return 0.0, state
    change = face.change_of_beta(v)
    decreasing = change < 0
    step = min(1.0, float(np.min(-state.beta[decreasing] / change[decreasing], initial=1.0)))
    return step, state.with_beta(_moved(state, step * change))


def _moved(state: SimplexState, change: NDArray[np.float64]) -> NDArray[np.float64]:
    """β + change, with vanished entries set to zero; the largest entry of a row takes the error of its sum."""
    beta = state.beta + change
    beta[beta < _VANISHED * state.C] = 0.0
    rows = np.flatnonzero(change.any(axis=1))
    beta[rows, beta[rows].argmax(axis=1)] += state.C - beta[rows].sum(axis=1)
    return beta
