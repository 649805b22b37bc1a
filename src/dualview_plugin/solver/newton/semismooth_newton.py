"""Proximal-point method on a working set, each step by semismooth Newton: for hard margins, where descent stalls.

Source: Rockafellar (1976) for the proximal point; Li, Sun and Toh (2018) for semismooth Newton inside it. Differs: the
step is accepted as soon as ½‖∇φ‖² ≤ η (φ − dual), which guarantees that the dual rises by at least (1 − η) (φ − dual).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.newton.face_step import step_on_the_face
from dualview_plugin.solver.newton.free_face import FreeFace
from dualview_plugin.solver.newton.newton_system import LARGEST_FACTOR, newton_direction, operations_on_face
from dualview_plugin.solver.newton.proximal_point import proximal_step, slope_of_loss
from dualview_plugin.solver.objective import Objectives, half_squared_norm, loss_of_active, scores_of_active
from dualview_plugin.solver.screening.monitor import Stop

# η in the rule above.
_ETA = 0.1
# At most this many Newton steps for one proximal step.
_NEWTON_STEPS = 12
# After a proximal step of at most three Newton steps σ grows by 5, after one of at most six by 2.
_QUICK, _SLOW = 3, 6
_QUICK_GROWTH, _SLOW_GROWTH = 5.0, 2.0
# After a proximal step that failed σ is divided by this.
_SHRINKAGE = 10.0
# The method gives up after this many failures.
_FAILURES = 4
# At most this many steps on the face follow a quick proximal step.
_FACE_STEPS = 6
# They end if less than this fraction of a step keeps β ≥ 0: the face is then not that of the optimum.
_MIN_FACE_STEP = 0.2
# The line search takes at most this many steps …
_LINE_SEARCH_STEPS = 12
# … and accepts a slope of at most this fraction of the first.
_SLOPE_FRACTION = 0.2
# The dual has risen if it did so by more than this fraction of its value.
_ROUNDING = 1e-12
# Newton's iteration has converged if the gradient is smaller than this fraction of W.
_ZERO_GRADIENT = 1e-13
# The range of σ, in units of 1 / mean ‖φ‖².
_SIGMA_RANGE = (1e-2, 1e6)


@dataclass(frozen=True)
class _Trial:
    """φ_σ and its gradient at a W, and the state with β(W)."""

    value: float
    gradient: NDArray[np.float64]
    state: SimplexState


class SemismoothNewton:
    """The proximal-point iteration: holds W, its scores, β⁰ and σ; only accepted steps change the working set."""

    def __init__(self, working: WorkingSet, sigma: float, stop: Stop) -> None:
        self.working, self.sigma, self.stop = working, sigma, stop
        self.unit = 1.0 / float(working.squared_norms.mean())
        self.weight = working.weight.copy()
        self.scores = np.zeros_like(working.state.beta)
        self.objectives = self._accept(working.state.beta)

    def solve(self, target: float, max_steps: int) -> bool:
        """Proximal steps until the working set's gap is at most ``target``; False if it gave up before."""
        failures = 0
        for _ in range(max_steps):
            if self.objectives.gap <= target or self.stop():
                break
            if failures == _FAILURES:
                return False
            n_newton = self._proximal_step()
            failures += n_newton is None
            self._adapt(n_newton)
            if n_newton is not None and n_newton <= _QUICK and self.objectives.gap > target:
                self._polish()
        return True

    def _accept(self, beta: NDArray[np.float64]) -> Objectives:
        """Makes β the new β⁰ and W = αᵀΦ; the objectives of the working set there."""
        working = self.working
        working.state = working.state.with_beta(beta)
        working.weight[:] = working.state.weight(working.features, working.class_scale)
        self.weight = working.weight.copy()
        self.scores = self._scores(self.weight)
        loss, dual = loss_of_active(self.scores, working.state.count), working.state.dual_objective(working.weight)
        return Objectives.at(working.weight, loss, working.state.C, dual)

    def _scores(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        working, state, scores = self.working, self.working.state, np.zeros_like(self.scores)
        scaled = weight * working.class_scale[:, None]
        scores_of_active(working.features, scaled, state.classes, state.count, scores)
        return scores

    def _proximal_step(self) -> int | None:
        """Minimises φ_σ by Newton until its acceptance rule holds; the number of Newton steps, or None if it failed."""
        n_newton, trial = 0, self._evaluate()
        while n_newton < _NEWTON_STEPS and not self.stop():
            if np.linalg.norm(trial.gradient) <= _ZERO_GRADIENT * np.linalg.norm(self.weight):
                break
            self._newton_step(trial)
            n_newton, trial = n_newton + 1, self._evaluate()
            progress = max(trial.value - self.objectives.dual, 0.0)
            if half_squared_norm(trial.gradient) <= _ETA * progress:
                break
        return n_newton if self._accept_if_better(trial.state.beta) else None

    def _accept_if_better(self, beta: NDArray[np.float64]) -> bool:
        """Accepts β if its dual is larger beyond rounding, or its gap smaller; else restores the old one."""
        old_beta, old = self.working.state.beta, self.objectives
        self.objectives = self._accept(beta)
        if self.objectives.gap < old.gap or self.objectives.dual > old.dual + _ROUNDING * abs(old.dual):
            return True
        self.objectives = self._accept(old_beta)
        return False

    def _polish(self) -> None:
        """Newton on the face itself, until a full step has found its best point or the dual no longer rises."""
        for _ in range(_FACE_STEPS):
            working = self.working
            if not 0 < working.state.n_free <= LARGEST_FACTOR:
                return
            face = FreeFace.of(working.state, working.features, working.class_scale)
            if self.stop(operations_on_face(face)):
                return
            step, moved = step_on_the_face(face, working.weight)
            if not self._accept_if_better(moved.beta) or not _MIN_FACE_STEP <= step < 1.0:
                return

    def _evaluate(self) -> _Trial:
        working, state = self.working, self.working.state
        beta = np.zeros_like(state.beta)
        envelope = proximal_step(self.scores, state.beta, state.count, self.sigma, state.C, beta)
        trial = state.with_beta(beta)
        gradient = self.weight - trial.weight(working.features, working.class_scale)
        return _Trial(half_squared_norm(self.weight) + envelope, gradient, trial)

    def _newton_step(self, trial: _Trial) -> None:
        working = self.working
        face = FreeFace.of(trial.state, working.features, working.class_scale)
        direction = newton_direction(face, self.sigma, trial.gradient, self.stop)
        change_of_scores = self._scores(direction)
        step = self._line_search(direction, change_of_scores, float(np.vdot(trial.gradient, direction)))
        self.weight += step * direction
        self.scores += step * change_of_scores

    def _line_search(
        self, direction: NDArray[np.float64], change_of_scores: NDArray[np.float64], first_slope: float
    ) -> float:
        """A step at which |slope of φ_σ| is a small fraction of the first: 1, or by regula falsi on [0, 1]."""
        state, linear = self.working.state, float(np.vdot(self.weight, direction))
        quadratic = float(np.vdot(direction, direction))

        def slope(t: float) -> float:
            loss = slope_of_loss(self.scores, change_of_scores, t, state.beta, state.count, self.sigma, state.C)
            return linear + t * quadratic + loss

        return _root_of_rising(slope, first_slope)

    def _adapt(self, n_newton: int | None) -> None:
        """σ grows while Newton is quick, and shrinks after a failure."""
        if n_newton is None:
            self.sigma /= _SHRINKAGE
        elif n_newton <= _QUICK:
            self.sigma *= _QUICK_GROWTH
        elif n_newton <= _SLOW:
            self.sigma *= _SLOW_GROWTH
        self.sigma = min(max(self.sigma, _SIGMA_RANGE[0] * self.unit), _SIGMA_RANGE[1] * self.unit)


def _root_of_rising(slope: Callable[[float], float], at_zero: float) -> float:
    """T in (0, 1] with |slope(t)| ≤ 0.2 |slope(0)|, or close to it, for a rising slope that is negative at 0."""
    goal, t = _SLOPE_FRACTION * abs(at_zero), 1.0
    low, high, at_low, at_high = 0.0, 1.0, at_zero, slope(1.0)
    if at_high <= goal:
        return 1.0
    for _ in range(_LINE_SEARCH_STEPS):
        t = low - (high - low) * at_low / (at_high - at_low)
        t = min(max(t, low + 0.1 * (high - low)), high - 0.1 * (high - low))
        value = slope(t)
        if abs(value) <= goal:
            break
        if value > 0:
            high, at_high = t, value
        else:
            low, at_low = t, value
    return t
