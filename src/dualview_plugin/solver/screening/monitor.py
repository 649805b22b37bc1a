"""Watching a solve: iterations, time, callback, and a bar over log10 of the duality gap."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from tqdm.auto import tqdm


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


class Monitor:
    """Decides when to stop (max_iter, time_limit, a callback that returns True) and shows how far the gap has come.

    A context manager, so that the bar is closed whatever happens.
    """

    def __init__(
        self, tol: float, max_iter: int, time_limit: float | None, callback: Callback | None, show_progress: bool
    ) -> None:
        self.tol, self.max_iter, self.time_limit, self.callback = tol, max_iter, time_limit, callback
        self._started, self._stopped = time.perf_counter(), False
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

    def announce(self, what: str) -> None:
        """Shows what takes the time where there is no new gap to show."""
        self._bar.set_postfix_str(what, refresh=True)

    def expired(self) -> bool:
        """Whether the time is up or the callback has asked to stop."""
        return self._stopped or (self.time_limit is not None and self.seconds >= self.time_limit)

    def report(self, n_iter: int, primal: float, dual: float, n_support: int) -> None:
        """Tells the callback and the bar about a screen."""
        gap = (primal - dual) / primal
        self._bar.n = min(self._decades, max(self._bar.n, -math.log10(min(1.0, max(gap, 1e-300)))))
        self._bar.set_postfix_str(f"gap {gap:.1e}, tol {self.tol:.0e}, {n_support} support points", refresh=True)
        if self.callback is not None:
            progress = SolverProgress(n_iter, self.seconds, primal, dual, gap, n_support)
            self._stopped = self._stopped or self.callback(progress) is True

    def must_stop(self, n_iter: int) -> bool:
        """Whether this iteration is the last, converged or not."""
        return n_iter >= self.max_iter or self.expired()
