"""The working set: which points it holds, and when it may keep the copies of their features."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.solver.descent.coordinate_descent import descend_until
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.problem import CrammerSingerProblem, make_problem
from dualview_plugin.solver.screening.monitor import never
from dualview_plugin.solver.screening.screen import screen


@pytest.fixture
def problem() -> CrammerSingerProblem:
    rng = np.random.default_rng(0)
    return make_problem(rng.normal(size=(6, 3)), np.array([0, 1, 2, 0, 1, 2]), 0.5)


@pytest.fixture
def state(problem: CrammerSingerProblem) -> SimplexState:
    """Points 1 and 4 have a second class on their lists."""
    state = SimplexState.cold(problem.labels, problem.C, problem.n_classes)
    state.classes[[1, 4], 1], state.count[[1, 4]] = 0, 2
    return state


def test_it_keeps_its_features_and_takes_the_new_lists_while_the_same_points_compete(
    problem: CrammerSingerProblem, state: SimplexState
) -> None:
    working = WorkingSet.of_competing(problem, state, np.zeros((3, 3)))
    features = working.features
    state.beta[4, :2] = 0.2, 0.3
    state.classes[1, 2], state.count[1] = 2, 3

    assert working.refresh(state)

    np.testing.assert_array_equal(working.rows, [1, 4])
    assert working.features is features
    np.testing.assert_array_equal(working.features, problem.features[[1, 4]])
    np.testing.assert_array_equal(working.state.count, [3, 2])
    np.testing.assert_array_equal(working.state.beta, [[0.5, 0.0, 0.0], [0.2, 0.3, 0.0]])


def test_it_does_not_follow_other_points(problem: CrammerSingerProblem, state: SimplexState) -> None:
    working = WorkingSet.of_competing(problem, state, np.zeros((3, 3)))
    state.classes[5, 1], state.count[5] = 0, 2

    assert not working.refresh(state)
    np.testing.assert_array_equal(working.rows, [1, 4])
    np.testing.assert_array_equal(working.state.count, [2, 2])


def test_it_holds_all_points_and_copies_no_features_where_copies_would_be_large(
    problem: CrammerSingerProblem, state: SimplexState
) -> None:
    two_rows = 2 * 3 * 8

    copied = WorkingSet.for_screens(problem, state, np.zeros((3, 3)), largest_copy=two_rows)
    in_place = WorkingSet.for_screens(problem, state, np.zeros((3, 3)), largest_copy=two_rows - 1)

    np.testing.assert_array_equal(copied.rows, [1, 4])
    np.testing.assert_array_equal(in_place.rows, np.arange(6))
    assert in_place.features is problem.features
    assert in_place.state is state
    assert not in_place.refresh(state)


def test_descent_moves_the_same_points_with_and_without_copies() -> None:
    rng = np.random.default_rng(1)
    problem = make_problem(rng.normal(size=(60, 4)), rng.integers(0, 3, 60), 0.5)
    duals = []
    for largest_copy in (2**28, 0):
        state, weight = SimplexState.cold(problem.labels, problem.C, 3), np.zeros((3, 4))
        screen(problem, state, weight, 0.0, threshold=1e-3, double=True)
        working = WorkingSet.for_screens(problem, state, weight, largest_copy=largest_copy)
        descend_until(working, 1e-10, np.random.default_rng(0), budget=5000, stop=never)
        np.testing.assert_allclose(weight, working.state.weight(working.features, working.class_scale), atol=1e-12)
        duals.append(working.state.dual_objective(weight))
    assert duals[0] == pytest.approx(duals[1], abs=1e-9)
