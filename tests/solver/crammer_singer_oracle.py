"""The formulas of the Crammer-Singer problem written out slowly: the judge of every solver."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver import CrammerSingerSolution


def dense_alpha(solution: CrammerSingerSolution, n_train: int) -> NDArray[np.float64]:
    """α of all points (n_train, n_classes)."""
    alpha = np.zeros((n_train, solution.n_classes))
    for row, i in enumerate(solution.support):
        alpha[i] = solution.dual_coef[row]
    return alpha


def primal_objective(weight, features, labels, C):
    """½ Σ_c ‖w_c‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩), by loops over points and classes."""
    loss = 0.0
    for phi, y in zip(features, labels, strict=True):
        violations = [0.0 if c == y else 1.0 + (weight[c] - weight[y]) @ phi for c in range(len(weight))]
        loss += max(violations)
    return 0.5 * (weight**2).sum() + C * loss


def dual_objective(alpha, features, labels):
    """Σ_i α_{i y_i} − ½ Σ_ij ⟨α_i, α_j⟩ ⟨φ_i, φ_j⟩, through the Gram matrices."""
    own = sum(alpha[i, y] for i, y in enumerate(labels))
    return own - 0.5 * ((alpha @ alpha.T) * (features @ features.T)).sum()


def assert_certified(solution, features, labels, C, *, tol=None, fit_intercept=False):
    """Feasible to 1e-9·C, W = αᵀΦ to 1e-10, objectives and gap as the formulas give them for what is returned."""
    features = features.astype(np.float64)
    if fit_intercept:
        features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        weight = np.concatenate([solution.weight, solution.intercept[:, None]], axis=1)
    else:
        weight = solution.weight
        assert not solution.intercept.any()
    alpha = dense_alpha(solution, len(labels))
    assert_feasible(alpha, labels, C)
    expected_weight = alpha.T @ features
    terms = (np.abs(alpha).T @ np.abs(features)).max()  # what cancels in W, so what its rounding is relative to
    assert np.abs(weight - expected_weight).max() <= 1e-10 * terms
    rounding = 1e-14 * terms * np.abs(features).sum(axis=1).max() * C * len(labels)
    primal, dual = primal_objective(weight, features, labels, C), dual_objective(alpha, features, labels)
    np.testing.assert_allclose(solution.primal_objective, primal, rtol=1e-10, atol=rounding)
    np.testing.assert_allclose(solution.dual_objective, dual, rtol=1e-10, atol=1e-10 * primal + rounding)
    np.testing.assert_allclose(solution.duality_gap, (primal - dual) / primal, atol=1e-9 + 2 * rounding / primal)
    assert solution.duality_gap >= -1e-12 - rounding / primal
    if tol is not None:
        assert solution.converged
        assert solution.duality_gap <= tol


def assert_feasible(alpha, labels, C):
    """Σ_c α_ic = 0 and α_ic ≤ C [c = y_i], to 1e-9·C."""
    upper = np.zeros_like(alpha)
    upper[np.arange(len(labels)), labels] = C
    assert np.abs(alpha.sum(axis=1)).max() <= 1e-9 * C
    assert (alpha - upper).max() <= 1e-9 * C


def blobs(n_train, n_features, n_classes, *, spread=1.0, seed=0, dtype=np.float64):
    """Overlapping classes around random centres; standardised features."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n_train)
    labels[:n_classes] = np.arange(n_classes)[:n_train]
    features = rng.normal(size=(n_classes, n_features))[labels] + spread * rng.normal(size=(n_train, n_features))
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return features.astype(dtype), labels


def crowded():
    """1,500 randomly labelled points: every class competes at every one, and hard margins need the interior point."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(1500, 6)), rng.integers(0, 4, 1500)
