"""The screen: scores of all points in one blocked matrix product, and from them the primal and new active classes.

    s_ic = ⟨w_c, φ_i⟩,    g_ic = s_ic + 1 − [c = y_i] − s_{i y_i},    primal = ½‖W‖² + C Σ_i max_c g_ic

g is the dual's gradient up to a constant per point: a class outside a point's list whose g exceeds the smallest g of
the classes that hold mass would gain by entering, so the strongest of them are added to the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.problem import CrammerSingerProblem

NEW_CLASSES = 4  # at most so many enter the list of a point in one screen
_NUMBERS_PER_BLOCK = 200_000  # features and scores of a block of rows, few enough for the cache of a core
_ROW_SHIFT = 7919  # a prime: ties are broken by another class in every row


@dataclass(frozen=True)
class ScreenResult:
    """What one look at all points found: the objectives, the classes that entered, those that found no room."""

    primal: float
    dual: float
    n_added: int
    n_refused: int

    @property
    def gap(self) -> float:
        """The absolute gap, primal − dual."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """The gap as a share of the primal."""
        return self.gap / self.primal


def screen(
    problem: CrammerSingerProblem,
    state: SimplexState,
    weight: NDArray[np.float64],
    *,
    threshold: float,
    double: bool,
) -> ScreenResult:
    """The objectives at ``weight``; enters up to ``NEW_CLASSES`` classes per point that violate by ``threshold``."""
    max_new = min(NEW_CLASSES, problem.n_classes - 1)
    loss, added, refused = 0.0, 0, 0
    for start, scores in scores_in_blocks(problem, weight, double=double):
        found = scan(scores, start, state.classes, state.beta, state.count, state.C, threshold, max_new)
        loss, added, refused = loss + found[0], added + found[1], refused + found[2]
    primal = 0.5 * float(np.vdot(weight, weight)) + problem.C * loss
    return ScreenResult(primal, state.dual_objective(weight), added, refused)


def scores_in_blocks(
    problem: CrammerSingerProblem, weight: NDArray[np.float64], *, double: bool
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """The scores ⟨w_c, φ_i⟩ of all points, in blocks of rows, each with the number of its first."""
    features = problem.features if double else problem.features32
    transposed = np.ascontiguousarray(weight.T, dtype=np.float64 if double else np.float32)
    rows = max(256, _NUMBERS_PER_BLOCK // (problem.n_classes + problem.n_features))
    for start in range(0, problem.n_train, rows):
        yield start, features[start : start + rows].astype(transposed.dtype, copy=False) @ transposed


def entry_threshold(problem: CrammerSingerProblem, gap: float) -> float:
    """The violation from which on a class enters where the absolute gap is this: a share of a point's part of it."""
    return max(1e-12, min(1e-3, 0.1 * gap / (problem.C * problem.n_train)))


@compiled
def scan(
    scores: NDArray[np.floating],
    start: int,
    classes: NDArray[np.int32],
    beta: NDArray[np.float64],
    count: NDArray[np.int32],
    C: float,
    threshold: float,
    max_new: int,
) -> tuple[float, int, int]:
    """Σ_i max_c g_ic of the rows start, start + 1, …; enters violating classes. Returns loss, entered, refused."""
    loss, n_added, n_refused = 0.0, 0, 0
    listed = np.zeros(scores.shape[1], np.bool_)
    new_classes, new_g = np.empty(max_new, np.int32), np.empty(max_new)
    for row in range(scores.shape[0]):
        i = start + row
        largest = largest_gradient(scores[row], classes[i, 0])
        loss += largest
        if largest <= 0.0 and beta[i, 0] >= C:  # beyond its margin and not a support point: optimal
            continue
        lowest = lowest_active_gradient(scores[row], classes[i], beta[i], count[i])
        if largest <= lowest + threshold:
            continue
        for slot in range(count[i]):
            listed[classes[i, slot]] = True
        found = strongest_unlisted(scores[row], classes[i, 0], i, listed, lowest + threshold, new_classes, new_g)
        for slot in range(count[i]):
            listed[classes[i, slot]] = False
        for a in range(found):
            if count[i] < classes.shape[1]:
                classes[i, count[i]], beta[i, count[i]] = new_classes[a], 0.0
                count[i] += 1
                n_added += 1
            else:
                n_refused += 1
    return loss, n_added, n_refused


@compiled
def largest_gradient(scores: NDArray[np.floating], label: int) -> float:
    """max_c g_c of one point; at least 0, which is g of the label."""
    own, top = np.float64(scores[label]), -np.inf
    for c in range(len(scores)):
        if c != label:
            top = max(top, np.float64(scores[c]))
    return max(0.0, top + 1.0 - own)


@compiled
def lowest_active_gradient(
    scores: NDArray[np.floating], classes: NDArray[np.int32], beta: NDArray[np.float64], count: int
) -> float:
    """The smallest g_c over the classes of one point that hold mass (β_c > 0)."""
    own, lowest = np.float64(scores[classes[0]]), np.inf
    for slot in range(count):
        if beta[slot] > 0.0:
            g = 0.0 if slot == 0 else np.float64(scores[classes[slot]]) + 1.0 - own
            lowest = min(lowest, g)
    return lowest


@compiled
def strongest_unlisted(
    scores: NDArray[np.floating],
    label: int,
    row: int,
    listed: NDArray[np.bool_],
    limit: float,
    new_classes: NDArray[np.int32],
    new_g: NDArray[np.float64],
) -> int:
    """Fills ``new_classes`` with the unlisted classes of largest g above ``limit``, falling; returns how many."""
    n_classes, found = len(scores), 0
    offset = (row * _ROW_SHIFT) % n_classes
    for step in range(n_classes):
        c = (step + offset) % n_classes
        g = np.float64(scores[c]) + 1.0 - np.float64(scores[label])
        if listed[c] or g <= limit or (found == len(new_g) and g <= new_g[found - 1]):
            continue
        place = min(found, len(new_g) - 1)
        while place > 0 and new_g[place - 1] < g:
            new_g[place], new_classes[place] = new_g[place - 1], new_classes[place - 1]
            place -= 1
        new_g[place], new_classes[place] = g, c
        found = min(found + 1, len(new_g))
    return found
