"""Interior-point method with screens: for hard margins where classes overlap, with up to thousands of weights.

Path following solves the working set, a screen enters the classes that its W violates, and the next run starts from the
last one's way, at a point whose gap is that of the whole problem. A few rounds suffice. Afterwards β is positive
everywhere on the lists; what is noise is set to zero.

A run leaves a trail: lists and points on the way. At a larger C, where classes overlap, W is nearly the same and β
grows with C, so that the next run starts from one of these points, scaled, and has a few steps left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate, PathFollower
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.monitor import Monitor
from dualview_plugin.solver.screening.screen import NEW_CLASSES, entry_threshold, screen

LARGEST_WEIGHT = 6000  # n_classes · n_features up to which the matrix of a step is formed
_ROUNDS = 20
_FIRST_MU = 30.0  # in units of gap / number of active classes
_RUN_SHARE, _LAST_SHARE = 0.3, 0.03  # of tol: what a run leaves on the working set, and what the last one leaves
_GAP_SHARE = 1e-2  # of the gap of the whole problem: less is not asked of a run


class InteriorPoint:
    """Rounds of path following and screening on one state, which takes a β only if its dual objective is larger."""

    def __init__(self, problem: CrammerSingerProblem, state: SimplexState, monitor: Monitor) -> None:
        self.problem, self.state, self.monitor = problem, state, monitor
        self.passed: dict[int, CentralPathIterate] = {}

    @property
    def history(self) -> CentralPathHistory:
        """Of the run so far, with the last point that it passed in each decade of the gap."""
        points = [self.passed[decade] for decade in sorted(self.passed, reverse=True)]
        return CentralPathHistory(self.state.classes.copy(), self.state.count.copy(), self.problem.C, points)

    def solve(self, weight: NDArray[np.float64], gap: float, start: CentralPathIterate | None = None) -> bool:
        """To a relative gap of at most the monitor's tol, or as far as it comes; whether no run stalled.

        From W = αᵀΦ with this absolute gap, or from a trail's ``start``, to whose C the state's lists belong.
        """
        tol, relative = self.monitor.tol, 1.0
        self.dual = self.state.dual_objective(weight)
        if start is not None:
            weight = start.weight
        for _ in range(_ROUNDS):
            follower = self._follower(weight)
            if start is None:
                start = follower.central(weight, _FIRST_MU * gap / follower.n_listed)
            else:
                start = follower.joined(start)
            solved = follower.follow(start, max(_RUN_SHARE * tol, _GAP_SHARE * relative))
            self._take(follower)
            if not solved:
                return False
            weight = follower.point.weight
            primal, n_added = self._screen(weight, gap)
            gap = primal - follower.dual
            if gap <= tol * primal or not n_added:
                follower.follow(follower.point, _LAST_SHARE * tol, consistent=True)
                self._take(follower)
                return True
            relative = gap / primal
            start = _restart_for_gap(follower, relative)
        return False

    def _follower(self, weight: NDArray[np.float64]) -> PathFollower:
        working = WorkingSet.of_competing(self.problem, self.state, weight)
        return PathFollower(working, self.monitor.expired, self.monitor.set_status)

    def _take(self, follower: PathFollower) -> None:
        """Its β, if that is better than what the state has; and its way, for the trail."""
        self.passed |= {_decade(point.relative_gap): point for point in follower.kept_iterates}
        if follower.dual <= self.dual:
            return
        working, self.dual = follower.working, follower.dual
        working.state.beta = without_noise(follower.point.beta, follower.slack, working.squared_norms, self.problem.C)
        self.state.write_back(working.rows, working.state)

    def _screen(self, weight: NDArray[np.float64], gap: float) -> tuple[float, int]:
        """The primal of W, and the number of classes that have entered."""
        self.state.widen(NEW_CLASSES, self.problem.n_classes)
        threshold = entry_threshold(self.problem, gap)
        found = screen(self.problem, self.state, weight, self.dual, threshold=threshold, double=True)
        return found.primal, found.n_added


def _decade(relative_gap: float) -> int:
    return int(np.floor(np.log10(max(relative_gap, 1e-16))))


def _restart_for_gap(follower: PathFollower, relative_gap: float) -> CentralPathIterate:
    """The last waypoint whose gap is at least this one."""
    passed = [point for point in follower.kept_iterates if point.relative_gap >= relative_gap]
    return passed[-1] if passed else follower.kept_iterates[0]


def without_noise(
    beta: NDArray[np.float64], slack: NDArray[np.float64], squared_norms: NDArray[np.float64], C: float
) -> NDArray[np.float64]:
    """β without the entries that are small beside their slack, in units of ‖φ_i‖²; the largest takes their mass."""
    kept = np.where(beta * squared_norms[:, None] < slack, 0.0, beta)
    kept[np.arange(len(kept)), beta.argmax(axis=1)] += C - kept.sum(axis=1)
    return kept
