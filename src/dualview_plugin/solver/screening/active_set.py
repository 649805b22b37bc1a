"""The outer loop: screen all points, work on the few that compete, until the gap is small enough.

A screen in single precision finds the points and classes that matter. Near the end W is summed again from α and the
screen is repeated in double precision; only that screen may end the loop. Between two screens ``strategy.next_step``
chooses what to do on the working set.
"""

from __future__ import annotations

import time
from itertools import count

import numpy as np

from dualview_plugin.solver.descent.coordinate_descent import descend_until, first_epoch
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.working_set import WorkingSet
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.interior_point import InteriorPoint
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate
from dualview_plugin.solver.newton.semismooth_newton import SemismoothNewton
from dualview_plugin.solver.problem import CrammerSingerProblem
from dualview_plugin.solver.screening.monitor import Monitor
from dualview_plugin.solver.screening.screen import NEW_CLASSES, ScreenResult, entry_threshold, screen
from dualview_plugin.solver.screening.strategy import Situation, Step, next_step

# The relative error of a score in single precision is at most this.
_SINGLE_PRECISION = 1e-6
# Below this relative gap every screen is in double precision.
_GAP_FOR_DOUBLE = 3e-6
# Every screen is in double precision if the error of single precision may exceed this fraction of the gap.
_TOLERATED_ERROR = 0.03
# The working set is solved until its gap is this fraction of the gap of the whole problem.
_INNER_FRACTION = 0.1
# After the first screen, and after one that added few classes, it is solved to this fraction.
_DEEP_FRACTION = 0.01
# A screen added few classes if there are fewer than this fraction of the points of the working set.
_FEW_ADDED = 1e-3
# The gap of the working set is never made smaller than this fraction of the tolerance of the whole problem.
_TOL_FRACTION = 0.5
# Descent makes at most this many full passes between two screens, and fewer where Newton's method may follow.
_PASSES, _PASSES_BEFORE_NEWTON = 400, 200
# Two epochs of descent come before the first screen for scaled C up to this value, and one for harder margins.
_SCALED_C_TWO_EPOCHS = 0.5
# The first threshold for a class to be added; later ones depend on the gap.
_FIRST_THRESHOLD = 1e-3
# The proximal parameter of Newton's first run, in units of 1 / mean ‖φ‖².
_FIRST_SIGMA = 100.0
# Newton's method reaches this fraction of the tolerance, or this fraction of the present gap if that is larger.
_NEWTON_TOL_FRACTION, _NEWTON_GAP_FRACTION = 0.3, 1e-3
# Newton's method takes one proximal step at a time while screens add classes and the relative gap is above this value.
_GAP_FOR_ALL_STEPS, _NEWTON_STEPS = 1e-5, 60
# After the interior point this many passes of descent set small multipliers to zero.
_CLEARING_PASSES = 6


class ActiveSetSolver:
    """Screens and inner solves in turn, on one state that is feasible at any moment.

    ``history`` has the iterates of the interior point, if it was used.
    """

    def __init__(
        self, problem: CrammerSingerProblem, state: SimplexState, monitor: Monitor, *, method: str, seed: int
    ) -> None:
        self.problem, self.state, self.monitor, self.method = problem, state, monitor, method
        self.rng = np.random.default_rng(seed)
        self.weight = state.weight(problem.features, problem.class_scale)
        self.result: ScreenResult | None = None
        self.working: WorkingSet | None = None
        self.interior: InteriorPoint | None = None
        self.history: CentralPathHistory | None = None
        self.threshold, self.sigma = _FIRST_THRESHOLD, _FIRST_SIGMA / problem.mean_squared_norm
        self.gap_before, self.gap_ratio, self.passes, self.newton_gap = np.inf, 0.0, 0.0, np.inf
        self.missed_target = self.newton_works = self.newton_failed = self.interior_done = False

    def solve(self, start: CentralPathIterate | None) -> int:
        """Runs to convergence or to the monitor's stop; returns the number of screens.

        A ``start`` is an iterate of an earlier interior-point solve whose lists the state has: the interior point then
        runs at once.
        """
        self.monitor.set_status("loading compiled kernels (the first run on a machine compiles them)")
        if start is not None:
            self._interior(start)
        elif not self.state.n_support:
            for _ in range(1 if self.problem.scaled_c > _SCALED_C_TWO_EPOCHS else 2):
                first_epoch(self.problem, self.state, self.weight, self.rng, self.monitor.expired)
        for n_iter in count(1):
            if self.monitor.expired():
                return n_iter - 1
            result = self._screen()
            self.monitor.report(n_iter, result, self.state.n_support)
            if self._has_converged(result) or self.monitor.must_stop(n_iter):
                return n_iter
            self._work(n_iter, result)
        raise AssertionError("unreachable")

    def _has_converged(self, result: ScreenResult) -> bool:
        return self.interior is None and result.relative_gap <= self.monitor.tol

    # Screens

    def _screen(self) -> ScreenResult:
        """One screen; a second one in double precision where the first would end the loop."""
        started = time.perf_counter()
        if self.interior is not None:
            result, double = self._screen_of_interior(self.interior), True
        else:
            result, double = self._screen_of_state()
        seconds = time.perf_counter() - started
        self.monitor.reserve(seconds if double else 2 * seconds)  # the certificate is a screen in double precision
        self.result, self.threshold = result, entry_threshold(self.problem, result.gap)
        return result

    def _screen_of_interior(self, interior: InteriorPoint) -> ScreenResult:
        """At the W of the interior iterate, which need not be αᵀΦ; lists keep the classes without mass."""
        self.state.widen(NEW_CLASSES, self.problem.n_classes)
        return screen(self.problem, self.state, interior.weight, interior.dual, threshold=self.threshold, double=True)

    def _screen_of_state(self) -> tuple[ScreenResult, bool]:
        """At W = αᵀΦ; and whether it was in double precision."""
        if self.result is not None and self.result.n_refused:
            self.state.make_room(NEW_CLASSES, self.problem.n_classes)
        if not self._needs_double():
            result = self._screen_once(double=False)
            if result.relative_gap > self.monitor.tol:
                return result, False
        self.weight[:] = self.state.weight(self.problem.features, self.problem.class_scale)
        return self._screen_once(double=True), True

    def _screen_once(self, *, double: bool) -> ScreenResult:
        dual = self.state.dual_objective(self.weight)
        return screen(self.problem, self.state, self.weight, dual, threshold=self.threshold, double=double)

    def _needs_double(self) -> bool:
        """Whether the error of single precision is no longer small beside the gap."""
        if self.result is None:
            return False
        loss_error = _SINGLE_PRECISION * self.problem.C * max(1, self.state.n_support)
        return self.result.relative_gap < _GAP_FOR_DOUBLE or loss_error > _TOLERATED_ERROR * self.result.gap

    # Work between two screens

    def _work(self, n_iter: int, result: ScreenResult) -> None:
        """The steps that the strategy chooses until it asks for the next screen."""
        working = self._working_set() if self.interior is None else None
        step = next_step(self._situation("screen", working, result))
        while step != "screen":
            if step == "interior" or working is None:
                self._interior(None)
            elif step == "newton":
                self._newton(working, result)
            else:
                self._descend(working, result, n_iter)
            step = next_step(self._situation(step, working, result))

    def _situation(self, last_step: Step, working: WorkingSet | None, result: ScreenResult) -> Situation:
        return Situation(
            method=self.method,
            last_step=last_step,
            relative_gap=result.relative_gap,
            gap_ratio=self.gap_ratio,
            passes=self.passes,
            scaled_c=self.problem.scaled_c,
            n_points=0 if working is None else working.size,
            n_free=0 if working is None else working.state.n_free,
            n_weights=self.problem.n_weights,
            missed_target=self.missed_target,
            newton_works=self.newton_works,
            newton_failed=self.newton_failed,
            newton_ratio=result.gap / self.newton_gap,
            interior_runs=self.interior is not None,
            interior_done=self.interior_done,
        )

    def _working_set(self) -> WorkingSet:
        """The working set; while the same points compete, the copies of their features are kept."""
        if self.working is None or not self.working.refresh(self.state):
            self.working = None  # frees the old copies before the new ones are made
            self.working = WorkingSet.for_screens(self.problem, self.state, self.weight)
        return self.working

    def _descend(self, working: WorkingSet, result: ScreenResult, n_iter: int) -> None:
        go_deep = n_iter == 1 or result.n_added < _FEW_ADDED * working.size
        target = result.gap * (_DEEP_FRACTION if go_deep else _INNER_FRACTION)
        target = max(target, _TOL_FRACTION * self.monitor.tol * result.primal)
        budget = _PASSES_BEFORE_NEWTON if self.method == "auto" else _PASSES
        gap, self.passes = descend_until(working, target, self.rng, budget=budget, stop=self.monitor.expired)
        self.state.write_back(working.rows, working.state)
        self.gap_ratio, self.gap_before = result.gap / self.gap_before, result.gap
        self.missed_target, self.newton_works, self.newton_gap = gap > target, False, np.inf

    def _newton(self, working: WorkingSet, result: ScreenResult) -> None:
        """Proximal steps; only one while screens still add classes, since the working set is then provisional."""
        is_provisional = result.n_added > 0 and result.relative_gap > _GAP_FOR_ALL_STEPS
        newton = SemismoothNewton(working, self.sigma, self.monitor.expired)
        goal = max(_NEWTON_TOL_FRACTION * self.monitor.tol * result.primal, _NEWTON_GAP_FRACTION * result.gap)
        solved = newton.solve(goal, 1 if is_provisional else _NEWTON_STEPS)
        self.state.write_back(working.rows, working.state)
        self.sigma, self.newton_works, self.newton_failed = newton.sigma, solved, not solved
        self.gap_before, self.passes, self.newton_gap = np.inf, 0.0, result.gap

    def _interior(self, start: CentralPathIterate | None) -> None:
        """One round of the interior point; after its last round descent sets small multipliers to zero."""
        self.working = None
        if self.interior is None:
            gap = np.inf if self.result is None else self.result.gap
            self.interior = InteriorPoint(self.problem, self.state, self.monitor, self.weight, gap, start)
        status = self.interior.advance(None if self.interior.is_new else self.result)
        self.history = self.interior.history
        if status == "running":
            return
        # A restart from another C that stalled may be followed by a run from the state itself.
        self.interior_done = status == "arrived" or not self.interior.is_restart
        self.interior, self.newton_works = None, False
        self.gap_before, self.passes, self.newton_gap = np.inf, 0.0, np.inf
        self.weight[:] = self.state.weight(self.problem.features, self.problem.class_scale)
        working = WorkingSet.of_competing(self.problem, self.state, self.weight)
        descend_until(working, 0.0, self.rng, budget=_CLEARING_PASSES, stop=self.monitor.expired)
        self.state.write_back(working.rows, working.state)
