"""Following the central path on a working set, by Mehrotra's predictor and corrector.

Newton's equations of the central path (see ``central_path``) are solved in the dimension of W, by one factor of

    I + Σ_i M_i ⊗ φ_i φ_iᵀ = I + Σ_{c>e} (e_c − e_e)(e_c − e_e)ᵀ ⊗ Φᵀ diag(edges of c and e) Φ

for each step. A few dozen steps lead to the optimum, whatever C is.

Source: Mehrotra (1992), "On the implementation of a primal-dual interior point method"; Gondzio (1996), "Multiple
centrality corrections in a primal-dual method for linear programming". Differs: β and ξ are eliminated point by point,
and W may start off αᵀΦ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve

from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior import central_path as path
from dualview_plugin.solver.linear.cholesky import factor_of_shifted
from dualview_plugin.solver.linear.laplacian_system import Edges, laplacian_system
from dualview_plugin.solver.objective import Objectives, gradients_on_lists, loss_of_active, scores_of_active

_STEPS = 100
_TO_BOUNDARY = 0.995  # share of the longest step that is taken
_STALLED = 1e-6  # a step shorter than this ends the run
_CENTRALITY_CORRECTORS = 10  # at most, for one step; each costs a fraction of the factor that it shares
_LONGER, _FARTHER = 1.3, 0.2  # a corrector aims at a step this many times as long, and this much longer
_GAIN = 0.01  # share of that aim that has to be reached for another one
_DROPPED = 1e-2  # all edges that are left out change the matrix by at most this times I


@dataclass(frozen=True)
class CentralPathIterate:
    """Near the central path: W (n_classes, n_features), and β (size, capacity) and ξ (size,) of the points ``rows``.

    ``mu`` is the mean of β s, and ``relative_gap`` is that of the working set. W and αᵀΦ need not agree.
    """

    weight: NDArray[np.float64]
    beta: NDArray[np.float64]
    level: NDArray[np.float64]
    rows: NDArray[np.int64]
    mu: float
    relative_gap: float = np.inf


@dataclass(frozen=True)
class _Direction:
    """Changes of W, β, s and ξ."""

    weight: NDArray[np.float64]
    beta: NDArray[np.float64]
    slack: NDArray[np.float64]
    level: NDArray[np.float64]


class PathFollower:
    """A run along the central path of a working set.

    ``point`` is where it stands, ``slack`` and ``dual`` are its slacks and dual objective, and ``kept_iterates`` has a
    point of every decade of the gap on the way.
    """

    point: CentralPathIterate
    slack: NDArray[np.float64]
    dual: float

    def __init__(self, working: WorkingSet, expired: Callable[[], bool], set_status: Callable[[str], None]) -> None:
        self.working, self.expired, self.set_status = working, expired, set_status
        state = working.state
        self.classes, self.count, self.C = state.classes, state.count, state.C
        self.features = working.features.astype(np.float64, copy=False)
        self.listed = np.arange(state.capacity) < self.count[:, None]
        self.kept_iterates: list[CentralPathIterate] = []

    @property
    def n_listed(self) -> int:
        """The number of active classes of all points."""
        return int(self.count.sum())

    def central(self, weight: NDArray[np.float64], mu: float) -> CentralPathIterate:
        """The β and ξ that are central for this W and μ."""
        g, _ = self._gradients(weight)
        beta, level = np.zeros_like(g), np.zeros(len(g))
        path.central_point(g, self.count, self.C, mu, beta, level)
        return CentralPathIterate(weight, beta, level, self.working.rows, mu)

    def joined(self, other: CentralPathIterate) -> CentralPathIterate:
        """A point of a smaller working set's path; points and classes that it does not have enter at small β."""
        beta = np.zeros_like(self.working.state.beta)
        beta[:, 0] = self.C
        level: NDArray[np.float64] = np.full(len(beta), other.mu / self.C)
        position = np.searchsorted(self.working.rows, other.rows)
        width = min(other.beta.shape[1], beta.shape[1])
        beta[position, :width], level[position] = other.beta[:, :width], other.level
        g, _ = self._gradients(other.weight)
        path.admit_classes(g, self.count, self.C, other.mu, beta, level)
        return CentralPathIterate(other.weight, beta, level, self.working.rows, other.mu)

    def follow(self, start: CentralPathIterate, tol: float, *, consistent: bool = False) -> bool:
        """From a point to one whose relative gap on the working set is at most ``tol``; False if it stalls before.

        With ``consistent`` it is the gap of β alone, which has αᵀΦ in the place of W.
        """
        self.point = start
        for n_step in range(_STEPS):
            residual = self._look()
            gap = self.point.relative_gap
            if not self.kept_iterates or gap <= 0.1 * self.kept_iterates[-1].relative_gap:
                self.kept_iterates.append(self.point)
            self.set_status(f"interior point, step {n_step}: gap {gap:.1e} on {len(self.count)} points")
            if gap <= tol and consistent:
                of_beta = self.point.weight - residual
                gap = self._gap(of_beta, self._gradients(of_beta)[1])
            if gap <= tol:
                return True
            at_rounding = self.slack.min() <= 0.0
            if at_rounding or self.expired() or not self._step(residual):
                break
        return False

    def _gap(self, weight: NDArray[np.float64], loss: float) -> float:
        """The relative gap of this W, with its loss, and the β of the point."""
        return Objectives.at(weight, loss, self.C, self.dual).relative_gap

    def _look(self) -> NDArray[np.float64]:
        """Computes slacks, μ, dual and gap at the point; returns W − αᵀΦ."""
        weight, beta = self.point.weight, self.point.beta
        g, loss = self._gradients(weight)
        self.slack = np.where(self.listed, self.point.level[:, None] - g, 1.0)
        state = self.working.state.with_beta(beta)
        of_beta = state.weight(self.features, self.working.class_scale)
        self.dual = state.dual_objective(of_beta)
        mu = self._mean_product(beta, self.slack)
        self.point = replace(self.point, mu=mu, relative_gap=self._gap(weight, loss))
        return weight - of_beta

    def _gradients(self, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The g of W on the lists, and Σ_i max_a g_ia."""
        scores = self._scores(weight)
        return gradients_on_lists(scores), loss_of_active(scores, self.count)

    def _scores(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.zeros(self.listed.shape)
        scores_of_active(self.features, weight * self.working.class_scale[:, None], self.classes, self.count, scores)
        return scores

    def _sum_over_points(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Σ_i values_i φ_iᵀ, shaped like W, for values of any sign."""
        return self.working.state.with_beta(values).sum_over_points(self.features, self.working.class_scale)

    def _mean_product(self, beta: NDArray[np.float64], slack: NDArray[np.float64]) -> float:
        return float(np.sum(beta * slack, where=self.listed)) / self.n_listed

    def _step(self, residual: NDArray[np.float64]) -> bool:
        """Predictor and corrector with one factor; False if the matrix is singular or the step too short."""
        try:
            factor = factor_of_shifted(self._system(), 1.0)
        except LinAlgError:
            return False
        beta, mu = self.point.beta, self.point.mu
        predictor = self._direction(np.zeros_like(beta), 0.0, residual, factor)
        length = min(1.0, self._longest(predictor))
        left = self._mean_product(beta + length * predictor.beta, self.slack + length * predictor.slack)
        corrector, length = self._corrected(predictor, mu * (left / mu) ** 3, residual, factor)
        moved = beta + length * corrector.beta
        self.point = replace(
            self.point,
            weight=self.point.weight + length * corrector.weight,
            beta=moved * (self.C / moved.sum(axis=1, keepdims=True)),
            level=self.point.level + length * corrector.level,
        )
        return length > _STALLED

    def _corrected(
        self,
        predictor: _Direction,
        mu: float,
        residual: NDArray[np.float64],
        factor: tuple[NDArray[np.float64], bool],
    ) -> tuple[_Direction, float]:
        """Mehrotra's corrector towards μ, improved by Gondzio's as long as they lengthen the step; and its length."""
        product = predictor.beta * predictor.slack
        best = self._direction(product, mu, residual, factor)
        length = min(1.0, _TO_BOUNDARY * self._longest(best))
        for _ in range(_CENTRALITY_CORRECTORS):
            goal = min(1.0, _LONGER * length + _FARTHER)
            reached = (self.point.beta + goal * best.beta) * (self.slack + goal * best.slack)
            shift = np.maximum(np.clip(reached, 0.1 * mu, 10 * mu) - reached, -10 * mu)
            product = product - np.where(self.listed, shift, 0.0)
            better = self._direction(product, mu, residual, factor)
            longer = min(1.0, _TO_BOUNDARY * self._longest(better))
            if longer < length + _GAIN * (goal - length):
                break
            best, length = better, longer
        return best, length

    def _direction(
        self,
        product: NDArray[np.float64],
        mu: float,
        residual: NDArray[np.float64],
        factor: tuple[NDArray[np.float64], bool],
    ) -> _Direction:
        """Newton's direction for β s = μ − product and W = αᵀΦ."""
        beta, slack, level = np.zeros_like(self.slack), np.zeros_like(self.slack), np.zeros(len(self.slack))
        path.change_without_response(self.point.beta, self.slack, product, self.count, mu, beta, level)
        right = -residual - self._sum_over_points(beta)
        weight = np.asarray(cho_solve(factor, right.ravel(), check_finite=False)).reshape(right.shape)
        path.add_response(self.point.beta, self.slack, self.count, self._scores(weight), beta, level, slack)
        return _Direction(weight, beta, slack, level)

    def _longest(self, direction: _Direction) -> float:
        """The longest step that keeps β and the slacks positive."""
        return min(
            path.longest_step(self.slack, direction.slack, self.count),
            path.longest_step(self.point.beta, direction.beta, self.count),
        )

    def _system(self) -> NDArray[np.float64]:
        """Σ_i M_i ⊗ φ_i φ_iᵀ; only its lower triangle is filled."""
        return laplacian_system(self.features, self._edges(), self.working.class_scale)

    def _edges(self) -> Edges:
        """The edges of all Laplacians M_i that are not negligible."""
        norms = self.working.squared_norms
        return Edges(*path.list_edges(self.classes, self.point.beta, self.slack, self.count, norms, _DROPPED))
