"""The interior-point method's pieces against dense linear algebra, and when it is used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from dualview_plugin.errors import ConvergenceWarning, InvalidValueError
from dualview_plugin.solver import SolverProgress, solve_crammer_singer
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior import central_path
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.interior_point import without_noise
from dualview_plugin.solver.interior.predictor_corrector import (
    CentralPathIterate,
    EvaluatedIterate,
    PredictorCorrector,
)
from dualview_plugin.solver.problem import make_problem
from dualview_plugin.solver.screening.monitor import never
from tests.solver.crammer_singer_oracle import assert_certified, blobs, crowded

C = 0.7
Array = NDArray[np.float64]


def random_state(rng: np.random.Generator, labels: NDArray[np.int64], n_classes: int) -> SimplexState:
    """Points with two to all classes active."""
    state = SimplexState.cold(labels, C, n_classes)
    state.widen(n_classes - 1, n_classes)
    for i, label in enumerate(labels):
        others = rng.permutation(np.delete(np.arange(n_classes), label))
        state.count[i] = size = rng.integers(2, n_classes + 1)
        state.classes[i, 1:size] = others[: size - 1]
    return state


def method_on(
    features: Array, state: SimplexState, rows: NDArray[np.int64], weight: Array, n_correctors: int = 10
) -> PredictorCorrector:
    labels = state.classes[:, 0].astype(np.int64)
    problem = make_problem(features, labels, state.C, n_classes=len(weight))
    working = WorkingSet(problem, state, weight, rows)
    return PredictorCorrector(working, never, lambda _: None, n_correctors=n_correctors)


def random_method(
    seed: int, n_points: int = 19, n_features: int = 5, n_classes: int = 4
) -> tuple[PredictorCorrector, Array]:
    """The method on random lists, and a random weight."""
    rng, n_points, n_features, n_classes = np.random.default_rng(seed), 19, 5, 4
    features, labels = rng.normal(size=(n_points, n_features)), rng.integers(0, n_classes, n_points)
    weight = rng.normal(size=(n_classes, n_features))
    return method_on(features, random_state(rng, labels, n_classes), np.arange(n_points), weight), weight


def dense(method: PredictorCorrector, values: Array) -> Array:
    """Values on the lists as a matrix (n_points, n_classes), zero elsewhere."""
    matrix = np.zeros((len(values), len(method.working.weight)))
    for i in range(len(values)):
        size = method.count[i]
        matrix[i, method.classes[i, :size]] = values[i, :size]
    return matrix


def is_listed(method: PredictorCorrector) -> NDArray[np.bool_]:
    """Which classes are on the lists, (n_points, n_classes)."""
    return dense(method, method.listed.astype(float)) > 0


def gradients(method: PredictorCorrector, weight: Array) -> Array:
    """g_ic = ⟨w_c − w_y, φ⟩ + 1 − [c = y] for all classes."""
    scores, labels = method.features @ weight.T, method.classes[:, 0]
    own = scores[np.arange(len(scores)), labels][:, None]
    return scores - own + 1 - np.eye(len(weight))[labels]


def dense_system(method: PredictorCorrector, current: EvaluatedIterate) -> Array:
    """I + Σ_i M_i ⊗ φ_i φ_iᵀ with M_i = diag(D) − D Dᵀ / Σ D, point by point."""
    stiffness = dense(method, current.iterate.beta / current.margin_gap)
    matrix = np.eye(method.working.weight.size)
    for d, phi in zip(stiffness, method.features, strict=True):
        matrix += np.kron(np.diag(d) - np.outer(d, d) / d.sum(), np.outer(phi, phi))
    return matrix


@pytest.mark.parametrize("mu", [1e-9, 1e-3, 10.0])
def test_a_central_iterate_has_one_product_everywhere(mu: float) -> None:
    method, weight = random_method(0)
    iterate = method.central_iterate(weight, mu)
    np.testing.assert_allclose(iterate.beta.sum(axis=1), C, rtol=1e-12)
    margin_gap = iterate.xi[:, None] - gradients(method, weight)
    np.testing.assert_allclose((dense(method, iterate.beta) * margin_gap)[is_listed(method)], mu, rtol=1e-6)


@pytest.mark.parametrize("centring", [0.0, 0.3])
def test_a_direction_solves_newtons_equations(centring: float) -> None:
    """β s = μ − product to first order, Σ Δβ = 0, Δs = Δξ − Δg and ΔW + Σ Δβ φᵀ = αᵀΦ − W, each formed densely."""
    method, weight = random_method(1)
    current = method.evaluate(method.central_iterate(weight, 0.1))
    beta, margin_gap, listed = current.iterate.beta, current.margin_gap, method.listed
    alpha = C * np.eye(4)[method.classes[:, 0]] - dense(method, beta)
    np.testing.assert_allclose(current.residual, weight - alpha.T @ method.features, atol=1e-12)

    system = np.tril(method.system(method.edges(current)))
    matrix, exact = np.eye(len(system)) + system + np.tril(system, -1).T, dense_system(method, current)
    assert np.linalg.norm(matrix - exact, 2) <= 1e-2  # edges that are left out change it by at most this times I
    product = listed * np.random.default_rng(2).normal(size=beta.shape)
    mu = centring * current.iterate.mu
    step = method.direction(current, product, mu, (np.linalg.cholesky(exact), True))
    np.testing.assert_allclose(step.beta.sum(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(
        (margin_gap * step.beta + beta * step.margin_gap)[listed], (mu - product - beta * margin_gap)[listed], atol=1e-9
    )
    change = gradients(method, weight + step.weight) - gradients(method, weight)
    np.testing.assert_allclose(
        dense(method, step.margin_gap)[is_listed(method)], (step.xi[:, None] - change)[is_listed(method)], atol=1e-9
    )
    np.testing.assert_allclose(step.weight + dense(method, step.beta).T @ method.features, -current.residual, atol=1e-9)


def test_the_longest_step_ends_at_the_boundary() -> None:
    values, change = np.array([[1.0, 2.0, 9.0], [3.0, 1.0, 1.0]]), np.array([[-0.5, 1.0, -9.9], [-2.0, -0.25, 0.0]])
    assert central_path.longest_step(values, change, np.array([2, 3], np.int32)) == pytest.approx(1.5)
    assert central_path.longest_step(values, np.zeros((2, 3)), np.array([2, 3], np.int32)) == np.inf


def test_a_run_reaches_any_gap_and_keeps_an_iterate_of_each_decade() -> None:
    method, weight = random_method(2)
    run = method.follow(method.central_iterate(weight, 10.0), 1e-9)
    assert run.arrived
    assert run.final.iterate.relative_gap <= 1e-9
    assert all(later.relative_gap <= 0.1 * earlier.relative_gap for earlier, later in pairwise(run.kept))
    np.testing.assert_allclose(run.final.residual, 0, atol=1e-4)


def test_a_run_without_time_ends_where_it_starts() -> None:
    method, weight = random_method(2)
    stopped = PredictorCorrector(method.working, lambda operations=0.0: True, lambda _: None)
    run = stopped.follow(stopped.central_iterate(weight, 10.0), 1e-9)
    assert not run.arrived
    np.testing.assert_array_equal(run.final.iterate.weight, weight)


def test_an_iterate_is_continued_on_a_larger_working_set() -> None:
    """What was listed keeps β and ξ; new points and classes enter with β s = μ and at most a small fraction of C."""
    method, weight = random_method(3)
    state, small = method.working.state, np.arange(2, 19)
    fewer = SimplexState(state.classes.copy(), state.beta.copy(), state.count.copy(), C)
    fewer.count[7] -= 1
    smaller = method_on(method.features, fewer, small, weight)
    iterate = smaller.central_iterate(weight, 0.3)
    extended = method.extended(iterate)
    same, changed = np.delete(small, 5), [0, 1, 7]
    width = iterate.beta.shape[1]
    np.testing.assert_array_equal(extended.beta[same, :width], iterate.beta[same - 2])
    np.testing.assert_array_equal(extended.xi[same], iterate.xi[same - 2])
    np.testing.assert_allclose(extended.beta.sum(axis=1), C)
    margin_gap = extended.xi[:, None] - gradients(method, weight)
    assert margin_gap[is_listed(method)].min() > 0
    new = method.count[7] - 1
    assert extended.beta[7, new] <= 1e-2 * C
    assert extended.beta[7, new] * margin_gap[7, method.classes[7, new]] <= 0.3
    assert (extended.beta[changed][method.listed[changed]] > 0).all()


def steps_with(n_correctors: int) -> int:
    """Steps to a gap of 1e-8 on lists of all classes."""
    features, labels = blobs(1009, 7, 5, spread=2.0)
    state = SimplexState.cold(labels, 100.0, 5)
    state.widen(4, 5)
    state.classes[:] = (labels[:, None] + np.arange(5)) % 5
    state.count[:] = 5
    problem, seen = make_problem(features, labels, 100.0), []
    working = WorkingSet(problem, state, np.zeros((5, 7)), np.arange(1009))
    method = PredictorCorrector(working, never, seen.append, n_correctors=n_correctors)
    assert method.follow(method.central_iterate(working.weight, 100.0), 1e-8, of_alpha=True).arrived
    return len(seen)


def test_centrality_correctors_lengthen_the_step() -> None:
    assert steps_with(3) < steps_with(0)


def test_noise_is_set_to_zero_and_the_sum_kept() -> None:
    beta = np.array([[0.6, 0.1, 1e-9], [1e-9, 0.7, 0.0]])
    margin_gap = np.array([[1e-9, 1e-8, 0.2], [0.3, 1e-9, 1.0]])
    iterate = CentralPathIterate(np.zeros((3, 1)), beta, np.zeros(2), np.arange(2), 1e-9)
    final = EvaluatedIterate(iterate, margin_gap, np.zeros((3, 1)), 0.0)
    cleaned = without_noise(final, np.array([2.0, 2.0]), C)
    np.testing.assert_array_equal(cleaned > 0, [[True, True, False], [False, True, False]])
    np.testing.assert_allclose(cleaned.sum(axis=1), C, rtol=1e-15)


def test_auto_uses_it_where_classes_overlap_and_the_margin_is_hard() -> None:
    """Where descent and Newton's proximal steps do not arrive, within rounds that are enough for the interior point."""
    features, labels = blobs(3001, 11, 5, spread=2.0)
    solution = solve_crammer_singer(features, labels, 100.0, tol=1e-6, max_iter=40)
    assert_certified(solution, features, labels, 100.0, tol=1e-6)
    assert solution.n_support < len(labels)


def test_auto_does_not_wait_for_descent_to_stall_where_a_hard_margin_is_crowded() -> None:
    """Random labels: one round of descent leaves far more free multipliers than weights, and is the only one."""
    features, labels = crowded()
    solution = solve_crammer_singer(features, labels, 100.0)
    assert_certified(solution, features, labels, 100.0, tol=1e-6)
    assert solution.n_iter <= 6


@pytest.mark.parametrize("C", [1.0, 100.0])
def test_every_screen_is_reported(C: float) -> None:
    features, labels = blobs(1009, 7, 5, spread=2.0)
    seen: list[SolverProgress] = []
    solution = solve_crammer_singer(features, labels, C, method="interior", callback=seen.append)
    assert [progress.n_iter for progress in seen] == list(range(1, solution.n_iter + 1))
    assert len(seen) > 2
    assert all(progress.primal_objective >= progress.dual_objective for progress in seen)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
@pytest.mark.parametrize("by", ["max_iter", "callback"])
def test_a_run_that_is_stopped_loses_nothing(stop_at: int, by: str) -> None:
    """The state has the best β so far, so the certified gap does not exceed what descent alone had reached."""
    features, labels = blobs(1009, 7, 5, spread=2.0)
    first: list[float] = []

    def watch(progress: SolverProgress) -> bool:
        first.append(progress.dual_objective)
        return by == "callback" and progress.n_iter == stop_at

    callback: Callable[[SolverProgress], object] = watch
    with pytest.warns(ConvergenceWarning, match=f"after {stop_at} iterations"):
        solution = solve_crammer_singer(
            features,
            labels,
            10.0,
            method="interior",
            tol=1e-12,
            max_iter=stop_at if by == "max_iter" else 1000,
            callback=callback,
        )
    assert solution.n_iter == stop_at
    assert_certified(solution, features, labels, 10.0)
    assert solution.dual_objective >= first[0] - 1e-9 * abs(first[0])


def test_a_history_starts_from_the_tightest_iterate_whose_gap_exceeds_what_scaling_adds() -> None:
    """The scaled iterate keeps W, β / C and the margin gaps; its W − αᵀΦ adds ½ (scale − 1)² ‖W‖² to the gap."""
    rows, weight = np.arange(2), np.ones((2, 3))
    iterates = [
        CentralPathIterate(weight, np.full((2, 2), C / 2), np.ones(2), rows, mu=mu, relative_gap=mu)
        for mu in (1.0, 1e-2, 1e-4)
    ]
    history = CentralPathHistory(np.array([[0, 1], [1, 0]], np.int32), np.array([2, 2], np.int32), C, iterates)
    for scale, mu in ((1.001, 1e-4), (1.1, 1e-2), (2.0, 1.0)):
        start = history.start(scale * C)
        assert start is not None
        np.testing.assert_allclose(start.mu, scale * mu)
        np.testing.assert_allclose(start.beta.sum(axis=1), scale * C)
        np.testing.assert_array_equal(start.weight, weight)
    assert history.start(100 * C) is None
    state = history.state(2 * C)
    assert state.n_support == 0
    assert state.beta[:, 0].tolist() == [2 * C, 2 * C]


def test_too_many_weights_are_refused() -> None:
    features, labels = blobs(47, 5334, 3)
    with pytest.raises(InvalidValueError, match=r"method.*16000.*'interior' for 16002"):
        solve_crammer_singer(features, labels, 1.0, method="interior")
