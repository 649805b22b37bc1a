"""Dual coordinate descent: one point at a time, its whole β_i at once, over its active classes only.

With the other points fixed the dual is −½‖φ_i‖² ‖β_i − β_i⁰ − g_i/‖φ_i‖²‖² up to a constant. So the best β_i is one
projection onto the simplex; a step 1.6 times as long before the projection needs fewer passes (over-relaxation). The
local gap of a point is Σ_c β_ic (max_c g_ic − g_ic); it is zero where β_i is optimal. Points with a small local gap are
left out of the next passes (shrinking); a full pass returns to them.

Source: Crammer and Singer (2001), eq. 12; the sequential form after Keerthi et al. (2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_projection import project_in_metric, project_onto_simplex
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.monitor import Stop
from dualview_plugin.solver.screening.screen import screen_block

# A shuffle keeps this many neighbouring rows together, so that memory access stays sequential.
_SHUFFLE_ROWS = 8
# The step before the projection is this many times the exact one. Below 2 the dual still rises.
_RELAXATION = 1.6
# At most this many passes over the points with a large local gap follow a full pass.
_SHRUNK_PASSES = 8
# A point is left out if its local gap is below this fraction of the target per point.
_SHRINKING_FRACTION = 0.1
# Passes over fewer points end when the gap of these points is below this fraction of the target.
_SHRUNK_TARGET = 0.5
# The time limit is checked after the points of this many features.
_NUMBERS_PER_CHECK = 20_000_000
# In the first epoch a class is added if it violates the margin by this much.
_FIRST_THRESHOLD = 1e-3
# The first epoch passes this many times over each block of points.
_FIRST_PASSES = 2


def descend_until(
    working: WorkingSet, target: float, rng: np.random.Generator, *, budget: float, stop: Stop
) -> tuple[float, float]:
    """Passes over the working set until its gap is at most ``target`` or ``budget`` full passes are spent.

    Returns the gap of the working set before the last full pass, infinity if there was no time for a full pass; and the
    number of passes, each counted by the share of the points that it visits.
    """
    passes, everyone = 0.0, np.arange(working.size)
    threshold = _SHRINKING_FRACTION * target / max(1, working.size)
    while True:
        kept, gap = descend(working, shuffled(everyone, rng), threshold, stop)
        passes += 1
        if gap <= target or passes >= budget or stop():
            return gap, passes
        for _ in range(_SHRUNK_PASSES):
            passes += len(kept) / working.size
            kept, gap_of_kept = descend(working, shuffled(kept, rng), threshold, stop)
            if gap_of_kept <= _SHRUNK_TARGET * target or not len(kept):
                break


def first_epoch(
    problem: CrammerSingerProblem,
    state: SimplexState,
    weight: NDArray[np.float64],
    rng: np.random.Generator,
    stop: Stop,
) -> None:
    """One epoch from a cold start: blocks of points in random order, each screened and then descended on."""
    rows, max_new = max(64, min(2048, problem.n_train // 64)), min(2, problem.n_classes - 1)
    for start in rng.permutation(np.arange(0, problem.n_train, rows)):
        end = min(problem.n_train, start + rows)
        scaled = (weight * problem.class_scale[:, None]).astype(np.float32)
        scores = problem.features32[start:end] @ scaled.T
        screen_block(scores, start, state.classes, state.beta, state.count, state.C, _FIRST_THRESHOLD, max_new)
        order = start + rng.permutation(end - start)
        kept = np.empty_like(order)
        for _ in range(_FIRST_PASSES):
            descend_once(
                problem.features,
                problem.squared_norms,
                problem.class_scale,
                state.classes,
                state.beta,
                state.count,
                state.C,
                weight,
                order,
                0.0,
                kept,
            )
        if stop():
            return


def descend(
    working: WorkingSet, order: NDArray[np.int64], threshold: float, stop: Stop
) -> tuple[NDArray[np.int64], float]:
    """One pass in the given order. Returns the points whose local gap exceeded the threshold, and the total gap.

    If the time is up on the way, the gap is not known: infinity.
    """
    state, total = working.state, 0.0
    kept: list[NDArray[np.int64]] = []
    rows = max(1, _NUMBERS_PER_CHECK // working.features.shape[1])
    for start in range(0, len(order), rows):
        if start and stop():
            return np.sort(np.concatenate(kept)), np.inf
        part = order[start : start + rows]
        above = np.empty_like(part)
        n_above, gap = descend_once(
            working.features,
            working.squared_norms,
            working.class_scale,
            state.classes,
            state.beta,
            state.count,
            state.C,
            working.weight,
            part,
            threshold,
            above,
        )
        kept.append(above[:n_above])
        total += gap
    return np.sort(np.concatenate(kept)) if kept else order, total


def shuffled(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows in random order, in runs of eight neighbours, so that memory access stays sequential."""
    n_runs = -(-len(rows) // _SHUFFLE_ROWS)
    order = (rng.permutation(n_runs)[:, None] * _SHUFFLE_ROWS + np.arange(_SHUFFLE_ROWS)).ravel()
    mixed: NDArray[np.int64] = rows[order[order < len(rows)]]
    return mixed


@compiled
def descend_once(
    features: NDArray[np.floating],
    squared_norms: NDArray[np.float64],
    class_scale: NDArray[np.float64],
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
    is_scaled = class_scale[-1] != 1.0
    g, point, spread = np.empty(classes.shape[1]), np.empty(classes.shape[1]), np.empty(classes.shape[1])
    for i in order:
        size = count[i]
        if size < 2:
            continue
        scores_of_point(features[i], weight, classes[i], size, g)
        if is_scaled:
            for a in range(size):
                g[a] *= class_scale[classes[i, a]]
        largest = add_margins(g, size)
        gap = 0.0
        for a in range(size):
            gap += beta[i, a] * (largest - g[a])
        total_gap += gap
        if gap > threshold:
            kept[n_kept] = i
            n_kept += 1
        if gap <= 1e-16 * C:
            continue
        step = _RELAXATION / squared_norms[i]
        if is_scaled:
            for a in range(size):
                spread[a] = 1.0 / (class_scale[classes[i, a]] * class_scale[classes[i, a]])
                point[a] = beta[i, a] + step * spread[a] * (g[a] - largest)
            project_in_metric(point, spread, size, C)
        else:
            for a in range(size):
                point[a] = beta[i, a] + step * (g[a] - largest)
            project_onto_simplex(point, size, C)
        move_point(features[i], weight, class_scale, classes[i], beta[i], size, point)
    return n_kept, total_gap


@compiled
def scores_of_point(
    row: NDArray[np.floating],
    weight: NDArray[np.float64],
    classes: NDArray[np.int32],
    size: int,
    scores: NDArray[np.float64],
) -> None:
    """Fills ⟨w_a, φ⟩ of the active classes."""
    for a in range(size):
        w, score = weight[classes[a]], 0.0
        for j in range(len(row)):
            score += w[j] * row[j]
        scores[a] = score


@compiled
def add_margins(scores: NDArray[np.float64], size: int) -> float:
    """In place, scores ← g up to a constant: 1 is added to all but the first, the label. Returns the largest."""
    largest = scores[0]
    for a in range(1, size):
        scores[a] += 1.0
        largest = max(largest, scores[a])
    return float(largest)


@compiled
def move_point(
    row: NDArray[np.floating],
    weight: NDArray[np.float64],
    class_scale: NDArray[np.float64],
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    size: int,
    new_beta: NDArray[np.float64],
) -> None:
    """β_i ← new β_i and W ← W + Σ_a (β_ia − new β_ia) e_a φᵀ, scaled."""
    for a in range(size):
        step = beta[a] - new_beta[a]
        if step != 0.0:
            beta[a] = new_beta[a]
            step *= class_scale[classes[a]]
            w = weight[classes[a]]
            for j in range(len(row)):
                w[j] += step * row[j]
