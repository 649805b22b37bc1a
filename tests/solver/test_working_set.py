"""The working set: which points it holds, and when it may keep the copies of their features."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.problem import CrammerSingerProblem, make_problem


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
