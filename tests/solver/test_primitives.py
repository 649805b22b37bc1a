"""The smallest pieces, each against a slow and obvious computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualview_plugin.solver.descent.coordinate_descent import descend_once
from dualview_plugin.solver.dual.simplex_projection import project_in_metric, project_onto_simplex, simplex_threshold
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.linear.laplacian_system import Edges, laplacian_system, number_of_pair
from dualview_plugin.solver.newton.proximal_point import proximal_step, slope_of_loss
from dualview_plugin.solver.objective import loss_of_active, scores_of_active
from dualview_plugin.solver.problem import make_problem
from dualview_plugin.solver.screening.screen import NEW_CLASSES, screen

Array = NDArray[np.float64]


def projection_by_sorting(point: Array, total: float) -> Array:
    """Held, Wolfe and Crowder (1974): the largest k for which the k largest entries stay positive."""
    falling = np.sort(point)[::-1]
    thresholds = (np.cumsum(falling) - total) / np.arange(1, len(point) + 1)
    tau = thresholds[np.flatnonzero(falling > thresholds)[-1]]
    return np.maximum(point - tau, 0)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(1, 23), log_total=st.floats(-6, 6), seed=st.integers(0, 2**16), decimals=st.integers(0, 9))
def test_projection_onto_the_simplex(size: int, log_total: float, seed: int, decimals: int) -> None:
    rng, total = np.random.default_rng(seed), 10.0**log_total
    point = total * rng.normal(size=size).round(decimals)  # coarse rounding: ties
    expected = projection_by_sorting(point, total)
    tau = (point - expected)[expected > 0]
    np.testing.assert_allclose(simplex_threshold(point, size, total), tau, atol=1e-9 * total)
    project_onto_simplex(point, size, total)
    np.testing.assert_allclose(point, expected, atol=1e-12 * total)
    assert point.sum() == pytest.approx(total, rel=1e-15)


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 11), log_spread=st.floats(0, 3), seed=st.integers(0, 2**16))
def test_projection_in_a_metric_meets_its_optimality_conditions(size: int, log_spread: float, seed: int) -> None:
    """(β_a − point_a) / spread_a is −τ where β_a > 0 and at least −τ where β_a = 0."""
    rng = np.random.default_rng(seed)
    point, spread = rng.normal(size=size), np.append(np.ones(size - 1), 10.0**log_spread)
    beta = point.copy()
    project_in_metric(beta, spread, size, 1.0)
    assert beta.min() >= 0
    assert beta.sum() == pytest.approx(1.0)
    slopes = (beta - point) / spread
    tau = -slopes[beta > 0]
    np.testing.assert_allclose(tau, tau[0], atol=1e-9)
    assert (slopes[beta == 0] >= -tau[0] - 1e-9).all()


def lists_with_mass(rng: np.random.Generator, n_points: int, n_classes: int, C: float) -> SimplexState:
    """Random lists, the label first, with random mass on them."""
    state = SimplexState.cold(rng.integers(0, n_classes, n_points), C, n_classes)
    state.widen(n_classes - 1, n_classes)
    for i in range(n_points):
        others = rng.permutation(np.delete(np.arange(n_classes), state.classes[i, 0]))
        state.count[i] = size = rng.integers(1, n_classes + 1)
        state.classes[i, 1:size] = others[: size - 1]
        mass = rng.exponential(size=size) * (rng.random(size) < 0.7)
        mass[0] += mass.sum() == 0
        state.beta[i, :size] = C * mass / mass.sum()
    return state


def phi(weight: Array, features: Array, state: SimplexState, sigma: float) -> tuple[float, Array]:
    """φ_σ(W) and β(W)."""
    scores, beta = np.zeros_like(state.beta), np.zeros_like(state.beta)
    scores_of_active(features, weight, state.classes, state.count, scores)
    envelope = proximal_step(scores, state.beta, state.count, sigma, state.C, beta)
    return 0.5 * float((weight**2).sum()) + envelope, beta


@pytest.mark.parametrize("sigma", [0.01, 1.0, 100.0])
def test_gradient_of_the_proximal_function(sigma: float) -> None:
    """W − α(W)ᵀΦ against central differences, entry by entry; and the slope along a direction."""
    rng = np.random.default_rng(0)
    state, features, weight = lists_with_mass(rng, 13, 4, 0.7), rng.normal(size=(13, 3)), rng.normal(size=(4, 3))
    _, beta = phi(weight, features, state, sigma)
    gradient = weight - state.with_beta(beta).weight(features, np.ones(4))
    numerical, h = np.zeros_like(weight), 1e-6
    for entry in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[entry] = h
        values = [phi(weight + sign * step, features, state, sigma)[0] for sign in (1, -1)]
        numerical[entry] = (values[0] - values[1]) / (2 * h)
    np.testing.assert_allclose(gradient, numerical, atol=1e-6)
    direction = rng.normal(size=(4, 3))
    scores, change = np.zeros_like(state.beta), np.zeros_like(state.beta)
    scores_of_active(features, weight, state.classes, state.count, scores)
    scores_of_active(features, direction, state.classes, state.count, change)
    slope = slope_of_loss(scores, change, 0.0, state.beta, state.count, sigma, 0.7)
    np.testing.assert_allclose(np.vdot(weight, direction) + slope, np.vdot(gradient, direction), atol=1e-10)


def test_the_value_of_the_proximal_function_is_a_maximum() -> None:
    """No other β on the simplices gives more than the envelope."""
    rng = np.random.default_rng(1)
    state, features, weight = lists_with_mass(rng, 7, 4, 0.7), rng.normal(size=(7, 3)), rng.normal(size=(4, 3))
    value, _ = phi(weight, features, state, 2.0)
    g = features @ weight.T
    for _ in range(200):
        total = 0.5 * (weight**2).sum()
        for i in range(7):
            size, listed = state.count[i], state.classes[i, : state.count[i]]
            beta = 0.7 * rng.dirichlet(np.full(size, 0.5))
            gradient = g[i, listed] - g[i, listed[0]] + (np.arange(size) > 0)
            total += beta @ gradient - ((beta - state.beta[i, :size]) ** 2).sum() / 4.0
        assert total <= value + 1e-12


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("threshold", [1e-3, 0.5])
def test_a_screen_by_brute_force(double: bool, threshold: float) -> None:
    """The primal, and for each point the unlisted classes with the largest violations."""
    rng = np.random.default_rng(2)
    features, n_classes, C = rng.normal(size=(31, 5)), 11, 0.3
    state, weight = lists_with_mass(rng, 31, n_classes, C), rng.normal(size=(n_classes, 5))
    state.count[:] = np.minimum(state.count, 4)
    for i in range(31):
        state.beta[i, state.count[i] :] = 0
        state.beta[i, 0] += C - state.beta[i].sum()
    labels, before = state.classes[:, 0].astype(np.int64), state.count.copy()
    problem = make_problem(features, labels, C, n_classes=n_classes)
    found = screen(problem, state, weight, -7.0, threshold=threshold, double=double)
    g = features @ weight.T - (features @ weight.T)[np.arange(31), labels][:, None] + 1
    g[np.arange(31), labels] = 0
    np.testing.assert_allclose(found.primal, 0.5 * (weight**2).sum() + C * g.max(axis=1).sum(), rtol=1e-5)
    assert found.dual == -7.0
    added = 0
    for i in range(31):
        listed = state.classes[i, : before[i]]
        lowest = min(g[i, c] for c, b in zip(listed, state.beta[i], strict=False) if b > 0)
        violating = [c for c in range(n_classes) if c not in listed and g[i, c] > lowest + threshold]
        at_optimum = g[i].max() <= 0 and state.beta[i, 0] >= C
        strongest = [] if at_optimum or g[i].max() <= lowest + threshold else sorted(violating, key=lambda c: -g[i, c])
        assert state.classes[i, before[i] : state.count[i]].tolist() == strongest[:NEW_CLASSES]
        added += len(strongest[:NEW_CLASSES])
    assert (found.n_added, found.n_refused) == (added, 0)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_the_laplacian_system_is_a_sum_of_kronecker_products(scale: float) -> None:
    rng = np.random.default_rng(3)
    features, n_classes = rng.normal(size=(7, 3)), 5
    class_scale = np.append(np.ones(n_classes - 1), scale)
    row = rng.integers(0, 7, 29)
    ends = np.array([rng.choice(n_classes, 2, replace=False) for _ in row])
    pair = np.array([number_of_pair(a, b) for a, b in ends])
    weight, expected = rng.exponential(size=29), np.zeros((15, 15))
    for (a, b), i, w in zip(ends, row, weight, strict=True):
        edge = np.zeros(n_classes)
        edge[a], edge[b] = class_scale[a], -class_scale[b]
        expected += w * np.kron(np.outer(edge, edge), np.outer(features[i], features[i]))
    system = laplacian_system(features, Edges(pair, row, weight), class_scale)
    np.testing.assert_allclose(np.tril(system), np.tril(expected), atol=1e-12)


@pytest.mark.parametrize("n_merged", [1, 13])
def test_a_pass_of_descent_raises_the_dual_and_keeps_w(n_merged: int) -> None:
    rng = np.random.default_rng(4)
    state, features = lists_with_mass(rng, 17, 5, 0.7), rng.normal(size=(17, 3))
    scale = np.append(np.ones(4), n_merged**-0.5)
    weight = state.weight(features, scale)
    before = state.dual_objective(weight)
    norms, order, kept = (features**2).sum(axis=1), np.arange(17), np.empty(17, np.int64)
    descend_once(features, norms, scale, state.classes, state.beta, state.count, 0.7, weight, order, 0.0, kept)
    np.testing.assert_allclose(weight, state.weight(features, scale), atol=1e-12)
    np.testing.assert_allclose(state.beta.sum(axis=1), 0.7)
    assert state.beta.min() >= 0
    assert state.dual_objective(weight) > before


def test_loss_of_the_lists_is_a_sum_of_largest_violations() -> None:
    scores = np.array([[1.0, 0.5, 9.0], [2.0, 0.0, 0.0]])
    assert loss_of_active(scores, np.array([2, 3], np.int32)) == pytest.approx(0.5)
