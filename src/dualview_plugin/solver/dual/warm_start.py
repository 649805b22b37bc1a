"""A state to start from, made of a solution at another C."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.solution import CrammerSingerSolution

# A multiplier of at least this fraction of C counts as at its bound.
AT_BOUND = 1 - 1e-9


def warm_state(
    problem: CrammerSingerProblem, support: NDArray[np.int64], alpha: csr_array, old_C: float
) -> SimplexState:
    """The α of another C on these support points, made feasible at the problem's C.

    A point at its bound (α_{i y_i} = C) stays at the bound, so its α_i is scaled with C. Any other point keeps its α_i,
    scaled down where it exceeds the new bound.
    """
    state = SimplexState.cold(problem.labels, problem.C, problem.n_classes)
    own = np.asarray(alpha[np.arange(len(support)), problem.labels[support]])
    bounded = own >= AT_BOUND * old_C
    scale = np.where(bounded | (own > problem.C), problem.C / own, 1.0)
    state.make_room(int(np.diff(alpha.indptr).max(initial=1)) - 1, problem.n_classes)
    _fill(state, support, alpha, scale)
    return state


def _fill(state: SimplexState, support: NDArray[np.int64], alpha: csr_array, scale: NDArray[np.float64]) -> None:
    """β_ic = −α_ic · scale_i for the other classes, in slots 1, 2, …; the label keeps the rest of C."""
    row = np.repeat(np.arange(len(support)), np.diff(alpha.indptr))
    other = alpha.indices != state.classes[support[row], 0]
    row, column, beta = row[other], alpha.indices[other], -alpha.data[other] * scale[row[other]]
    first = np.searchsorted(row, np.arange(len(support)))
    slot = np.arange(len(row)) - first[row] + 1
    state.classes[support[row], slot], state.beta[support[row], slot] = column, beta
    state.count[support] = 1 + np.bincount(row, minlength=len(support))
    state.beta[support, 0] = np.maximum(state.C - state.beta[support, 1:].sum(axis=1), 0.0)


def check_same_data(problem: CrammerSingerProblem, solution: object, owner: str) -> None:
    """Refuses what is no solution, or one of other labels or shapes."""
    if not isinstance(solution, CrammerSingerSolution):
        raise InvalidTypeError("warm_start", owner, "a CrammerSingerSolution", type(solution).__name__)
    shape = (problem.n_classes, problem.n_features - problem.fit_intercept)
    if solution.weight.shape != shape:
        raise InvalidValueError(
            "warm_start", owner, f"a solution with a weight of shape {shape}", f"one of {solution.weight.shape}"
        )
    support = solution.support
    if len(support) and (support.max() >= problem.n_train or not _labels_fit(problem, solution)):
        raise InvalidValueError("warm_start", owner, "a solution for the same labels", "one for others")


def _labels_fit(problem: CrammerSingerProblem, solution: CrammerSingerSolution) -> bool:
    """Whether α is positive exactly at the labels."""
    alpha = solution.sparse_dual_coef
    rows = np.repeat(np.arange(len(solution.support)), np.diff(alpha.indptr))
    is_label = alpha.indices == problem.labels[solution.support[rows]]
    return bool(((alpha.data > 0) == is_label).all() and is_label.sum() == len(solution.support))
