"""Limits and progress of a solve: iterations, time, callback, and a bar over log10 of the duality gap."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol

from tqdm.auto import tqdm

from dualview_plugin.solver.linear.speed import seconds_for
from dualview_plugin.solver.objective import Objectives

# Fewer operations than this take less time than it takes to estimate it.
_SMALL = 1e8


@dataclass(frozen=True)
class SolverProgress:
    """Where a solve stands after a screen: iteration, seconds, objectives, relative gap, number of support points."""

    n_iter: int
    seconds: float
    primal_objective: float
    dual_objective: float
    duality_gap: float
    n_support: int


Callback = Callable[[SolverProgress], object]
StopReason = Literal["max_iter", "time_limit", "callback"]


class Stop(Protocol):
    """Tells an inner solver whether to stop now."""

    def __call__(self, operations: float = 0.0) -> bool:
        """Whether the time is up, or would be after this many floating-point operations."""


def never(operations: float = 0.0) -> bool:
    """A ``Stop`` without a limit."""
    del operations
    return False


class Monitor:
    """Decides when to stop (max_iter, time_limit, a callback that returns True) and shows the gap.

    It is a context manager, so that the bar is closed after an error too. ``reason`` is what stopped the solve, or
    None while nothing has. The time of the final certificate counts: see ``reserve``.
    """

    def __init__(
        self, tol: float, max_iter: int, time_limit: float | None, callback: Callback | None, show_progress: bool
    ) -> None:
        self.tol, self.max_iter, self.time_limit, self.callback = tol, max_iter, time_limit, callback
        self.reason: StopReason | None = None
        self._started, self._processor_started, self._reserved = time.perf_counter(), time.process_time(), 0.0
        self._decades = max(0.1, -math.log10(tol))
        layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=self._decades, desc="solver", bar_format=layout, leave=False, disable=not show_progress)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._started

    def set_status(self, what: str) -> None:
        """Shows a status text while there is no new gap."""
        self._bar.set_postfix_str(what, refresh=True)

    def reserve(self, seconds: float) -> None:
        """Keeps this much of the time limit for the certificate."""
        self._reserved = seconds

    def expired(self, operations: float = 0.0) -> bool:
        """Whether to stop: the callback has asked for it, or the time is up or would be after these operations.

        A step that does not fit does not end the solve: another method may go on with smaller steps.
        """
        if self.time_limit is None or self.reason is not None:
            return self.reason is not None
        left = self.time_limit - self._reserved - self.seconds
        if left <= 0:
            self.reason = "time_limit"
        return left <= 0 or (operations > _SMALL and self._slowdown * seconds_for(operations) > left)

    @property
    def _slowdown(self) -> float:
        """How much longer a step takes since other processes share the processor; at least 1."""
        used = time.process_time() - self._processor_started
        return max(1.0, self.seconds / used) if used > 0 else 1.0

    def report(self, n_iter: int, found: Objectives, n_support: int) -> None:
        """Tells the callback and the bar about a screen."""
        gap = found.relative_gap
        self._bar.n = min(self._decades, max(self._bar.n, -math.log10(min(1.0, max(gap, 1e-300)))))
        self._bar.set_postfix_str(f"gap {gap:.1e}, tol {self.tol:.0e}, {n_support} support points", refresh=True)
        if self.callback is not None:
            progress = SolverProgress(n_iter, self.seconds, found.primal, found.dual, gap, n_support)
            if self.callback(progress) is True:
                self.reason = self.reason or "callback"

    def must_stop(self, n_iter: int) -> bool:
        """Whether this iteration is the last, converged or not."""
        if not self.expired() and n_iter >= self.max_iter:
            self.reason = "max_iter"
        return self.reason is not None
