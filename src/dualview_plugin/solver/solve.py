"""The public door: one problem at one C."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import ConvergenceWarning, InvalidValueError
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.warm_start import warm_state
from dualview_plugin.solver.interior.interior_point import LARGEST_WEIGHT, Trail
from dualview_plugin.solver.problem import OWNER, CrammerSingerProblem, make_problem
from dualview_plugin.solver.quadratic_program import solve_quadratic_program
from dualview_plugin.solver.screening.active_set import ActiveSetSolver
from dualview_plugin.solver.screening.monitor import Callback, Monitor
from dualview_plugin.solver.solution import CrammerSingerSolution, certify
from dualview_plugin.validation import check_integer, check_option, check_positive

METHODS = ("auto", "cd", "newton", "interior", "qp")


def solve_crammer_singer(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    C: float,
    *,
    n_classes: int | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    warm_start: CrammerSingerSolution | None = None,
    method: str = "auto",
    fit_intercept: bool = False,
    callback: Callback | None = None,
    time_limit: float | None = None,
    show_progress: bool = False,
    seed: int = 0,
) -> CrammerSingerSolution:
    """The multiclass SVM of Crammer and Singer with its dual variables and a proof of optimality.

        primal  min_W  ½ Σ_c ‖w_c‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩)
        dual    max_α  Σ_i α_{i y_i} − ½ Σ_c ‖w_c‖²,   w_c = Σ_i α_ic φ_i,   Σ_c α_ic = 0,   α_ic ≤ C [c = y_i]

    Args:
        features: (n_train, n_features) real, finite, a NumPy array, on the CPU. Kept in its precision: float32 stays
            float32 (integers become float64); all that is returned is float64. Not scaled: standardise before.
        labels: (n_train,) integers in 0 … n_classes − 1; a class may be without points.
        C: The weight of the margin violations, above 0, in units of 1 / (squared norm of a feature row).
        n_classes: The number of classes; None: the largest label + 1.
        tol: Relative duality gap (primal − dual) / primal to stop at.
        max_iter: Most rounds; a round screens the training set and solves on the points that compete.
        warm_start: A solution for the same features and labels, usually at another C, to start from.
        method: "cd" is coordinate descent; "newton" the semismooth-Newton proximal-point method; "interior" the
            interior-point method, for n_classes · n_features of at most 6,000, finished by Newton; "auto" descends, and
            where descent crawls turns to Newton, or to the interior point where classes overlap so much that more
            multipliers are free than W has entries; "qp" is the quadratic program through qpsolvers: slow, a reference.
        fit_intercept: Appends the constant feature 1. Its weight is returned as ``intercept``, and is regularised like
            any other. Its share of a logit is Σ_i α_ic · 1: logits are complete with the kernel ⟨φ_i, φ⟩ + 1.
        callback: Called after every screen with a ``SolverProgress``; returning True stops the solve.
        time_limit: Seconds after which to stop at the next opportunity (not with "qp"); None: no limit.
        show_progress: A bar over log10 of the gap.
        seed: Of the order in which coordinate descent visits points. The result is a function of it.

    Returns:
        The solution. It is feasible and certified however the solve ended; ``converged`` says whether the gap is at
        most ``tol``.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint; raised before any work.
        DivergenceError: ``method="qp"`` found no solution.

    Warns:
        ConvergenceWarning: the gap is above ``tol``; the message gives both, and the argument to raise.

    Source: Crammer and Singer (2001), "On the algorithmic implementation of multiclass kernel-based vector machines".

    Differs: the model has no intercept (as in the source); with ``fit_intercept`` the intercept is regularised.

    Cost: time O(n_train · n_features · n_classes) per screen, and O(n_features) per active class and step between
    screens; memory: the features, a float32 copy of them if they are float64, and O(active classes) beside it; with
    Newton's method a square system of at most 5,000 dimensions, and the features of the free points; with the interior
    point one of n_classes · n_features dimensions, and the features of the points that compete in float64.

    Example:
        >>> import numpy as np
        >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.8]])
        >>> solution = solve_crammer_singer(features, np.array([0, 0, 1, 1]), C=1.0)
        >>> solution.converged, solution.weight.argmax(axis=0).tolist()
        (True, [0, 1])
        >>> bool(np.allclose(solution.weight, solution.dual_coef.T @ features[solution.support]))
        True
    """
    return solve_along(
        features,
        labels,
        C,
        n_classes=n_classes,
        tol=tol,
        max_iter=max_iter,
        warm_start=warm_start,
        method=method,
        fit_intercept=fit_intercept,
        callback=callback,
        time_limit=time_limit,
        show_progress=show_progress,
        seed=seed,
    )[0]


def solve_along(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    C: float,
    *,
    n_classes: int | None,
    tol: float,
    max_iter: int,
    warm_start: CrammerSingerSolution | None,
    method: str,
    fit_intercept: bool,
    time_limit: float | None,
    show_progress: bool,
    seed: int,
    callback: Callback | None = None,
    trail: Trail | None = None,
) -> tuple[CrammerSingerSolution, Trail | None]:
    """The solution, and the trail of the interior point if it was used; started from the trail of a smaller C, if any.

    The other arguments are those of :func:`solve_crammer_singer`. A trail goes before a warm start.
    """
    check_option(method, "method", OWNER, METHODS)
    tol, max_iter = check_positive(tol, "tol", OWNER), check_integer(max_iter, "max_iter", OWNER)
    seed = check_integer(seed, "seed", OWNER, minimum=0)
    if time_limit is not None:
        time_limit = check_positive(time_limit, "time_limit", OWNER)
    problem = make_problem(features, labels, C, n_classes=n_classes, fit_intercept=fit_intercept)
    _check_size(problem, method)
    state = _first_state(problem, warm_start)
    start = left = None
    if method == "qp":
        solution = certify(problem, *solve_quadratic_program(problem), tol=tol, n_iter=1)
    else:
        if trail is not None and (start := trail.start(problem.C)) is not None:
            state = trail.state(problem.C)
        with Monitor(tol, max_iter, time_limit, callback, show_progress) as monitor:
            solver = ActiveSetSolver(problem, state, monitor, method=method, seed=seed)
            n_iter, left = solver.solve(start), solver.trail
        solution = certify(problem, *state.dual_coefficients(problem.n_classes), tol=tol, n_iter=n_iter)
    _warn_unless_converged(solution, tol, max_iter)
    return solution, left


def _check_size(problem: CrammerSingerProblem, method: str) -> None:
    if method == "interior" and problem.n_weights > LARGEST_WEIGHT:
        constraint = f"another than 'interior' for n_classes · n_features above {LARGEST_WEIGHT}"
        raise InvalidValueError("method", OWNER, constraint, problem.n_weights)


def _first_state(problem: CrammerSingerProblem, warm_start: CrammerSingerSolution | None) -> SimplexState:
    if warm_start is None:
        return SimplexState.cold(problem.labels, problem.C, problem.n_classes)
    return warm_state(problem, warm_start)


def _warn_unless_converged(solution: CrammerSingerSolution, tol: float, max_iter: int) -> None:
    if solution.converged:
        return
    raise_what = "max_iter" if solution.n_iter >= max_iter else "time_limit (or tol)"
    warnings.warn(
        f"solve_crammer_singer stopped at a relative duality gap of {solution.duality_gap:.2e}, above tol = {tol:.2e}, "
        f"after {solution.n_iter} iterations; the solution is feasible. Raise {raise_what} to get closer.",
        ConvergenceWarning,
        stacklevel=4,
    )
