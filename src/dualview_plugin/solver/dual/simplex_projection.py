"""Projection of a short vector onto the scaled simplex {β ≥ 0, Σ β = C}, the exact step of descent and Newton."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled

# Newton's iteration ends when no coordinate leaves the sum; the bound only guards against rounding in long lists.
_NEWTON_STEPS = 64


@compiled
def simplex_threshold(point: NDArray[np.float64], size: int, total: float) -> float:
    """τ with Σ_a max(point_a − τ, 0) = total.

    Newton's iteration on that convex, decreasing sum, from max − total, where it is at least ``total``: monotone.
    """
    largest: float = point[0]
    for a in range(1, size):
        largest = max(largest, point[a])
    tau = largest - total
    for _ in range(_NEWTON_STEPS):
        above, kept = 0.0, 0
        for a in range(size):
            if point[a] > tau:
                above += point[a] - tau
                kept += 1
        if kept == 0:
            break
        step = (above - total) / kept
        if step <= 1e-15 * abs(tau):
            break
        tau += step
    return tau


@compiled
def weighted_threshold(point: NDArray[np.float64], spread: NDArray[np.float64], size: int, total: float) -> float:
    """τ with Σ_a max(point_a − τ spread_a, 0) = total, by the same iteration; spread > 0."""
    tau: float = (point[0] - total) / spread[0]
    for a in range(1, size):
        tau = max(tau, (point[a] - total) / spread[a])
    for _ in range(_NEWTON_STEPS):
        above, slope = 0.0, 0.0
        for a in range(size):
            if point[a] > tau * spread[a]:
                above += point[a] - tau * spread[a]
                slope += spread[a]
        if slope == 0.0:
            break
        step = (above - total) / slope
        if step <= 1e-15 * abs(tau):
            break
        tau += step
    return tau


@compiled
def project_onto_simplex(point: NDArray[np.float64], size: int, total: float) -> None:
    """In place, point ← max(point − τ, 0); the largest coordinate takes the rounding error of the sum."""
    tau = simplex_threshold(point, size, total)
    rest, largest = total, 0
    for a in range(size):
        point[a] = max(point[a] - tau, 0.0)
        rest -= point[a]
        if point[a] > point[largest]:
            largest = a
    point[largest] += rest


@compiled
def project_in_metric(point: NDArray[np.float64], spread: NDArray[np.float64], size: int, total: float) -> None:
    """In place, the nearest point of the simplex where the square of coordinate a counts 1 / spread_a times."""
    tau = weighted_threshold(point, spread, size, total)
    rest, largest = total, 0
    for a in range(size):
        point[a] = max(point[a] - tau * spread[a], 0.0)
        rest -= point[a]
        if point[a] > point[largest]:
            largest = a
    point[largest] += rest
