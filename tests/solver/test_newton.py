"""Newton's pieces against dense linear algebra: the system in each of its three forms, and the step on a face."""

from __future__ import annotations

import numpy as np
import pytest

from dualview_plugin.solver import solve_crammer_singer
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.newton import newton_system
from dualview_plugin.solver.newton.face_step import step_on_the_face
from dualview_plugin.solver.newton.free_face import FreeFace

N_TRAIN, N_FEATURES, C = 23, 7, 0.7


def random_state(n_classes: int, rng: np.random.Generator) -> SimplexState:
    """Points with one to all classes active, some of them without mass."""
    state = SimplexState.cold(rng.integers(0, n_classes, N_TRAIN), C, n_classes)
    state.make_room(n_classes - 1, n_classes)
    for i in range(N_TRAIN):
        others = rng.permutation(np.delete(np.arange(n_classes), state.classes[i, 0]))
        size = state.count[i] = rng.integers(1, n_classes + 1)
        state.classes[i, 1:size] = others[: size - 1]
        mass = rng.exponential(size=size) * (rng.random(size) < 0.7)
        mass[0] += mass.sum() == 0
        state.beta[i, :size] = C * mass / mass.sum()
    return state


def dense_directions(state: SimplexState, face: FreeFace, features: np.ndarray, n_classes: int) -> np.ndarray:
    """u_f φ_fᵀ of every free direction as a row of n_classes · n_features numbers."""
    rows = [np.outer(u, features[i]) for u, i in zip(face.basis.toarray(), face.points, strict=True)]
    return np.reshape(rows, (face.n_free, n_classes * N_FEATURES))


@pytest.mark.parametrize("n_classes", [3, 67])
def test_the_basis_spans_the_changes_that_keep_the_sum(n_classes):
    rng = np.random.default_rng(0)
    state, features = random_state(n_classes, rng), rng.normal(size=(N_TRAIN, N_FEATURES))
    face = FreeFace.of(state, features, np.ones(n_classes))
    basis = face.basis.toarray()
    assert face.n_free == state.n_free > 0
    for i in range(N_TRAIN):
        own = basis[face.points == i]
        assert len(own) == (state.beta[i] > 0).sum() - 1
        np.testing.assert_allclose(own @ own.T, np.eye(len(own)), atol=1e-14)
        np.testing.assert_allclose(own.sum(axis=1), 0, atol=1e-14)
        massless = np.setdiff1d(np.arange(n_classes), state.classes[i][state.beta[i] > 0])
        assert not own[:, massless].any()


FORMS = {
    "on_the_face": (lambda face, sigma, gradient: newton_system.on_the_face(face, sigma, gradient), 1e-9),
    "on_the_weights": (
        lambda face, sigma, gradient: newton_system.on_the_weights(face, face.edges(sigma), gradient),
        1e-9,
    ),
    "by_conjugate_gradients": (
        lambda face, sigma, gradient: newton_system.by_conjugate_gradients(face, sigma, gradient),
        2e-2,
    ),
}


@pytest.mark.parametrize("n_classes", [3, 67])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sigma", [0.3, 50.0])
@pytest.mark.parametrize("n_merged", [1, 11])
def test_every_form_solves_the_dense_system(n_classes: int, form: str, sigma: float, n_merged: int) -> None:
    rng = np.random.default_rng(1)
    state, features = random_state(n_classes, rng), rng.normal(size=(N_TRAIN, N_FEATURES))
    scale = np.append(np.ones(n_classes - 1), n_merged**-0.5)
    face = FreeFace.of(state, features, scale)
    a = dense_directions(state, face, features, n_classes) * np.repeat(scale, N_FEATURES)
    gradient = rng.normal(size=(n_classes, N_FEATURES))
    solve, tolerance = FORMS[form]
    found = solve(face, sigma, gradient)
    residual = found.ravel() + sigma * a.T @ (a @ found.ravel()) + gradient.ravel()
    assert np.linalg.norm(residual) <= tolerance * np.linalg.norm(gradient)


def test_without_time_the_direction_still_descends() -> None:
    rng = np.random.default_rng(2)
    state, features = random_state(3, rng), rng.normal(size=(N_TRAIN, N_FEATURES))
    face, gradient = FreeFace.of(state, features, np.ones(3)), rng.normal(size=(3, N_FEATURES))
    for solve in (newton_system.newton_direction, newton_system.by_conjugate_gradients):
        assert np.vdot(solve(face, 1.0, gradient, lambda operations=0.0: True), gradient) < 0


def test_a_full_step_makes_the_gradient_vanish_on_the_face():
    rng = np.random.default_rng(3)
    state, features = interior_state(rng), np.eye(5, N_FEATURES) + 0.1 * rng.normal(size=(5, N_FEATURES))
    face = FreeFace.of(state, features, np.ones(3))
    step, moved = step_on_the_face(face, state.weight(features, np.ones(3)))
    assert step == 1.0
    weight = moved.weight(features, np.ones(3))
    gradient = features @ weight.T + 1 - np.eye(3)[moved.classes[:, 0]]
    np.testing.assert_allclose(gradient - gradient.mean(axis=1, keepdims=True), 0, atol=1e-7)
    assert moved.dual_objective(weight) > state.dual_objective(state.weight(features, np.ones(3)))


def interior_state(rng: np.random.Generator) -> SimplexState:
    """Room for every multiplier: for nearly orthogonal points the optimum on the face is inside it."""
    state = SimplexState.cold(rng.integers(0, 3, 5), 100.0, 3)
    state.make_room(2, 3)
    state.count[:] = 3
    for i in range(5):
        state.classes[i, 1:] = np.delete(np.arange(3), state.classes[i, 0])
        state.beta[i, :3] = 100.0 * np.array([0.98, 0.01, 0.01])
    return state


def test_a_step_stops_where_a_multiplier_would_turn_negative():
    rng = np.random.default_rng(4)
    state, features = random_state(4, rng), rng.normal(size=(N_TRAIN, N_FEATURES))
    face = FreeFace.of(state, features, np.ones(4))
    step, moved = step_on_the_face(face, state.weight(features, np.ones(4)))
    assert 0 < step < 1
    assert moved.beta.min() == 0
    assert moved.n_free < state.n_free
    np.testing.assert_allclose(moved.beta.sum(axis=1), C, rtol=1e-12)
    assert moved.dual_objective(moved.weight(features, np.ones(4))) >= state.dual_objective(
        state.weight(features, np.ones(4))
    )


def test_auto_finishes_with_newton_where_the_face_is_small():
    """Descent alone stops just below the tolerance; Newton on the face of the optimum goes on to rounding."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 5, 503)
    features = rng.normal(size=(503, 13)) + 2 * rng.normal(size=(5, 13))[labels]
    gaps = {
        method: solve_crammer_singer(features, labels, 10.0, tol=1e-6, method=method).duality_gap
        for method in ("cd", "auto")
    }
    assert gaps["auto"] < 1e-9 < gaps["cd"] <= 1e-6
