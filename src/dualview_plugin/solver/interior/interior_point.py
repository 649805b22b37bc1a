"""Interior-point method with screens: for hard margins where classes overlap.

Each round solves the working set; a screen then adds the classes that its W violates. The next round restarts from the
last stored iterate whose gap is at least that of the whole problem. Afterwards β is positive everywhere on the lists;
entries that are small beside their margin gap are set to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.predictor_corrector import (
    CentralPathIterate,
    EvaluatedIterate,
    PredictorCorrector,
    Run,
)
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.monitor import Monitor
from dualview_plugin.solver.screening.screen import ScreenResult

Status = Literal["running", "arrived", "stalled"]

# At most this many rounds.
_ROUNDS = 20
# The first μ, in units of gap / number of active classes.
_FIRST_MU = 30.0
# A round leaves this fraction of the tolerance on the working set, and the last one this fraction.
_ROUND_FRACTION, _LAST_FRACTION = 0.3, 0.03
# A round need not make the gap of the working set smaller than this fraction of the gap of the whole problem.
_GAP_FRACTION = 1e-2


@dataclass(frozen=True)
class _Round:
    """A working set's method and the run on it."""

    method: PredictorCorrector
    run: Run


class InteriorPoint:
    """Rounds on one state, which receives a β only if its dual objective is larger.

    The outer loop screens at ``weight`` and ``dual`` of the present iterate between two calls of ``advance``.
    """

    def __init__(
        self,
        problem: CrammerSingerProblem,
        state: SimplexState,
        monitor: Monitor,
        weight: NDArray[np.float64],
        gap: float,
        start: CentralPathIterate | None,
    ) -> None:
        self.problem, self.state, self.monitor = problem, state, monitor
        self.weight = weight.copy() if start is None else start.weight
        self.dual = self.best_dual = state.dual_objective(weight)
        self.first_gap, self.start, self.is_restart = gap, start, start is not None
        self.rounds = 0
        self.last: _Round | None = None
        self.kept: dict[int, CentralPathIterate] = {}

    @property
    def is_new(self) -> bool:
        """Whether no round has been done."""
        return not self.rounds

    @property
    def history(self) -> CentralPathHistory:
        """The iterates so far, one for each decade of the gap."""
        iterates = [self.kept[decade] for decade in sorted(self.kept, reverse=True)]
        return CentralPathHistory(self.state.classes.copy(), self.state.count.copy(), self.problem.C, iterates)

    def advance(self, screened: ScreenResult | None) -> Status:
        """One round, after a screen at ``weight`` and ``dual``; None before the first round."""
        tol, relative_gap = self.monitor.tol, 1.0
        if self.last is not None and screened is not None:
            relative_gap = screened.relative_gap
            if relative_gap <= tol or not screened.n_added:
                return self._finish(self.last)
            self.start = _restart_for_gap(self.last.run.kept, relative_gap)
        if self.rounds == _ROUNDS:
            return "stalled"
        working = WorkingSet.of_competing(self.problem, self.state, self.weight)
        method = PredictorCorrector(working, self.monitor.expired, self.monitor.set_status)
        if self.start is None:
            start = method.central_iterate(self.weight, _FIRST_MU * self.first_gap / method.n_listed)
        else:
            start = method.extended(self.start)
        run = method.follow(start, max(_ROUND_FRACTION * tol, _GAP_FRACTION * relative_gap))
        self.rounds, self.last = self.rounds + 1, _Round(method, run)
        self._take(self.last)
        return "running" if run.arrived else "stalled"

    def _finish(self, last: _Round) -> Status:
        """Goes on until the gap of α alone is small: with αᵀΦ in the place of W."""
        run = last.method.follow(last.run.final.iterate, _LAST_FRACTION * self.monitor.tol, of_alpha=True)
        self._take(_Round(last.method, run))
        return "arrived"

    def _take(self, last: _Round) -> None:
        """Keeps the iterates, and gives the state the last β if its dual objective is larger."""
        self.kept |= {_decade(iterate.relative_gap): iterate for iterate in last.run.kept}
        final, working = last.run.final, last.method.working
        self.weight, self.dual = final.iterate.weight, final.dual
        if final.dual > self.best_dual:
            self.best_dual = final.dual
            working.state.beta = without_noise(final, working.squared_norms, self.problem.C)
            self.state.write_back(working.rows, working.state)


def _decade(relative_gap: float) -> int:
    return int(np.floor(np.log10(max(relative_gap, 1e-16))))


def _restart_for_gap(iterates: list[CentralPathIterate], relative_gap: float) -> CentralPathIterate:
    """The last iterate whose gap is at least this one, or else the first."""
    looser = [iterate for iterate in iterates if iterate.relative_gap >= relative_gap]
    return looser[-1] if looser else iterates[0]


def without_noise(final: EvaluatedIterate, squared_norms: NDArray[np.float64], C: float) -> NDArray[np.float64]:
    """β without the entries below their margin gap / ‖φ_i‖²; the largest entry of the point takes their mass."""
    beta = final.iterate.beta
    kept = np.where(beta * squared_norms[:, None] < final.margin_gap, 0.0, beta)
    kept[np.arange(len(kept)), beta.argmax(axis=1)] += C - kept.sum(axis=1)
    return kept
