"""The interior-point method's pieces against dense linear algebra, and when it is used."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver import solve_crammer_singer
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior import central_path
from dualview_plugin.solver.interior import predictor_corrector as path_following
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.interior_point import without_noise
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate, PathFollower
from dualview_plugin.solver.problem import make_problem
from dualview_plugin.solver.screening import active_set
from dualview_plugin.solver.screening.monitor import Monitor
from tests.solver.crammer_singer_oracle import assert_certified, blobs, crowded

C = 0.7


def random_follower(rng: np.random.Generator, n_points: int = 19, n_features: int = 5, n_classes: int = 4):
    """A follower on points with two to all classes active, and the features."""
    features = rng.normal(size=(n_points, n_features))
    labels = rng.integers(0, n_classes, n_points)
    problem = make_problem(features, labels, C, n_classes=n_classes)
    state = SimplexState.cold(labels, C, n_classes)
    state.widen(n_classes - 1, n_classes)
    for i in range(n_points):
        others = rng.permutation(np.delete(np.arange(n_classes), labels[i]))
        state.count[i] = size = rng.integers(2, n_classes + 1)
        state.classes[i, 1:size] = others[: size - 1]
    weight = rng.normal(size=(n_classes, n_features))
    working = WorkingSet(problem, state, weight, np.arange(n_points))
    return PathFollower(working, lambda: False, lambda _: None), features


def dense(follower: PathFollower, values: np.ndarray) -> np.ndarray:
    """Values on the lists as a matrix (n_points, n_classes), zero elsewhere."""
    matrix = np.zeros((len(values), len(follower.working.weight)))
    for i in range(len(values)):
        size = follower.count[i]
        matrix[i, follower.classes[i, :size]] = values[i, :size]
    return matrix


def gradients(follower: PathFollower, features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """g_ic = ⟨w_c − w_y, φ⟩ + 1 − [c = y] for all classes."""
    scores, labels = features @ weight.T, follower.classes[:, 0]
    own = scores[np.arange(len(scores)), labels][:, None]
    return scores - own + 1 - np.eye(len(weight))[labels]


@pytest.mark.parametrize("mu", [1e-9, 1e-3, 10.0])
def test_a_central_point_has_one_product_everywhere(mu):
    rng = np.random.default_rng(0)
    follower, features = random_follower(rng)
    weight = rng.normal(size=follower.working.weight.shape)
    point = follower.central(weight, mu)
    np.testing.assert_allclose(point.beta.sum(axis=1), C, rtol=1e-12)
    slack = point.level[:, None] - gradients(follower, features, weight)
    products = (dense(follower, point.beta) * slack)[dense(follower, np.ones_like(point.beta)) > 0]
    np.testing.assert_allclose(products, mu, rtol=1e-6)


@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_a_direction_solves_newtons_equations(centring):
    """β s = μ − product to first order, Σ Δβ = 0, Δs = Δξ − Δg and ΔW + Σ Δβ φᵀ = αᵀΦ − W, each formed densely."""
    rng = np.random.default_rng(1)
    follower, features = random_follower(rng)
    follower.point = follower.central(rng.normal(size=follower.working.weight.shape), 0.1)
    residual = follower._look()
    beta, slack = follower.point.beta, follower.slack
    alpha = C * np.eye(4)[follower.classes[:, 0]] - dense(follower, beta)
    np.testing.assert_allclose(residual, follower.point.weight - alpha.T @ features, atol=1e-12)

    system = np.tril(follower._system())
    matrix = np.eye(len(system)) + system + np.tril(system, -1).T
    np.testing.assert_allclose(matrix, dense_system(follower, features), rtol=1e-3)  # edges may be left out
    product, mu = follower.listed * rng.normal(size=beta.shape), centring * follower.point.mu
    exact = np.linalg.cholesky(dense_system(follower, features)), True
    step = follower._direction(product, mu, residual, exact)
    listed = follower.listed
    np.testing.assert_allclose(step.beta.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(
        (slack * step.beta + beta * step.slack)[listed], (mu - product - beta * slack)[listed], atol=1e-9
    )
    change = gradients(follower, features, follower.point.weight + step.weight)
    change -= gradients(follower, features, follower.point.weight)
    on_lists = dense(follower, listed.astype(float)) > 0
    np.testing.assert_allclose(
        dense(follower, step.slack)[on_lists], (step.level[:, None] - change)[on_lists], atol=1e-9
    )
    np.testing.assert_allclose(step.weight + dense(follower, step.beta).T @ features, -residual, atol=1e-9)


def dense_system(follower: PathFollower, features: np.ndarray) -> np.ndarray:
    """I + Σ_i M_i ⊗ φ_i φ_iᵀ with M_i = diag(D) − D Dᵀ / Σ D, point by point."""
    stiffness = dense(follower, follower.point.beta / follower.slack)
    size = follower.working.weight.size
    matrix = np.eye(size)
    for d, phi in zip(stiffness, features, strict=True):
        matrix += np.kron(np.diag(d) - np.outer(d, d) / d.sum(), np.outer(phi, phi))
    return matrix


def test_the_longest_step_ends_at_the_boundary():
    values, change = np.array([[1.0, 2.0, 9.0], [3.0, 1.0, 1.0]]), np.array([[-0.5, 1.0, -9.9], [-2.0, -0.25, 0.0]])
    assert central_path.longest_step(values, change, np.array([2, 3], np.int32)) == pytest.approx(1.5)
    assert central_path.longest_step(values, -np.abs(change) * 0, np.array([2, 3], np.int32)) == np.inf


def test_a_run_reaches_any_gap_and_leaves_kept_iterates():
    follower, _ = random_follower(np.random.default_rng(2))
    assert follower.follow(follower.central(follower.working.weight, 10.0), 1e-9)
    gaps = [point.relative_gap for point in follower.kept_iterates]
    assert all(later <= 0.1 * earlier for earlier, later in pairwise(gaps))
    assert follower.point.relative_gap <= 1e-9
    np.testing.assert_allclose(follower._look(), 0, atol=1e-4)  # W − αᵀΦ


def test_a_point_is_continued_on_a_larger_working_set():
    """What was listed keeps β and ξ; new points and classes enter with β s = μ and at most a small share of C."""
    follower, features = random_follower(np.random.default_rng(3))
    labels, state = follower.classes[:, 0].astype(np.int64), follower.working.state
    small = follower.working.rows[2:]
    part = state.subset(small)
    part.count[5] -= 1
    working = WorkingSet(
        make_problem(features, labels, C, n_classes=4), part, follower.working.weight, np.arange(len(small))
    )
    working.rows, working.features, working.state = small, features[small], part
    smaller = PathFollower(working, lambda: False, lambda _: None)
    point = smaller.central(working.weight, 0.3)
    joined = follower.joined(point)
    same, changed = np.delete(np.arange(2, 19), 5), [0, 1, 7]
    np.testing.assert_array_equal(joined.beta[same], point.beta[same - 2])
    np.testing.assert_array_equal(joined.level[same], point.level[same - 2])
    np.testing.assert_allclose(joined.beta.sum(axis=1), C)
    slack = joined.level[:, None] - gradients(follower, features, point.weight)
    assert slack[dense(follower, follower.listed.astype(float)) > 0].min() > 0
    new = follower.count[7] - 1
    assert joined.beta[7, new] <= 1e-2 * C
    assert dense(follower, joined.beta)[7, follower.classes[7, new]] * slack[7, follower.classes[7, new]] <= 0.3
    assert (joined.beta[changed][follower.listed[changed]] > 0).all()


def test_centrality_correctors_lengthen_the_step(monkeypatch):
    def steps(correctors: int) -> int:
        monkeypatch.setattr(path_following, "_CENTRALITY_CORRECTORS", correctors)
        features, labels = blobs(1009, 7, 5, spread=2.0)
        problem, seen = make_problem(features, labels, 100.0), []
        state = SimplexState.cold(labels, 100.0, 5)
        state.widen(4, 5)
        state.classes[:] = (labels[:, None] + np.arange(5)) % 5
        state.count[:] = 5
        working = WorkingSet(problem, state, np.zeros((5, 7)), np.arange(1009))
        follower = PathFollower(working, lambda: False, seen.append)
        assert follower.follow(follower.central(working.weight, 100.0), 1e-8, consistent=True)
        return len(seen)

    assert steps(3) < steps(0)


def test_noise_is_set_to_zero_and_the_sum_kept():
    beta, slack = np.array([[0.6, 0.1, 1e-9], [1e-9, 0.7, 0.0]]), np.array([[1e-9, 1e-8, 0.2], [0.3, 1e-9, 1.0]])
    cleaned = without_noise(beta, slack, np.array([2.0, 2.0]), C)
    np.testing.assert_array_equal(cleaned > 0, [[True, True, False], [False, True, False]])
    np.testing.assert_allclose(cleaned.sum(axis=1), C, rtol=1e-15)


def test_auto_follows_the_central_path_where_classes_overlap_and_the_margin_is_hard(monkeypatch):
    """Where descent and Newton's proximal steps do not arrive, within rounds that are enough for the interior point."""
    features, labels = blobs(3001, 11, 5, spread=2.0)
    calls, interior = [], active_set.InteriorPoint
    monkeypatch.setattr(active_set, "InteriorPoint", lambda *args: calls.append(1) or interior(*args))
    solution = solve_crammer_singer(features, labels, 100.0, tol=1e-6, max_iter=40)
    assert calls
    assert_certified(solution, features, labels, 100.0, tol=1e-6)
    assert solution.n_support < len(labels)
    calls.clear()
    assert solve_crammer_singer(features, labels, 1e-3, tol=1e-6).converged
    assert not calls


def test_auto_does_not_wait_for_descent_to_crawl_where_a_hard_margin_is_crowded():
    """Random labels: descent once leaves far more free multipliers than weights; the next screen is the last."""
    features, labels = crowded()
    solution = solve_crammer_singer(features, labels, 100.0)
    assert_certified(solution, features, labels, 100.0, tol=1e-6)
    assert solution.n_iter == 2


def test_a_run_that_is_stopped_loses_nothing():
    """What descent had reached stays where the path has not come further."""
    features, labels = blobs(1009, 7, 5, spread=2.0)
    problem = make_problem(features, labels, 10.0)
    state = SimplexState.cold(labels, 10.0, 5)
    with Monitor(1e-6, 3, None, None, show_progress=False) as monitor:
        descent = active_set.ActiveSetSolver(problem, state, monitor, method="cd", seed=0)
        descent.solve(None)
    kept = state.beta.copy()
    with Monitor(1e-6, 100, 1e-9, None, show_progress=False) as monitor:
        active_set.InteriorPoint(problem, state, monitor).solve(descent.weight, descent.result.gap)
    np.testing.assert_array_equal(state.beta, kept)


def test_a_trail_starts_from_the_tightest_point_whose_gap_outweighs_what_scaling_adds():
    """The scaled point keeps W, β / C and the slacks; its W − αᵀΦ adds ½ (scale − 1)² ‖W‖² to the gap."""
    rows, weight = np.arange(2), np.ones((2, 3))
    points = [
        CentralPathIterate(weight, np.full((2, 2), C / 2), np.ones(2), rows, mu=mu, relative_gap=mu)
        for mu in (1.0, 1e-2, 1e-4)
    ]
    trail = CentralPathHistory(np.array([[0, 1], [1, 0]], np.int32), np.array([2, 2], np.int32), C, points)
    for scale, mu in ((1.001, 1e-4), (1.1, 1e-2), (2.0, 1.0)):
        start = trail.start(scale * C)
        np.testing.assert_allclose(start.mu, scale * mu)
        np.testing.assert_allclose(start.beta.sum(axis=1), scale * C)
        np.testing.assert_array_equal(start.weight, weight)
    assert trail.start(100 * C) is None
    state = trail.state(2 * C)
    assert state.n_support == 0
    assert state.beta[:, 0].tolist() == [2 * C, 2 * C]


def test_too_many_weights_are_refused():
    features, labels = blobs(47, 2001, 3)
    with pytest.raises(InvalidValueError, match=r"method.*6000.*6003"):
        solve_crammer_singer(features, labels, 1.0, method="interior")
