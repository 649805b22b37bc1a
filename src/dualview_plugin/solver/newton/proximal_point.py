"""The proximal point of the dual on a working set, as a smooth function of W: kernels on the lists of active classes.

With β⁰ the present dual variables and σ the proximal parameter,

    φ_σ(W) = ½‖W‖² + Σ_i max_{β_i ∈ simplex} ⟨β_i, g_i(W)⟩ − ‖β_i − β⁰_i‖² / 2σ

is convex and differentiable; its minimum W satisfies W = αᵀΦ for the maximising β(W) = Proj(β⁰ + σ g(W)), which is the
next proximal iterate. ∇φ_σ(W) = W − α(W)ᵀΦ, and for every W

    dual(β(W)) = φ_σ(W) − ½‖∇φ_σ(W)‖² + ‖β(W) − β⁰‖² / 2σ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_projection import project_onto_simplex, simplex_threshold
from dualview_plugin.solver.objective import margin_violation


@compiled
def proximal_step(
    scores: NDArray[np.float64],
    old_beta: NDArray[np.float64],
    count: NDArray[np.int32],
    sigma: float,
    C: float,
    beta: NDArray[np.float64],
) -> float:
    """Fills β = Proj(β⁰ + σ g) and returns Σ_i ⟨β_i, g_i⟩ − ‖β_i − β⁰_i‖² / 2σ."""
    point, envelope = np.empty(scores.shape[1]), 0.0
    for i in range(len(count)):
        shift_by_gradient(scores[i], old_beta[i], count[i], sigma, point)
        project_onto_simplex(point, count[i], C)
        for a in range(count[i]):
            b, change = point[a], point[a] - old_beta[i, a]
            beta[i, a] = b
            envelope -= change * change / (2.0 * sigma)
            if a > 0:
                envelope += b * margin_violation(scores[i, a], scores[i, 0])
    return envelope


@compiled
def shift_by_gradient(
    scores: NDArray[np.float64], old_beta: NDArray[np.float64], size: int, sigma: float, point: NDArray[np.float64]
) -> None:
    """Fills point = β⁰ + σ g of one training point."""
    point[0] = old_beta[0]
    for a in range(1, size):
        point[a] = old_beta[a] + sigma * margin_violation(scores[a], scores[0])


@compiled
def slope_of_loss(
    scores: NDArray[np.float64],
    direction: NDArray[np.float64],
    step: float,
    old_beta: NDArray[np.float64],
    count: NDArray[np.int32],
    sigma: float,
    C: float,
) -> float:
    """−Σ_i ⟨α_i, direction_i⟩ at scores + step · direction: what the second term of φ_σ adds to its slope."""
    moved, point, slope = np.empty(scores.shape[1]), np.empty(scores.shape[1]), 0.0
    for i in range(len(count)):
        for a in range(count[i]):
            moved[a] = scores[i, a] + step * direction[i, a]
        shift_by_gradient(moved, old_beta[i], count[i], sigma, point)
        tau = simplex_threshold(point, count[i], C)
        slope -= C * direction[i, 0]
        for a in range(count[i]):
            slope += max(point[a] - tau, 0.0) * direction[i, a]
    return slope
