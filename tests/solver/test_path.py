"""A path of C gives the solutions of the single solves, in the order asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver import solve_crammer_singer, solve_path
from dualview_plugin.solver.options import SolverOptions
from dualview_plugin.solver.solve import solve_one
from tests.solver.crammer_singer_oracle import assert_certified, blobs, crowded

FEATURES, LABELS = blobs(149, 7, 5)


@pytest.mark.parametrize("method", ["auto", "cd", "newton", "interior", "qp"])
def test_solutions_of_the_single_problems(method):
    Cs = [1.0, 1e-3, 0.03, 1.0]
    path = solve_path(FEATURES, LABELS, Cs, method=method)
    assert [solution.C for solution in path] == Cs
    for C, solution in zip(Cs, path, strict=True):
        assert_certified(solution, FEATURES, LABELS, C, tol=1e-6)
        alone = solve_crammer_singer(FEATURES, LABELS, C)
        np.testing.assert_allclose(solution.primal_objective, alone.primal_objective, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">f8"), np.longdouble, np.int32])
def test_features_of_every_type(dtype):
    features = (3 * FEATURES).astype(dtype)
    for C, solution in zip([1e-3, 1.0, 30.0], solve_path(features, LABELS, [1e-3, 1.0, 30.0]), strict=True):
        assert_certified(solution, features.astype(np.float64), LABELS, C, tol=1e-6)


@pytest.mark.parametrize("Cs", [1.0, None, np.array(1.0)])
def test_constants_that_are_no_list_are_refused(Cs):
    with pytest.raises(InvalidTypeError, match="Cs of solve_path must be a list of numbers"):
        solve_path(FEATURES, LABELS, Cs)


@pytest.mark.parametrize("fit_intercept", ["no", None, np.array([True, False])])
def test_a_flag_is_true_or_false(fit_intercept):
    for solve, C in ((solve_path, [0.1]), (solve_crammer_singer, 0.1)):
        with pytest.raises(InvalidTypeError, match=r"fit_intercept of .* must be True or False"):
            solve(FEATURES, LABELS, C, fit_intercept=fit_intercept)


@pytest.mark.parametrize("Cs", [[], [0.1, 0.0], [0.1, -1.0], [10**400]])
def test_bad_constants_are_refused(Cs):
    with pytest.raises(InvalidValueError, match="Cs of solve_path must be"):
        solve_path(FEATURES, LABELS, Cs)


def test_an_interior_solve_restarts_from_an_iterate_of_the_last_one() -> None:
    """Far fewer steps than from the start, as the status texts tell, and the same optimum."""
    features, labels = crowded()
    alone = solve_crammer_singer(features, labels, 1000.0)
    path = solve_path(features, labels, [1000.0, 100.0])
    assert_certified(path[0], features, labels, 1000.0, tol=1e-6)
    np.testing.assert_allclose(path[0].primal_objective, alone.primal_objective, rtol=2e-6)


def test_a_history_shortens_the_next_solve() -> None:
    features, labels = crowded()
    options = SolverOptions(
        owner="test",
        n_classes=None,
        tol=1e-6,
        max_iter=100,
        method="interior",
        fit_intercept=False,
        time_limit=None,
        show_progress=False,
        seed=0,
    )
    _, history = solve_one(features, labels, 100.0, options)
    assert history is not None
    gaps: list[float] = []
    watched = replace(options, callback=lambda progress: gaps.append(progress.duality_gap))
    solution, _ = solve_one(features, labels, 1000.0, watched, history=history)
    assert_certified(solution, features, labels, 1000.0, tol=1e-6)
    assert gaps[0] < 1e-3  # from the start the first screen, after descent, finds a gap of more than 0.1
    solve_one(features, labels, 1000.0, replace(watched, callback=lambda progress: gaps.append(progress.duality_gap)))
    assert gaps[solution.n_iter] > 0.1
