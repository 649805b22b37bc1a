"""The dual as a quadratic program, for qpsolvers: slow and independent, the reference for the fast solvers.

    min_{λ, W}  ½‖W‖² − Σ_{i, c ≠ y_i} λ_ic
    s.t.        W = Σ_{i, c ≠ y_i} λ_ic (e_{y_i} − e_c) φ_iᵀ,    λ ≥ 0,    Σ_c λ_ic ≤ C

with α_ic = −λ_ic for c ≠ y_i and α_{i y_i} = Σ_c λ_ic. λ is measured in the unit
u = min(C, 1 / mean ‖φ‖²), and √u·φ are the features. So the tolerances mean the same for every scale of the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qpsolvers
from numpy.typing import NDArray
from scipy.sparse import block_diag, csc_matrix, csr_array, eye, hstack, kron, vstack

from dualview_plugin.errors import DivergenceError
from dualview_plugin.solver.problem import CrammerSingerProblem

_TOLERANCES: dict[str, Any] = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
# Multipliers below this value, in the unit of λ, are zeros that the interior-point method leaves slightly positive.
_ZERO = 1e-11


def solve_quadratic_program(problem: CrammerSingerProblem) -> tuple[NDArray[np.int64], csr_array]:
    """Support and α of the support points, by the interior-point solver Clarabel.

    Raises:
        DivergenceError: the interior-point method found no solution.

    Cost: O(n_train · n_classes · n_features) memory for the constraint matrix; for up to some 10⁴ variables λ.
    """
    point, other = np.nonzero(problem.labels[:, None] != np.arange(problem.n_classes))  # one λ per row of these
    unit = min(problem.C, 1.0 / problem.mean_squared_norm)
    result = qpsolvers.solve_problem(_program(problem, point, other, unit), solver="clarabel", **_TOLERANCES)
    if result.x is None:
        raise DivergenceError(f"the quadratic program of {problem.n_train} points was not solved")
    multipliers = result.x[: len(point)]
    return _dual_coefficients(problem, point, other, unit * np.where(multipliers < _ZERO, 0.0, multipliers))


def _program(
    problem: CrammerSingerProblem, point: NDArray[np.int64], other: NDArray[np.int64], unit: float
) -> qpsolvers.Problem:
    """The program in λ/u first, then W/√u class by class."""
    n_weights, variables = problem.n_classes * problem.n_features, np.arange(len(point))
    difference = csr_array(  # e_{y_i} − e_c for each λ
        (
            np.repeat([1.0, -1.0], len(point)),
            (np.concatenate([problem.labels[point], other]), np.concatenate([variables, variables])),
        ),
        shape=(problem.n_classes, len(point)),
    )
    features = np.sqrt(unit) * problem.features[point].astype(np.float64)
    to_weight = vstack([csr_array(features.T * difference[[c]].toarray()) for c in range(problem.n_classes)])
    per_point = kron(eye(problem.n_train), np.ones((1, problem.n_classes - 1)))
    no_weight = csc_matrix((len(point) + problem.n_train, n_weights))
    return qpsolvers.Problem(
        P=csc_matrix(block_diag([csc_matrix((len(point), len(point))), eye(n_weights)])),
        q=np.concatenate([-np.ones(len(point)), np.zeros(n_weights)]),
        A=csc_matrix(hstack([to_weight, -eye(n_weights)])),
        b=np.zeros(n_weights),
        G=csc_matrix(hstack([vstack([-eye(len(point)), per_point]), no_weight])),
        h=np.concatenate([np.zeros(len(point)), np.full(problem.n_train, problem.C / unit)]),
    )


def _dual_coefficients(
    problem: CrammerSingerProblem, point: NDArray[np.int64], other: NDArray[np.int64], multipliers: NDArray[np.float64]
) -> tuple[NDArray[np.int64], csr_array]:
    """α from λ. Where rounding lets the sum of a point exceed C, its λ are scaled down."""
    alpha = np.zeros((problem.n_train, problem.n_classes))
    alpha[point, other] = -multipliers
    total = -alpha.sum(axis=1)
    alpha *= (problem.C / np.maximum(total, problem.C))[:, None]
    alpha[np.arange(problem.n_train), problem.labels] = np.minimum(total, problem.C)
    support = np.flatnonzero(total > 0)
    return support, csr_array(alpha[support])
