"""The objectives of the Crammer-Singer problem: scores, margin violations, loss, primal, dual and gap.

    s_ic = ⟨w_c, φ_i⟩,    g_ic = s_ic + 1 − [c = y_i] − s_{i y_i}
    primal = ½‖W‖² + C Σ_i max_c g_ic,    dual = Σ_i α_{i y_i} − ½‖αᵀΦ‖²

g is the gradient of the dual in β, up to a constant per point, and the margin violation of the primal. The certificate
(``solution.certify``) does not use this file: it computes the same figures by arithmetic of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.compiled import compiled
from dualview_plugin.solver.problem import CrammerSingerProblem

# The features and scores of a block of rows together have this many numbers, so that a core's cache holds them.
_NUMBERS_PER_BLOCK = 200_000


@dataclass(frozen=True)
class Objectives:
    """A primal objective and a dual objective; the optimum lies between them."""

    primal: float
    dual: float

    @classmethod
    def at(cls, weight: NDArray[np.float64], loss: float, C: float, dual: float) -> Objectives:
        """The primal objective of a weight with its loss Σ_i max_c g_ic, beside a dual objective."""
        return cls(half_squared_norm(weight) + C * loss, dual)

    @property
    def gap(self) -> float:
        """Primal − dual, the absolute gap."""
        return self.primal - self.dual

    @property
    def relative_gap(self) -> float:
        """(primal − dual) / primal."""
        return self.gap / self.primal


def half_squared_norm(weight: NDArray[np.float64]) -> float:
    """½‖W‖²."""
    return 0.5 * float(np.vdot(weight, weight))


def dual_objective(beta: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Σ_i α_{i y_i} − ½‖W‖² for W = αᵀΦ and the β of lists whose first class is the label.

    α_{i y_i} is summed over the other classes. C − β_{i y_i} is the same number, but cancels at large C.
    """
    return float(beta[:, 1:].sum()) - half_squared_norm(weight)


def gradients_on_lists(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """G of the active classes, from their scores; the label is the first class and has g = 0."""
    g = scores + 1.0 - scores[:, :1]
    g[:, 0] = 0.0
    return g


def scores_in_blocks(
    problem: CrammerSingerProblem, weight: NDArray[np.float64], *, double: bool
) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """The scores of all points in blocks of rows, each with the number of its first row."""
    features = problem.features if double else problem.features32
    scaled = weight * problem.class_scale[:, None]
    transposed = np.ascontiguousarray(scaled.T, dtype=np.float64 if double else np.float32)
    rows = max(256, _NUMBERS_PER_BLOCK // (problem.n_classes + problem.n_features))
    for start in range(0, problem.n_train, rows):
        yield start, features[start : start + rows].astype(transposed.dtype, copy=False) @ transposed


@compiled
def margin_violation(score: float, score_of_label: float) -> float:
    """G of a class other than the label."""
    return score + 1.0 - score_of_label


@compiled
def largest_violation(scores: NDArray[np.floating], label: int) -> float:
    """max_c g_c of one point; at least 0, which is g of the label."""
    top = -np.inf
    for c in range(len(scores)):
        if c != label:
            top = max(top, np.float64(scores[c]))
    return max(0.0, margin_violation(top, np.float64(scores[label])))


@compiled
def scores_of_active(
    features: NDArray[np.floating],
    weight: NDArray[np.float64],
    classes: NDArray[np.int32],
    count: NDArray[np.int32],
    scores: NDArray[np.float64],
) -> None:
    """Fills scores_ia = ⟨w_a, φ_i⟩ for the active classes a of each point."""
    for i in range(features.shape[0]):
        for a in range(count[i]):
            w, score = weight[classes[i, a]], 0.0
            for j in range(features.shape[1]):
                score += w[j] * features[i, j]
            scores[i, a] = score


@compiled
def loss_of_active(scores: NDArray[np.float64], count: NDArray[np.int32]) -> float:
    """Σ_i max_a g_ia over the active classes; the label, with g = 0, is one of them."""
    loss = 0.0
    for i in range(len(count)):
        largest = 0.0
        for a in range(1, count[i]):
            largest = max(largest, margin_violation(scores[i, a], scores[i, 0]))
        loss += largest
    return loss
