"""A state to start from, made of a solution at another C."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.problem import OWNER, CrammerSingerProblem
from dualview_plugin.solver.solution import CrammerSingerSolution

AT_BOUND = 1 - 1e-9  # share of C from which on a multiplier counts as at its bound


def warm_state(problem: CrammerSingerProblem, solution: CrammerSingerSolution) -> SimplexState:
    """The solution's α, made feasible at the problem's C.

    A point at its bound (α_{i y_i} = C) stays at the bound, so its α_i is scaled with C; any other keeps its α_i, cut
    down to the bound where that is now lower.
    """
    _check_same_data(problem, solution)
    state = SimplexState.cold(problem.labels, problem.C, problem.n_classes)
    alpha = csr_array(solution.sparse_dual_coef)
    own = np.asarray(alpha[np.arange(len(solution.support)), problem.labels[solution.support]])
    bounded = own >= AT_BOUND * solution.C
    scale = np.where(bounded | (own > problem.C), problem.C / own, 1.0)
    state.make_room(int(np.diff(alpha.indptr).max(initial=1)) - 1, problem.n_classes)
    _fill(state, solution.support, alpha, scale)
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


def _check_same_data(problem: CrammerSingerProblem, solution: object) -> None:
    if not isinstance(solution, CrammerSingerSolution):
        raise InvalidTypeError("warm_start", OWNER, "a CrammerSingerSolution", type(solution).__name__)
    shape = (problem.n_classes, problem.n_features - problem.fit_intercept)
    if solution.weight.shape != shape:
        raise InvalidValueError(
            "warm_start", OWNER, f"a solution with a weight of shape {shape}", f"one of {solution.weight.shape}"
        )
    support = solution.support
    if len(support) and (support.max() >= problem.n_train or not _labels_fit(problem, solution)):
        raise InvalidValueError("warm_start", OWNER, "a solution for the same labels", "one for others")


def _labels_fit(problem: CrammerSingerProblem, solution: CrammerSingerSolution) -> bool:
    """Whether α is positive exactly at the labels."""
    alpha = solution.sparse_dual_coef
    rows = np.repeat(np.arange(len(solution.support)), np.diff(alpha.indptr))
    is_label = alpha.indices == problem.labels[solution.support[rows]]
    return bool(((alpha.data > 0) == is_label).all() and is_label.sum() == len(solution.support))
