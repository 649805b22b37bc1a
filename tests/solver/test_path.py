"""A path of C gives the solutions of the single solves, in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver import solve_crammer_singer, solve_path
from dualview_plugin.solver.interior import predictor_corrector as path_following
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


@pytest.mark.parametrize("Cs", [[], [0.1, 0.0], [0.1, -1.0]])
def test_bad_constants_are_refused(Cs):
    with pytest.raises(InvalidValueError, match="Cs of solve_path must be"):
        solve_path(FEATURES, LABELS, Cs)


def test_an_interior_solve_starts_from_the_way_of_the_last_one(monkeypatch):
    features, labels = crowded()
    steps, step = [], path_following.PathFollower._step
    monkeypatch.setattr(path_following.PathFollower, "_step", lambda self, *a: steps.append(self.C) or step(self, *a))
    alone = solve_crammer_singer(features, labels, 1000.0)
    n_alone = len(steps)
    path = solve_path(features, labels, [1000.0, 100.0])
    assert steps.count(100.0) > 0
    assert 2 * (steps.count(1000.0) - n_alone) < n_alone
    assert_certified(path[0], features, labels, 1000.0, tol=1e-6)
    np.testing.assert_allclose(path[0].primal_objective, alone.primal_objective, rtol=2e-6)


def test_where_the_last_way_leads_nowhere_the_solve_starts_afresh(monkeypatch):
    features, labels = crowded()
    follow, targets = path_following.PathFollower.follow, []

    def lost_at_first(self, start, tol, **options):
        targets.append(self.C)
        arrived = follow(self, start, tol, **options)
        if targets.count(1000.0) != 1:
            return arrived
        self.dual = -np.inf
        return False

    monkeypatch.setattr(path_following.PathFollower, "follow", lost_at_first)
    path = solve_path(features, labels, [100.0, 1000.0])
    assert targets.count(1000.0) > 1
    assert_certified(path[1], features, labels, 1000.0, tol=1e-6)
