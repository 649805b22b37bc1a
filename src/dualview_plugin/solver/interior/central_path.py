"""The central path on the lists of active classes: kernels of the interior-point method.

With the margin gap s_ic = ξ_i − g_ic(W) > 0 of every active class, the iterates of the path satisfy for some μ > 0

    β_ic s_ic = μ,    Σ_c β_ic = C,    W = αᵀΦ.

Eliminating ξ and β from Newton's equations leaves, with D = β / s, one matrix per point on the changes of its g:

    M_i = diag(D_i) − D_i D_iᵀ / Σ D_i = Σ_{a<b} (D_ia D_ib / Σ D_i) (e_a − e_b)(e_a − e_b)ᵀ

the Laplacian of a complete graph on its active classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled

# Newton's iteration for ξ_i converges in far fewer steps than this.
_NEWTON_STEPS = 60
# A new class receives at most this fraction of C.
_ADMITTED = 1e-2


@compiled
def central_point(
    g: NDArray[np.float64],
    count: NDArray[np.int32],
    C: float,
    mu: float,
    beta: NDArray[np.float64],
    xi: NDArray[np.float64],
) -> None:
    """Fills ξ and β with β_ia (ξ_i − g_ia) = μ and Σ_a β_ia = C: Newton's iteration on ξ_i, monotone from below."""
    for i in range(len(count)):
        largest = g[i, 0]
        for a in range(1, count[i]):
            largest = max(largest, g[i, a])
        above = mu / C
        for _ in range(_NEWTON_STEPS):
            total, slope = 0.0, 0.0
            for a in range(count[i]):
                inverse = 1.0 / (above + largest - g[i, a])
                total += mu * inverse
                slope += mu * inverse * inverse
            step = (total - C) / slope
            above += step
            if step <= 1e-14 * above:
                break
        total = 0.0
        for a in range(count[i]):
            beta[i, a] = mu / (above + largest - g[i, a])
            total += beta[i, a]
        for a in range(count[i]):
            beta[i, a] *= C / total
        xi[i] = above + largest


@compiled
def admit_classes(
    g: NDArray[np.float64],
    count: NDArray[np.int32],
    C: float,
    mu: float,
    beta: NDArray[np.float64],
    xi: NDArray[np.float64],
) -> None:
    """Gives every active class with β = 0 a small β with β s = μ, and raises ξ where its margin gap would be too small.

    The other products of a point with a strong new class grow instead: later steps along the path shift mass to it.
    """
    for i in range(len(count)):
        admitted = 0.0
        for a in range(count[i]):
            if beta[i, a] == 0.0:
                xi[i] = max(xi[i], g[i, a] + mu / (_ADMITTED * C))
        for a in range(count[i]):
            if beta[i, a] == 0.0:
                beta[i, a] = mu / (xi[i] - g[i, a])
                admitted += beta[i, a]
        if admitted > 0.0:
            for a in range(count[i]):
                beta[i, a] *= C / (C + admitted)


@compiled
def change_without_response(
    beta: NDArray[np.float64],
    margin_gap: NDArray[np.float64],
    product: NDArray[np.float64],
    count: NDArray[np.int32],
    mu: float,
    change: NDArray[np.float64],
    change_of_xi: NDArray[np.float64],
) -> None:
    """Fills Δβ and Δξ for ΔW = 0: with r = (μ − product) / s − β, Δξ = Σr / ΣD and Δβ = r − D Δξ."""
    for i in range(len(count)):
        stiffness, total = 0.0, 0.0
        for a in range(count[i]):
            change[i, a] = (mu - product[i, a]) / margin_gap[i, a] - beta[i, a]
            stiffness += beta[i, a] / margin_gap[i, a]
            total += change[i, a]
        change_of_xi[i] = total / stiffness
        for a in range(count[i]):
            change[i, a] -= beta[i, a] / margin_gap[i, a] * change_of_xi[i]


@compiled
def add_response(
    beta: NDArray[np.float64],
    margin_gap: NDArray[np.float64],
    count: NDArray[np.int32],
    scores: NDArray[np.float64],
    change: NDArray[np.float64],
    change_of_xi: NDArray[np.float64],
    change_of_margin_gap: NDArray[np.float64],
) -> None:
    """Adds the effect of Δscores: Δβ_i += M_i Δscores_i, and to Δξ the mean of Δg by D; fills Δs = Δξ − Δg."""
    for i in range(len(count)):
        stiffness, mean = 0.0, 0.0
        for a in range(count[i]):
            d = beta[i, a] / margin_gap[i, a]
            stiffness += d
            mean += d * scores[i, a]
        mean /= stiffness
        change_of_xi[i] += mean - scores[i, 0]
        for a in range(count[i]):
            change[i, a] += beta[i, a] / margin_gap[i, a] * (scores[i, a] - mean)
            change_of_margin_gap[i, a] = change_of_xi[i] - (scores[i, a] - scores[i, 0])


@compiled
def longest_step(values: NDArray[np.float64], change: NDArray[np.float64], count: NDArray[np.int32]) -> float:
    """The largest t with values + t · change ≥ 0 on the lists."""
    longest = np.inf
    for i in range(len(count)):
        for a in range(count[i]):
            if change[i, a] < 0.0:
                longest = min(longest, -values[i, a] / change[i, a])
    return longest
