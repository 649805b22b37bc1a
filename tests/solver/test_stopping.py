"""Stopping early is honest: a warning with its figures, a feasible and certified solution, and the caller informed."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.solver import solve_crammer_singer
from tests.solver.crammer_singer_oracle import assert_certified, blobs

FEATURES, LABELS = blobs(401, 7, 5)


def test_max_iter_warns_with_its_figures():
    message = r"relative duality gap of .*e-.*, above tol = 1.00e-10, after 1 iterations.* Raise max_iter"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        solution = solve_crammer_singer(FEATURES, LABELS, 0.1, tol=1e-10, max_iter=1)
    assert caught[0].filename == __file__
    assert not solution.converged
    assert solution.n_iter == 1
    assert_certified(solution, FEATURES, LABELS, 0.1)


@pytest.mark.parametrize("method", ["auto", "cd", "newton", "interior"])
def test_time_limit_returns_a_certified_solution(method):
    with pytest.warns(ConvergenceWarning, match="Raise time_limit"):
        solution = solve_crammer_singer(FEATURES, LABELS, 1.0, tol=1e-12, time_limit=1e-6, method=method)
    assert not solution.converged
    assert_certified(solution, FEATURES, LABELS, 1.0)


def test_callback_sees_the_gap_and_can_stop():
    seen = []
    solution = solve_crammer_singer(FEATURES, LABELS, 0.1, callback=seen.append)
    assert [progress.n_iter for progress in seen] == list(range(1, solution.n_iter + 1))
    np.testing.assert_allclose(seen[-1].duality_gap, solution.duality_gap, atol=1e-12)
    assert seen[-1].n_support == solution.n_support
    with pytest.warns(ConvergenceWarning, match="after 2 iterations"):
        solve_crammer_singer(FEATURES, LABELS, 0.1, tol=1e-12, callback=lambda progress: progress.n_iter == 2)


def test_progress_bar_shows_the_gap(capsys):
    solve_crammer_singer(FEATURES, LABELS, 0.1, show_progress=True)
    shown = capsys.readouterr().err
    assert "solver" in shown
    assert "gap" in shown
    assert "compiles" in shown
    solve_crammer_singer(FEATURES, LABELS, 0.1)
    assert capsys.readouterr().err == ""
