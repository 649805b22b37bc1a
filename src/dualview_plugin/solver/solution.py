"""The solution and its certificate: primal and dual objective, computed from the returned variables alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.solver.compiled import compiled_exactly
from dualview_plugin.solver.problem import CrammerSingerProblem

# The features and scores of a block of rows together have this many numbers, so that a core's cache holds them.
_NUMBERS_PER_BLOCK = 200_000
# A block has at least this many rows, so that the products of matrices stay fast with many classes.
_MIN_ROWS = 256
# Multiplying by 2²⁷ + 1 splits a float64 into halves of 26 bits, whose products are exact.
_SPLITTER = 134217729.0


@dataclass(frozen=True)
class CrammerSingerSolution:
    """Dual and primal variables of a Crammer-Singer fit, with the proof of how close to the optimum they are.

    The dual is kept sparse: α has rows for the support points only, and in them only the classes that compete, so that
    100,000 points and 1,000 classes fit in memory. ``dual_coef`` is the dense form, made anew at each access.

    Attributes:
        C: The margin constant that was solved for.
        support: (n_support,) int64, ascending: the training points with α_i ≠ 0.
        sparse_dual_coef: (n_support, n_classes) CSR, α of the support points: at most C at the label, at most 0
            elsewhere, rows sum to zero.
        weight: (n_classes, n_features) float64, αᵀΦ.
        intercept: (n_classes,) float64: the weight of the appended constant feature, Σ_i α_ic; zeros if there is none.
        primal_objective: ½‖W‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩); the intercept counts in ‖W‖².
        dual_objective: Σ_i α_{i y_i} − ½‖W‖²; the optimum lies between the two.
        duality_gap: (primal − dual) / primal, in float64; at rounding level it can be a negative 1e-16.
        n_iter: Screens of the whole training set; 0 if the time was up before the first, 1 for ``method="qp"``.
        converged: Whether ``duality_gap`` is at most the tolerance asked for.
    """

    C: float
    support: NDArray[np.int64]
    sparse_dual_coef: csr_array
    weight: NDArray[np.float64]
    intercept: NDArray[np.float64]
    primal_objective: float
    dual_objective: float
    duality_gap: float
    n_iter: int
    converged: bool

    @property
    def dual_coef(self) -> NDArray[np.float64]:
        """α of the support points, dense (n_support, n_classes)."""
        return np.asarray(self.sparse_dual_coef.toarray())

    @property
    def n_support(self) -> int:
        """The number of support points."""
        return len(self.support)

    @property
    def n_classes(self) -> int:
        """The number of classes, those without training points included."""
        return int(self.weight.shape[0])


def certify(
    problem: CrammerSingerProblem, support: NDArray[np.int64], alpha: csr_array, *, tol: float, n_iter: int
) -> CrammerSingerSolution:
    """The solution that α gives: W = αᵀΦ and both objectives in float64, from nothing but the data and α.

    Where C · ‖φ‖² is large, the terms of W are many orders of magnitude larger than W. So they are summed with
    compensation, as if in twice the precision of float64.
    """
    represented = np.ones(problem.n_classes)
    represented[-1] = problem.n_merged
    weight = weight_of(problem, support, alpha) / represented[:, None]
    half_norm = 0.5 * float(represented @ np.einsum("cd,cd->c", weight, weight))
    primal = half_norm + problem.C * total_loss(problem, weight)
    own = np.asarray(alpha[np.arange(len(support)), problem.labels[support]]) if len(support) else np.zeros(0)
    dual = float(own.sum()) - half_norm
    gap = (primal - dual) / primal
    features, intercept = weight, np.zeros(problem.n_classes)
    if problem.fit_intercept:
        features, intercept = np.ascontiguousarray(weight[:, :-1]), weight[:, -1].copy()
    return CrammerSingerSolution(
        problem.C, support, alpha, features, intercept, primal, dual, gap, n_iter, bool(gap <= tol)
    )


def weight_of(problem: CrammerSingerProblem, support: NDArray[np.int64], alpha: csr_array) -> NDArray[np.float64]:
    """αᵀΦ (n_classes, n_features), by compensated sums in blocks of support rows."""
    total = np.zeros((problem.n_classes, problem.n_features))
    lost = np.zeros_like(total)
    rows = max(_MIN_ROWS, _NUMBERS_PER_BLOCK // problem.n_features)
    for start in range(0, len(support), rows):
        block = problem.features[support[start : start + rows]].astype(np.float64, copy=False)
        part = alpha[start : start + rows]
        add_products(part.indptr, part.indices, part.data, block, total, lost)
    return total + lost


def total_loss(problem: CrammerSingerProblem, weight: NDArray[np.float64]) -> float:
    """Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩), in float64."""
    loss, rows = 0.0, max(_MIN_ROWS, _NUMBERS_PER_BLOCK // (problem.n_features + problem.n_classes))
    for start in range(0, problem.n_train, rows):
        scores = problem.features[start : start + rows].astype(np.float64, copy=False) @ weight.T
        position, labels = np.arange(len(scores)), problem.labels[start : start + rows]
        scores -= scores[position, labels][:, None] - 1.0
        scores[position, labels] = 0.0
        loss += float(scores.max(axis=1).sum())
    return loss


@compiled_exactly
def add_products(
    start: NDArray[np.integer],
    column: NDArray[np.integer],
    value: NDArray[np.float64],
    rows: NDArray[np.float64],
    total: NDArray[np.float64],
    lost: NDArray[np.float64],
) -> None:
    """Adds valueᵀ rows to ``total``, and to ``lost`` what rounding has taken from products and sums.

    Source: Ogita, Rump and Oishi (2005), "Accurate sum and dot product": Dot2, with Dekker's product.
    """
    for i in range(len(start) - 1):
        for entry in range(start[i], start[i + 1]):
            a = value[entry]
            sums, rest = total[column[entry]], lost[column[entry]]
            a_high = a * _SPLITTER - (a * _SPLITTER - a)
            a_low = a - a_high
            for j in range(rows.shape[1]):
                x = rows[i, j]
                x_high = x * _SPLITTER - (x * _SPLITTER - x)
                x_low = x - x_high
                product = a * x
                error = a_low * x_low - (((product - a_high * x_high) - a_low * x_high) - a_high * x_low)
                old = sums[j]
                new = old + product
                shifted = new - old
                rest[j] += error + ((old - (new - shifted)) + (product - shifted))
                sums[j] = new
