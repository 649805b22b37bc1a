"""Warm starts: feasible at any other C, and the same optimum."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver import solve_crammer_singer
from dualview_plugin.solver.dual.warm_start import warm_state
from dualview_plugin.solver.problem import make_problem
from tests.solver.crammer_singer_oracle import assert_certified, assert_feasible, blobs

FEATURES, LABELS = blobs(203, 7, 5)


@pytest.mark.parametrize("C", [1e-3, 0.05, 0.1, 7.0])
@pytest.mark.parametrize("method", ["auto", "cd", "newton", "interior"])
def test_same_optimum_from_another_c(C, method):
    first = solve_crammer_singer(FEATURES, LABELS, 0.1, tol=1e-10)
    warm = solve_crammer_singer(FEATURES, LABELS, C, tol=1e-10, warm_start=first, method=method)
    cold = solve_crammer_singer(FEATURES, LABELS, C, tol=1e-10, method=method)
    assert_certified(warm, FEATURES, LABELS, C, tol=1e-10)
    np.testing.assert_allclose(warm.weight, cold.weight, atol=1e-4)


def test_the_solution_itself_is_accepted_at_once():
    first = solve_crammer_singer(FEATURES, LABELS, 0.1)
    again = solve_crammer_singer(FEATURES, LABELS, 0.1, warm_start=first)
    assert again.n_iter == 1
    np.testing.assert_allclose(again.dual_coef, first.dual_coef, atol=1e-15)


@pytest.mark.parametrize("C", [1e-4, 0.1, 10.0])
def test_state_is_feasible_at_any_c(C):
    first = solve_crammer_singer(FEATURES, LABELS, 0.1)
    state = warm_state(make_problem(FEATURES, LABELS, C), first.support, first.sparse_dual_coef, first.C)
    support, alpha = state.dual_coefficients(5)
    assert_feasible(alpha.toarray(), LABELS[support], C)
    np.testing.assert_allclose(state.beta.sum(axis=1), C)


def test_a_solution_of_other_data_is_refused():
    first = solve_crammer_singer(FEATURES, LABELS, 0.1)
    with pytest.raises(InvalidValueError, match=r"warm_start .* weight of shape"):
        solve_crammer_singer(FEATURES[:, :3], LABELS, 0.1, warm_start=first)
    with pytest.raises(InvalidValueError, match=r"warm_start .* same labels"):
        solve_crammer_singer(FEATURES, (LABELS + 1) % 5, 0.1, warm_start=first)
    with pytest.raises(InvalidValueError, match=r"warm_start .* same labels"):
        solve_crammer_singer(FEATURES[:50], LABELS[:50], 0.1, warm_start=first, n_classes=5)
