"""The options of a solve, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from dualview_plugin.solver.screening.monitor import Callback
from dualview_plugin.validation import check_flag, check_integer, check_option, check_positive

METHODS = ("auto", "cd", "newton", "interior", "qp")


@dataclass(frozen=True)
class SolverOptions:
    """Everything about a solve except its data, C and where it starts; ``solve_crammer_singer`` explains each.

    ``owner`` is the function that the user called; the messages name it.
    """

    owner: str
    n_classes: int | None
    tol: float
    max_iter: int
    method: str
    fit_intercept: bool
    time_limit: float | None
    show_progress: bool
    seed: int
    callback: Callback | None = None

    def checked(self) -> SolverOptions:
        """The same options.

        Raises:
            InvalidTypeError, InvalidValueError: an option breaks its constraint.
        """
        check_option(self.method, "method", self.owner, METHODS)
        check_positive(self.tol, "tol", self.owner)
        check_integer(self.max_iter, "max_iter", self.owner)
        check_integer(self.seed, "seed", self.owner, minimum=0)
        check_flag(self.fit_intercept, "fit_intercept", self.owner)
        check_flag(self.show_progress, "show_progress", self.owner)
        if self.time_limit is not None:
            check_positive(self.time_limit, "time_limit", self.owner)
        return self
