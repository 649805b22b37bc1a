"""Proximal-point method on a working set, each step by semismooth Newton: for hard margins, where descent crawls.

Source: Rockafellar (1976) for the proximal point; Li, Sun and Toh (2018) for semismooth Newton inside it. Differs: the
step is accepted as soon as ½‖∇φ‖² ≤ η (φ − dual), which guarantees that the dual rises by at least (1 − η) (φ − dual).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.newton.face_step import step_on_the_face
from dualview_plugin.solver.newton.free_face import FreeFace
from dualview_plugin.solver.newton.newton_system import LARGEST_FACTOR, newton_direction
from dualview_plugin.solver.newton.proximal_point import proximal_step, slope_of_loss
from dualview_plugin.solver.objective import Objectives, half_squared_norm, loss_of_active, scores_of_active

_ACCEPT = 0.1  # η above
_NEWTON_STEPS = 12
_QUICK, _SLOW = 3, 6  # Newton steps after which σ may grow by 5, by 2
_POLISHING_STEPS = 6
_WORTHWHILE = 0.2  # share of a face's step below which its face is far from the optimum's
_LINE_SEARCH_STEPS = 12
_SLOPE_LEFT = 0.2  # the line search may leave this share of the first slope
_FAILURES = 4
_ROUNDING = 1e-12
_SIGMA_RANGE = (1e-2, 1e6)  # in units of 1 / mean ‖φ‖²


class SemismoothNewton:
    """The proximal-point iteration: holds W, its scores, β⁰ and σ; only accepted steps change the working set."""

    def __init__(self, working: WorkingSet, sigma: float, expired: Callable[[], bool]) -> None:
        self.working, self.sigma, self.expired = working, sigma, expired
        self.unit = 1.0 / float(working.squared_norms.mean())
        self.class_scale = working.class_scale
        self.scores = np.zeros_like(working.state.beta)
        self.beta = np.zeros_like(working.state.beta)
        self._accept(working.state.beta)

    def solve(self, target: float, max_steps: int) -> bool:
        """Proximal steps until the working set's gap is at most ``target``; False if it gave up before."""
        failures = 0
        for _ in range(max_steps):
            if self.gap <= target or self.expired():
                break
            if failures == _FAILURES:
                return False
            n_newton = self._proximal_step()
            failures += n_newton is None
            self._adapt(n_newton)
            if n_newton is not None and n_newton <= _QUICK and self.gap > target:
                self._polish()
        return True

    def _accept(self, beta: NDArray[np.float64]) -> None:
        """Takes β as the new β⁰ and W = αᵀΦ; computes scores, dual and gap there."""
        working = self.working
        working.state.beta = beta
        working.weight[:] = working.state.weight(working.features, self.class_scale)
        self._set_weight(working.weight.copy())
        self.dual = working.state.dual_objective(working.weight)
        loss = loss_of_active(self.scores, working.state.count)
        self.gap = Objectives.at(working.weight, loss, working.state.C, self.dual).gap

    def _set_weight(self, weight: NDArray[np.float64]) -> None:
        self.weight = weight
        state = self.working.state
        scores_of_active(
            self.working.features, weight * self.class_scale[:, None], state.classes, state.count, self.scores
        )

    def _proximal_step(self) -> int | None:
        """Minimises φ_σ by Newton until its acceptance rule holds; the number of Newton steps, or None if it failed."""
        for n_newton in range(_NEWTON_STEPS + 1):
            value, gradient = self._evaluate()
            progress = value - self.dual
            if n_newton and 0.5 * float(np.vdot(gradient, gradient)) <= _ACCEPT * max(progress, 0.0):
                break
            if (
                n_newton == _NEWTON_STEPS
                or self.expired()
                or np.linalg.norm(gradient) <= 1e-13 * np.linalg.norm(self.weight)
            ):
                break
            self._newton_step(gradient)
        return n_newton if self._accept_if_better() else None

    def _accept_if_better(self) -> bool:
        """Takes the iterate if its dual is larger beyond rounding, or its gap smaller; else stays."""
        old_beta, old_gap, old_dual = self.working.state.beta, self.gap, self.dual
        self._accept(self.beta.copy())
        if self.gap < old_gap or self.dual > old_dual + _ROUNDING * abs(old_dual):
            return True
        self._accept(old_beta)
        return False

    def _polish(self) -> None:
        """Newton on the face itself, until a full step has found its best point or the dual no longer rises."""
        for _ in range(_POLISHING_STEPS):
            state = self.working.state
            if not 0 < state.n_free <= LARGEST_FACTOR:
                return
            face = FreeFace.of(state, self.working.features, self.class_scale)
            share, moved = step_on_the_face(state, face, self.working.weight)
            self.beta = moved.beta
            if not self._accept_if_better() or not _WORTHWHILE <= share < 1.0 or self.expired():
                return

    def _evaluate(self) -> tuple[float, NDArray[np.float64]]:
        """φ_σ(W) and its gradient; β(W) is left in ``self.beta``."""
        state = self.working.state
        envelope = proximal_step(self.scores, state.beta, state.count, self.sigma, state.C, self.beta)
        trial = state.with_beta(self.beta)
        self.trial = trial
        gradient = self.weight - trial.weight(self.working.features, self.class_scale)
        return half_squared_norm(self.weight) + envelope, gradient

    def _newton_step(self, gradient: NDArray[np.float64]) -> None:
        face = FreeFace.of(self.trial, self.working.features, self.class_scale)
        direction = newton_direction(face, self.sigma, gradient)
        state, along = self.working.state, np.zeros_like(self.scores)
        scores_of_active(
            self.working.features, direction * self.class_scale[:, None], state.classes, state.count, along
        )
        step = self._line_search(direction, along, float(np.vdot(gradient, direction)))
        self.weight += step * direction
        self.scores += step * along

    def _line_search(self, direction: NDArray[np.float64], along: NDArray[np.float64], first_slope: float) -> float:
        """A step at which |slope of φ_σ| is a small share of the first: 1, or by regula falsi on [0, 1]."""
        state, linear = self.working.state, float(np.vdot(self.weight, direction))
        quadratic = float(np.vdot(direction, direction))

        def slope(t: float) -> float:
            loss = slope_of_loss(self.scores, along, t, state.beta, state.count, self.sigma, state.C)
            return linear + t * quadratic + loss

        return _root_of_rising(slope, first_slope)

    def _adapt(self, n_newton: int | None) -> None:
        """σ grows while Newton is quick, and shrinks after a failure."""
        if n_newton is None:
            self.sigma /= 10
        elif n_newton <= _QUICK:
            self.sigma *= 5
        elif n_newton <= _SLOW:
            self.sigma *= 2
        self.sigma = min(max(self.sigma, _SIGMA_RANGE[0] * self.unit), _SIGMA_RANGE[1] * self.unit)


def _root_of_rising(slope: Callable[[float], float], at_zero: float) -> float:
    """T in (0, 1] with |slope(t)| ≤ 0.2 |slope(0)|, or close to it, for a rising slope that is negative at 0."""
    goal, t = _SLOPE_LEFT * abs(at_zero), 1.0
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
