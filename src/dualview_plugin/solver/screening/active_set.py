"""The outer loop: screen all points, solve on the few that compete, until the gap is small enough.

Float32 finds, float64 finishes: a screen in single precision settles which points and classes matter; near the end W is
summed anew from α and the screen repeats in double precision, and only that one may stop the loop.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from dualview_plugin.solver.descent.coordinate_descent import descend_until, first_epoch
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.interior_point import LARGEST_WEIGHT, InteriorPoint
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate
from dualview_plugin.solver.newton.semismooth_newton import SemismoothNewton
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.monitor import Monitor
from dualview_plugin.solver.screening.screen import NEW_CLASSES, ScreenResult, entry_threshold, screen

_SINGLE_PRECISION = 1e-6  # relative error of a float32 score, with room to spare
_INNER_SHARE = 0.1  # the working set is solved to this share of the global gap, and
_DEEP_SHARE = 0.01  # to this one at first, and where a screen brought
_FEW_ADDED = 1e-3  # fewer new classes than this share of its points
_TOL_SHARE = 0.5  # and no further than to this share of the tolerance
_PASSES, _PASSES_BEFORE_NEWTON = 400, 200
_SETTLED = 1e-3  # below this relative gap, and
_FIRM_MARGIN = 0.05  # above this hardness,
_SMALL_FACE = 600  # Newton's systems of up to this dimension cost less than the passes that descent would need
_CRAWL = 0.3  # a round of descent that leaves more than this share of the gap is the last
_CROWDED = 10  # so many free multipliers for an entry of W,
_HARD_MARGIN = 5.0  # at this hardness: descent will crawl, however well it begins
_FIRST_SIGMA = 100.0
_CLEARING_PASSES = 6


class ActiveSetSolver:
    """Screens and inner solves in turn, on one state that is feasible at any moment."""

    def __init__(
        self, problem: CrammerSingerProblem, state: SimplexState, monitor: Monitor, *, method: str, seed: int
    ) -> None:
        self.problem, self.state, self.monitor, self.method = problem, state, monitor, method
        self.rng = np.random.default_rng(seed)
        self.weight = state.weight(problem.features, problem.class_scale)
        self.newton, self.sigma, self.last_gap = method in ("newton", "interior"), 0.0, np.inf
        self.working: WorkingSet | None = None
        self.gave_up = self.crossed = False
        self.threshold, self.result = 1e-3, ScreenResult(np.inf, 0.0, 0, 0)
        self.history: CentralPathHistory | None = None

    def solve(self, start: CentralPathIterate | None = None) -> int:
        """Runs to convergence or to the monitor's stop; returns the number of screens.

        A ``start`` is a point of a trail whose lists the state has: the central path is followed from there at once.
        """
        self.monitor.set_status("loading compiled kernels (the first run on a machine compiles them)")
        if start is not None:
            self._interior_point(start)
        if not self.state.n_support:
            for _ in range(1 if self.problem.scaled_c > 0.5 else 2):
                first_epoch(self.problem, self.state, self.weight, self.rng, self.monitor.expired)
        for n_iter in count(1):
            converged = self._screen(n_iter)
            if converged or self.monitor.must_stop(n_iter):
                return n_iter
            self._solve_working_set(n_iter)
        raise AssertionError("unreachable")

    def _screen(self, n_iter: int) -> bool:
        """One screen, and a second in double precision where the first would stop the loop. True if converged."""
        if self.result.n_refused:
            self.state.make_room(NEW_CLASSES, self.problem.n_classes)
        for double in (False, True) if not self._needs_double() else (True,):
            self.result = self._screen_once(double)
            if self.result.relative_gap > self.monitor.tol:
                break
        self.monitor.report(n_iter, self.result, self.state.n_support)
        self.threshold = entry_threshold(self.problem, self.result.gap)
        return self.result.relative_gap <= self.monitor.tol

    def _screen_once(self, double: bool) -> ScreenResult:
        if double:
            self.weight[:] = self.state.weight(self.problem.features, self.problem.class_scale)
        dual = self.state.dual_objective(self.weight)
        return screen(self.problem, self.state, self.weight, dual, threshold=self.threshold, double=double)

    def _needs_double(self) -> bool:
        """Whether the error of single precision is no longer small beside the gap."""
        loss_error = _SINGLE_PRECISION * self.problem.C * max(1, self.state.n_support)
        return self.result.relative_gap < 3e-6 or loss_error > 0.03 * self.result.gap

    def _solve_working_set(self, n_iter: int) -> None:
        working = self._working_set()
        self.newton = self.newton or self._newton_is_cheap(working)
        go_deep = n_iter == 1 or self.result.n_added < _FEW_ADDED * working.size
        target = self.result.gap * (_DEEP_SHARE if go_deep else _INNER_SHARE)
        target = max(target, _TOL_SHARE * self.monitor.tol * self.result.primal)
        if not self.newton:
            self._descend(working, target)
        newton = self.newton and working.size > 0
        interior = newton and self._interior_fits(working)
        if newton and not interior:
            self._newton(working)
        self.state.write_back(working.rows, working.state)
        if interior:
            self.working = None
            self._interior_point()

    def _working_set(self) -> WorkingSet:
        """The competing points; while they are the same from screen to screen, so are the copies of their features."""
        if self.working is None or not self.working.refresh(self.state):
            self.working = None  # lets go of the old copies before the new ones are made
            self.working = WorkingSet.of_competing(self.problem, self.state, self.weight)
        return self.working

    @property
    def _interior_is_open(self) -> bool:
        """Whether the central path can be followed: it was not yet, and W is small enough for the matrix of a step."""
        return not self.crossed and self.problem.n_weights <= LARGEST_WEIGHT

    def _interior_fits(self, working: WorkingSet) -> bool:
        """Whether to follow the central path, once: by request, or because β lies on a face larger than W."""
        if not self._interior_is_open or self.method == "newton":
            return False
        return self.method == "interior" or self.gave_up or working.state.n_free > self.problem.n_weights

    def _interior_point(self, start: CentralPathIterate | None = None) -> None:
        """Rounds of path following, and descent to clear away what its interior solution leaves on the lists."""
        interior = InteriorPoint(self.problem, self.state, self.monitor)
        arrived = interior.solve(self.weight.copy(), self.result.gap, start)
        self.history = interior.history
        self.weight[:] = self.state.weight(self.problem.features, self.problem.class_scale)
        working = WorkingSet.of_competing(self.problem, self.state, self.weight)
        descend_until(working, 0.0, self.rng, budget=_CLEARING_PASSES, stop=self.monitor.expired)
        self.state.write_back(working.rows, working.state)
        self.newton, self.last_gap = self.method == "interior", np.inf
        self.crossed = arrived or start is None  # from a trail it may have stalled: then it may start afresh

    def _newton_is_cheap(self, working: WorkingSet) -> bool:
        if self.method != "auto" or self.gave_up or self.problem.scaled_c < _FIRM_MARGIN:
            return False
        return self.result.relative_gap < _SETTLED and working.state.n_free <= _SMALL_FACE

    def _descend(self, working: WorkingSet, target: float) -> None:
        """Coordinate descent; where its passes no longer pay, "auto" turns to Newton."""
        auto = self.method == "auto"
        budget = _PASSES_BEFORE_NEWTON if auto else _PASSES
        gap = descend_until(working, target, self.rng, budget=budget, stop=self.monitor.expired)
        crawls = self.result.gap > _CRAWL * self.last_gap or self._is_crowded(working)
        self.newton = auto and gap > target and crawls
        self.last_gap = self.result.gap

    def _is_crowded(self, working: WorkingSet) -> bool:
        """Whether β has far more free entries than W, on a hard margin and with the interior point to be had."""
        hard = self.problem.scaled_c >= _HARD_MARGIN
        return hard and self._interior_is_open and working.state.n_free > _CROWDED * self.problem.n_weights

    def _newton(self, working: WorkingSet) -> None:
        """Proximal steps; only one while screens still bring new classes, since the working set is then a guess."""
        unfinished = self.result.n_added > 0 and self.result.relative_gap > 1e-5
        newton = SemismoothNewton(
            working, self.sigma or _FIRST_SIGMA / self.problem.mean_squared_norm, self.monitor.expired
        )
        goal = max(0.3 * self.monitor.tol * self.result.primal, 1e-3 * self.result.gap)
        solved = newton.solve(goal, 1 if unfinished else 60)
        self.sigma, self.newton, self.last_gap = newton.sigma, solved or self.method == "newton", np.inf
        self.gave_up = not solved
