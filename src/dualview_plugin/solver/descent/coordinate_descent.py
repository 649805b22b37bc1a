"""Dual coordinate descent: one point at a time, its whole β_i at once, over its active classes only.

With the others fixed the dual is −½‖φ_i‖² ‖β_i − β_i⁰ − g_i/‖φ_i‖²‖² up to a constant, so the best β_i is one
projection onto the simplex; going 1.6 times as far before it needs fewer passes (over-relaxation). A point's local gap
is Σ_c β_ic (max_c g_ic − g_ic): zero where β_i is optimal. Points near their optimum are left out of the next passes
(shrinking); a full pass returns to them.
Source: Crammer and Singer (2001), eq. 12; the sequential form after Keerthi et al. (2008).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_projection import project_onto_simplex
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.screen import scan

_SHUFFLE_ROWS = 8  # rows that stay together in a shuffle, for the cache
_RELAXATION = 1.6  # below 2 the dual rises: a point's Hessian is ‖φ_i‖² times the identity
_SHRUNK_PASSES = 8
_SHRINK_SHARE = 0.1  # points with less than this share of their part of the target are left out


def descend_until(
    working: WorkingSet,
    target: float,
    rng: np.random.Generator,
    *,
    budget: float,
    expired: Callable[[], bool],
    impatience: float = 0.0,
) -> float:
    """Passes over the working set until its gap is at most ``target`` or ``budget`` full passes are spent.

    Returns the gap of the working set. With ``impatience`` the target is at most that share of the first gap.
    """
    passes, everyone = 0.0, np.arange(working.size)
    while True:
        threshold = _SHRINK_SHARE * target / max(1, working.size)
        kept, gap = descend(working, shuffled(everyone, rng), threshold)
        if passes == 0 and impatience:
            target = min(target, impatience * gap)
        passes += 1
        if gap <= target or passes >= budget or expired():
            return gap
        for _ in range(_SHRUNK_PASSES):
            passes += len(kept) / working.size
            kept, gap_of_kept = descend(working, shuffled(kept, rng), threshold)
            if gap_of_kept <= 0.5 * target or not len(kept):
                break


def first_epoch(
    problem: CrammerSingerProblem,
    state: SimplexState,
    weight: NDArray[np.float64],
    rng: np.random.Generator,
    expired: Callable[[], bool],
) -> None:
    """One epoch from scratch: blocks of points in random order are screened, then descended on twice."""
    rows, transient = max(64, min(2048, problem.n_train // 64)), min(2, problem.n_classes - 1)
    for start in rng.permutation(np.arange(0, problem.n_train, rows)):
        stop = min(problem.n_train, start + rows)
        scores = problem.features32[start:stop] @ weight.T.astype(np.float32)
        scan(scores, start, state.classes, state.beta, state.count, state.C, 1e-3, transient)
        order = start + rng.permutation(stop - start)
        kept = np.empty_like(order)
        for _ in range(2):
            descend_once(
                problem.features,
                problem.squared_norms,
                state.classes,
                state.beta,
                state.count,
                state.C,
                weight,
                order,
                0.0,
                kept,
            )
        if expired():
            return


def descend(working: WorkingSet, order: NDArray[np.int64], threshold: float) -> tuple[NDArray[np.int64], float]:
    """One pass in the given order. Returns the points whose local gap exceeded the threshold, and the total gap."""
    state, kept = working.state, np.empty_like(order)
    n_kept, gap = descend_once(
        working.features,
        working.squared_norms,
        state.classes,
        state.beta,
        state.count,
        state.C,
        working.weight,
        order,
        threshold,
        kept,
    )
    return np.sort(kept[:n_kept]), gap


def shuffled(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows in random order, in runs of neighbours: random enough for descent, kind to the cache."""
    n_runs = -(-len(rows) // _SHUFFLE_ROWS)
    order = (rng.permutation(n_runs)[:, None] * _SHUFFLE_ROWS + np.arange(_SHUFFLE_ROWS)).ravel()
    mixed: NDArray[np.int64] = rows[order[order < len(rows)]]
    return mixed


@compiled
def descend_once(
    features: NDArray[np.floating],
    squared_norms: NDArray[np.float64],
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    count: NDArray[np.int32],
    C: float,
    weight: NDArray[np.float64],
    order: NDArray[np.int64],
    threshold: float,
    kept: NDArray[np.int64],
) -> tuple[int, float]:
    """The over-relaxed step of every point in ``order``; W follows.

    Returns how many local gaps exceed the threshold, and the sum of all local gaps, each taken before its step.
    """
    n_kept, total_gap = 0, 0.0
    g, point = np.empty(classes.shape[1]), np.empty(classes.shape[1])
    for i in order:
        size = count[i]
        if size < 2:
            continue
        largest = gradient_of_point(features[i], weight, classes[i], size, g)
        gap = 0.0
        for a in range(size):
            gap += beta[i, a] * (largest - g[a])
        total_gap += gap
        if gap > threshold:
            kept[n_kept] = i
            n_kept += 1
        if gap <= 1e-16 * C:
            continue
        for a in range(size):
            point[a] = beta[i, a] + _RELAXATION * (g[a] - largest) / squared_norms[i]
        project_onto_simplex(point, size, C)
        move_point(features[i], weight, classes[i], beta[i], size, point)
    return n_kept, total_gap


@compiled
def gradient_of_point(
    row: NDArray[np.floating],
    weight: NDArray[np.float64],
    classes: NDArray[np.int32],
    size: int,
    g: NDArray[np.float64],
) -> float:
    """g_a = ⟨w_a, φ⟩ + 1 − [a is the label], over the active classes; returns the largest."""
    largest = -np.inf
    for a in range(size):
        w, score = weight[classes[a]], 0.0
        for j in range(len(row)):
            score += w[j] * row[j]
        g[a] = score + 1.0 if a > 0 else score
        largest = max(largest, g[a])
    return largest


@compiled
def move_point(
    row: NDArray[np.floating],
    weight: NDArray[np.float64],
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    size: int,
    new_beta: NDArray[np.float64],
) -> None:
    """β_i ← new β_i and W ← W + Σ_a (β_ia − new β_ia) e_a φᵀ."""
    for a in range(size):
        step = beta[a] - new_beta[a]
        if step != 0.0:
            beta[a] = new_beta[a]
            w = weight[classes[a]]
            for j in range(len(row)):
                w[j] += step * row[j]
