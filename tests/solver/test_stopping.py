"""Stopping early is honest: a warning with its figures, a feasible and certified solution, and the caller informed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.solver import solve_crammer_singer, solve_path
from dualview_plugin.solver.linear.speed import operations_per_second
from dualview_plugin.solver.screening.monitor import Monitor
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "cd", "newton", "interior"])
def test_time_limit_is_kept(method: str) -> None:
    """Crowded classes on a hard margin: no method solves this in half a second, and one matrix would take longer."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 30, 5000)
    features = rng.normal(size=(30, 190))[labels] + 6 * rng.normal(size=(5000, 190))
    solve_crammer_singer(features[:200, :5], labels[:200], 1.0, n_classes=30, method=method)  # loads the kernels
    started = time.perf_counter()
    with pytest.warns(ConvergenceWarning, match="Raise time_limit"):
        solution = solve_crammer_singer(features, labels, 10.0, tol=1e-13, time_limit=0.5, method=method)
    assert time.perf_counter() - started < 1.0
    assert_certified(solution, features, labels, 10.0)


def test_the_advice_depends_on_what_stopped_the_solve() -> None:
    with pytest.warns(ConvergenceWarning, match="The callback stopped it") as caught:
        solve_crammer_singer(FEATURES, LABELS, 0.1, tol=1e-12, callback=lambda progress: True)
    assert "Raise" not in str(caught[0].message)
    with pytest.warns(ConvergenceWarning, match="solve_path stopped .* Raise max_iter"):
        solve_path(FEATURES, LABELS, [0.1], tol=1e-12, max_iter=1)


def test_a_step_that_does_not_fit_does_not_end_the_solve() -> None:
    with Monitor(1e-6, 10, 3600.0, None, show_progress=False) as monitor:
        assert monitor.expired(1e18)
        assert not monitor.expired()
        assert not monitor.must_stop(1)
        monitor.reserve(3600.0)
        assert monitor.must_stop(1)
        assert monitor.reason == "time_limit"


def test_other_processes_load_counts_in_the_estimate_of_a_step() -> None:
    one_second = operations_per_second()
    with Monitor(1e-6, 10, 60.0, None, show_progress=False) as monitor:
        deadline = time.process_time() + 0.1
        while time.process_time() < deadline:  # all the processor is ours
            pass
        assert not monitor.expired(0.1 * one_second)
        time.sleep(0.5)  # none of it is: at 6 × a second, 20 s fit no longer
        assert monitor.expired(20 * one_second)
