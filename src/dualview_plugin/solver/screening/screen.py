"""The screen: scores of all points in one blocked matrix product, and from them the primal and new active classes.

Moving mass of a point from a class with a small g to one with a larger g increases the dual. So a class outside the
list is added if its g exceeds the smallest g of the listed classes that hold mass; of several, the largest are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.objective import (
    Objectives,
    half_squared_norm,
    largest_violation,
    margin_violation,
    scores_in_blocks,
)
from dualview_plugin.solver.problem import CrammerSingerProblem

# At most this many classes are added to the list of a point in one screen.
NEW_CLASSES = 4
# The search for new classes starts this many classes further in every row, so that ties are broken evenly. A prime.
_ROW_SHIFT = 7919


@dataclass(frozen=True)
class ScreenResult(Objectives):
    """The objectives that a screen found, the number of classes it added, and of those that found no room."""

    n_added: int
    n_refused: int


def screen(
    problem: CrammerSingerProblem,
    state: SimplexState,
    weight: NDArray[np.float64],
    dual: float,
    *,
    threshold: float,
    double: bool,
) -> ScreenResult:
    """The primal at ``weight`` beside ``dual``; adds up to ``NEW_CLASSES`` classes per point.

    A class is added to a point's list if its g exceeds the smallest g of the classes that hold mass by ``threshold``.
    """
    max_new = min(NEW_CLASSES, problem.n_classes - 1)
    loss, added, refused = 0.0, 0, 0
    for start, scores in scores_in_blocks(problem, weight, double=double):
        found = screen_block(scores, start, state.classes, state.beta, state.count, state.C, threshold, max_new)
        loss, added, refused = loss + found[0], added + found[1], refused + found[2]
    return ScreenResult(half_squared_norm(weight) + problem.C * loss, dual, added, refused)


def entry_threshold(problem: CrammerSingerProblem, gap: float) -> float:
    """Smallest margin violation for which a class is added: 10 % of the average gap per point, within bounds."""
    return max(1e-12, min(1e-3, 0.1 * gap / (problem.C * problem.n_train)))


@compiled
def screen_block(
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
        largest = largest_violation(scores[row], classes[i, 0])
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
def lowest_active_gradient(
    scores: NDArray[np.floating], classes: NDArray[np.int32], beta: NDArray[np.float64], count: int
) -> float:
    """The smallest g_c over the classes of one point that hold mass (β_c > 0)."""
    own, lowest = np.float64(scores[classes[0]]), np.inf
    for slot in range(count):
        if beta[slot] > 0.0:
            g = 0.0 if slot == 0 else margin_violation(np.float64(scores[classes[slot]]), own)
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
        g = margin_violation(np.float64(scores[c]), np.float64(scores[label]))
        if listed[c] or g <= limit or (found == len(new_g) and g <= new_g[found - 1]):
            continue
        place = min(found, len(new_g) - 1)
        while place > 0 and new_g[place - 1] < g:
            new_g[place], new_classes[place] = new_g[place - 1], new_classes[place - 1]
            place -= 1
        new_g[place], new_classes[place] = g, c
        found = min(found + 1, len(new_g))
    return found
