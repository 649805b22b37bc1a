"""Projection of a short vector onto the scaled simplex {β ≥ 0, Σ β = C}: the one exact step of every solver here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled

_NEWTON_STEPS = 64  # each finite step drops a coordinate or ends; 64 covers any list that rounding could upset


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
def project_onto_simplex(point: NDArray[np.float64], size: int, total: float) -> None:
    """In place, point ← max(point − τ, 0); what rounding leaves of the sum goes to the largest coordinate."""
    tau = simplex_threshold(point, size, total)
    rest, largest = total, 0
    for a in range(size):
        point[a] = max(point[a] - tau, 0.0)
        rest -= point[a]
        if point[a] > point[largest]:
            largest = a
    point[largest] += rest
