"""Following the central path on a working set, by Mehrotra's predictor and corrector.

Newton's equations of the central path (see ``central_path``) are solved in the dimension of W, by one factor of

    I + Σ_i M_i ⊗ φ_i φ_iᵀ = I + Σ_{c>e} (e_c − e_e)(e_c − e_e)ᵀ ⊗ Φᵀ diag(edges of c and e) Φ

for each step. A few dozen steps lead to the optimum, whatever C is.

Source: Mehrotra (1992), "On the implementation of a primal-dual interior point method"; Gondzio (1996), "Multiple
centrality corrections in a primal-dual method for linear programming". Differs: β and ξ are eliminated point by point,
and W need not equal αᵀΦ before the end.
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
from dualview_plugin.solver.linear.laplacian_system import Edges, laplacian_system, list_edges, operations_of_system
from dualview_plugin.solver.objective import Objectives, gradients_on_lists, loss_of_active, scores_of_active
from dualview_plugin.solver.screening.monitor import Stop

# At most this many steps in one run.
_STEPS = 100
# The step length is this fraction of the step to the boundary.
_TO_BOUNDARY = 0.995
# A step shorter than this ends the run.
_SHORTEST_STEP = 1e-6
# At most this many centrality correctors follow a corrector; each costs a fraction of the factor, which it shares.
_CENTRALITY_CORRECTORS = 10
# A centrality corrector aims at a step this many times as long, plus this length.
_STEP_GROWTH, _STEP_INCREASE = 1.3, 0.2
# Another one follows if the step has grown by this fraction of that aim.
_MIN_GAIN = 0.01
# A centrality corrector moves products βs into this range, in units of μ.
_PRODUCT_RANGE = (0.1, 10.0)
# The edges that are left out of the matrix change it by at most this times I.
_DROPPED = 1e-2
# An iterate is kept when the gap is this fraction of that of the iterate kept before.
_KEEP_FRACTION = 0.1

_Factor = tuple[NDArray[np.float64], bool]


@dataclass(frozen=True)
class CentralPathIterate:
    """Near the central path: W (n_classes, n_features), and β (size, capacity) and ξ (size,) of the points ``rows``.

    ``mu`` is the mean of β s, and ``relative_gap`` that of the working set. W and αᵀΦ need not agree.
    """

    weight: NDArray[np.float64]
    beta: NDArray[np.float64]
    xi: NDArray[np.float64]
    rows: NDArray[np.int64]
    mu: float
    relative_gap: float = np.inf


@dataclass(frozen=True)
class EvaluatedIterate:
    """An iterate with its margin gaps s = ξ − g (1 off the lists), its residual W − αᵀΦ and the dual objective of α."""

    iterate: CentralPathIterate
    margin_gap: NDArray[np.float64]
    residual: NDArray[np.float64]
    dual: float


@dataclass(frozen=True)
class Run:
    """The last iterate of a run, whether its gap is as small as asked, and one iterate for each decade of the gap."""

    final: EvaluatedIterate
    arrived: bool
    kept: list[CentralPathIterate]


@dataclass(frozen=True)
class Direction:
    """Changes of W, β, s and ξ."""

    weight: NDArray[np.float64]
    beta: NDArray[np.float64]
    margin_gap: NDArray[np.float64]
    xi: NDArray[np.float64]


class PredictorCorrector:
    """The method on one working set. It holds no iterate: every iterate is an argument or a result."""

    def __init__(
        self,
        working: WorkingSet,
        stop: Stop,
        set_status: Callable[[str], None],
        *,
        n_correctors: int = _CENTRALITY_CORRECTORS,
    ) -> None:
        self.working, self.stop, self.set_status, self.n_correctors = working, stop, set_status, n_correctors
        state = working.state
        self.classes, self.count, self.C = state.classes, state.count, state.C
        self.features = working.features.astype(np.float64, copy=False)
        self.listed = np.arange(state.capacity) < self.count[:, None]

    @property
    def n_listed(self) -> int:
        """The number of active classes of all points."""
        return int(self.count.sum())

    def central_iterate(self, weight: NDArray[np.float64], mu: float) -> CentralPathIterate:
        """The β and ξ that are central for this W and μ."""
        g, _ = self._gradients(weight)
        beta, xi = np.zeros_like(g), np.zeros(len(g))
        path.central_point(g, self.count, self.C, mu, beta, xi)
        return CentralPathIterate(weight, beta, xi, self.working.rows, mu)

    def extended(self, other: CentralPathIterate) -> CentralPathIterate:
        """An iterate of a smaller working set on this one; new points and classes receive a small β."""
        beta = np.zeros_like(self.working.state.beta)
        beta[:, 0] = self.C
        xi: NDArray[np.float64] = np.full(len(beta), other.mu / self.C)
        position = np.searchsorted(self.working.rows, other.rows)
        width = min(other.beta.shape[1], beta.shape[1])
        beta[position, :width], xi[position] = other.beta[:, :width], other.xi
        g, _ = self._gradients(other.weight)
        path.admit_classes(g, self.count, self.C, other.mu, beta, xi)
        return CentralPathIterate(other.weight, beta, xi, self.working.rows, other.mu)

    def follow(self, start: CentralPathIterate, tol: float, *, of_alpha: bool = False) -> Run:
        """Steps from ``start`` until the relative gap on the working set is at most ``tol``.

        With ``of_alpha`` it is the gap of α alone, which has αᵀΦ in the place of W.
        """
        kept: list[CentralPathIterate] = []
        current = self.evaluate(start)
        for n_step in range(_STEPS):
            gap = current.iterate.relative_gap
            if not kept or gap <= _KEEP_FRACTION * kept[-1].relative_gap:
                kept.append(current.iterate)
            self.set_status(f"interior point, step {n_step}: gap {gap:.1e} on {len(self.count)} points")
            if gap <= tol and (not of_alpha or self._gap_of_alpha(current) <= tol):
                return Run(current, True, kept)
            moved = self._step(current)
            if moved is None:
                break
            current = self.evaluate(moved)
        return Run(current, False, kept)

    def evaluate(self, iterate: CentralPathIterate) -> EvaluatedIterate:
        """The iterate with its margin gaps, residual and dual, and with its true μ and gap."""
        g, loss = self._gradients(iterate.weight)
        margin_gap = np.where(self.listed, iterate.xi[:, None] - g, 1.0)
        state = self.working.state.with_beta(iterate.beta)
        of_alpha = state.weight(self.features, self.working.class_scale)
        dual = state.dual_objective(of_alpha)
        gap = Objectives.at(iterate.weight, loss, self.C, dual).relative_gap
        measured = replace(iterate, mu=self._mean_product(iterate.beta, margin_gap), relative_gap=gap)
        return EvaluatedIterate(measured, margin_gap, iterate.weight - of_alpha, dual)

    def _gap_of_alpha(self, current: EvaluatedIterate) -> float:
        weight = current.iterate.weight - current.residual
        return Objectives.at(weight, self._gradients(weight)[1], self.C, current.dual).relative_gap

    def _gradients(self, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The g of W on the lists, and Σ_i max_a g_ia."""
        scores = self._scores(weight)
        return gradients_on_lists(scores), loss_of_active(scores, self.count)

    def _scores(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        scores, scaled = np.zeros(self.listed.shape), weight * self.working.class_scale[:, None]
        scores_of_active(self.features, scaled, self.classes, self.count, scores)
        return scores

    def _mean_product(self, beta: NDArray[np.float64], margin_gap: NDArray[np.float64]) -> float:
        return float(np.sum(beta * margin_gap, where=self.listed)) / self.n_listed

    def _step(self, current: EvaluatedIterate) -> CentralPathIterate | None:
        """Predictor and corrector with one factor; None if it cannot be formed, or if the step is too short."""
        if current.margin_gap.min() <= 0.0:  # rounding allows no smaller gap
            return None
        edges = self.edges(current)
        if self.stop(operations_of_system(edges, self.working.weight.shape)):
            return None
        try:
            factor = factor_of_shifted(self.system(edges), 1.0)
        except LinAlgError:
            return None
        iterate = current.iterate
        predictor = self.direction(current, np.zeros_like(iterate.beta), 0.0, factor)
        length = min(1.0, self._step_to_boundary(current, predictor))
        after = self._mean_product(
            iterate.beta + length * predictor.beta, current.margin_gap + length * predictor.margin_gap
        )
        corrector, length = self._corrected(current, predictor, iterate.mu * (after / iterate.mu) ** 3, factor)
        if length <= _SHORTEST_STEP:
            return None
        beta = iterate.beta + length * corrector.beta
        return replace(
            iterate,
            weight=iterate.weight + length * corrector.weight,
            beta=beta * (self.C / beta.sum(axis=1, keepdims=True)),
            xi=iterate.xi + length * corrector.xi,
        )

    def _corrected(
        self, current: EvaluatedIterate, predictor: Direction, mu: float, factor: _Factor
    ) -> tuple[Direction, float]:
        """Mehrotra's corrector towards μ, improved by Gondzio's as long as they lengthen the step; and its length."""
        beta, margin_gap = current.iterate.beta, current.margin_gap
        product = predictor.beta * predictor.margin_gap
        best = self.direction(current, product, mu, factor)
        length = min(1.0, _TO_BOUNDARY * self._step_to_boundary(current, best))
        low, high = _PRODUCT_RANGE[0] * mu, _PRODUCT_RANGE[1] * mu
        for _ in range(self.n_correctors):
            goal = min(1.0, _STEP_GROWTH * length + _STEP_INCREASE)
            reached = (beta + goal * best.beta) * (margin_gap + goal * best.margin_gap)
            shift = np.maximum(np.clip(reached, low, high) - reached, -high)
            product = product - np.where(self.listed, shift, 0.0)
            better = self.direction(current, product, mu, factor)
            longer = min(1.0, _TO_BOUNDARY * self._step_to_boundary(current, better))
            if longer < length + _MIN_GAIN * (goal - length):
                break
            best, length = better, longer
        return best, length

    def direction(
        self, current: EvaluatedIterate, product: NDArray[np.float64], mu: float, factor: _Factor
    ) -> Direction:
        """Newton's direction for β s = μ − product and W = αᵀΦ."""
        beta, margin_gap = current.iterate.beta, current.margin_gap
        change, of_gap, of_xi = np.zeros_like(beta), np.zeros_like(beta), np.zeros(len(beta))
        path.change_without_response(beta, margin_gap, product, self.count, mu, change, of_xi)
        sums = self.working.state.with_beta(change).sum_over_points(self.features, self.working.class_scale)
        right = -current.residual - sums
        weight = np.asarray(cho_solve(factor, right.ravel(), check_finite=False)).reshape(right.shape)
        path.add_response(beta, margin_gap, self.count, self._scores(weight), change, of_xi, of_gap)
        return Direction(weight, change, of_gap, of_xi)

    def _step_to_boundary(self, current: EvaluatedIterate, direction: Direction) -> float:
        """The longest step that keeps β and the margin gaps positive."""
        return min(
            path.longest_step(current.margin_gap, direction.margin_gap, self.count),
            path.longest_step(current.iterate.beta, direction.beta, self.count),
        )

    def system(self, edges: Edges) -> NDArray[np.float64]:
        """Σ_i M_i ⊗ φ_i φ_iᵀ; only its lower triangle is filled."""
        return laplacian_system(self.features, edges, self.working.class_scale)

    def edges(self, current: EvaluatedIterate) -> Edges:
        """The edges of all Laplacians M_i that are not negligible."""
        stiffness = current.iterate.beta / current.margin_gap
        return Edges(*list_edges(self.classes, stiffness, self.count, self.working.squared_norms, _DROPPED))
