"""``solve_crammer_singer``: one problem at one C."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dualview_plugin.errors import ConvergenceWarning, InvalidValueError
from dualview_plugin.solver.absent_classes import AbsentClasses
from dualview_plugin.solver.dual.simplex_state import SimplexState
from dualview_plugin.solver.dual.warm_start import check_same_data, warm_state
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.interior.predictor_corrector import CentralPathIterate
from dualview_plugin.solver.options import SolverOptions
from dualview_plugin.solver.problem import CrammerSingerProblem, make_problem
from dualview_plugin.solver.screening.active_set import ActiveSetSolver
from dualview_plugin.solver.screening.monitor import Callback, Monitor, StopReason
from dualview_plugin.solver.screening.strategy import LARGEST_INTERIOR
from dualview_plugin.solver.solution import CrammerSingerSolution, certify

_ADVICE: dict[StopReason, str] = {
    "max_iter": "Raise max_iter to get closer.",
    "time_limit": "Raise time_limit (or tol) to get closer.",
    "callback": "The callback stopped it.",
}


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
    """Solves the multiclass SVM of Crammer and Singer; returns its dual variables with a proof of optimality.

        primal  min_W  ½ Σ_c ‖w_c‖² + C Σ_i max_c (1 − [c = y_i] + ⟨w_c − w_{y_i}, φ_i⟩)
        dual    max_α  Σ_i α_{i y_i} − ½ Σ_c ‖w_c‖²,   w_c = Σ_i α_ic φ_i,   Σ_c α_ic = 0,   α_ic ≤ C [c = y_i]

    Args:
        features: (n_train, n_features) real, finite, a NumPy array, on the CPU. Kept in its precision: float32 stays
            float32 (integers become float64); all that is returned is float64. Not scaled: standardise before.
        labels: (n_train,) integers in 0 … n_classes − 1. Classes without points are solved as one.
        C: The weight of the margin violations, above 0, in units of 1 / (squared norm of a feature row). C times the
            mean squared norm must be in [1e-30, 1e30].
        n_classes: The number of classes; None: the largest label + 1.
        tol: Relative duality gap (primal − dual) / primal to stop at.
        max_iter: Most screens of the whole training set.
        warm_start: A solution for the same features and labels, usually at another C, to start from.
        method: "auto" starts with coordinate descent. If that stalls it uses Newton's method, or the interior point if
            more multipliers are free than W has entries. "cd" is coordinate descent alone; "newton" is the
            semismooth-Newton proximal-point method; "interior" is the interior-point method, finished by Newton, for
            n_classes · n_features of at most 16,000. "qp" is the quadratic program through qpsolvers, a slow reference.
        fit_intercept: Appends the constant feature 1. Its weight is returned as ``intercept``, and is regularised like
            any other. It adds Σ_i α_ic · 1 to a logit: logits are complete with the kernel ⟨φ_i, φ⟩ + 1.
        callback: Called after every screen with a ``SolverProgress``; returning True stops the solve.
        time_limit: Seconds after which to stop, not for "qp"; None: no limit. The certificate, one pass over all points
            in float64, counts; steps that would take longer than the time that is left are not begun.
        show_progress: A bar over log10 of the gap.
        seed: Of the order in which coordinate descent visits points. The result is a function of it.

    Returns:
        The solution. It is feasible and certified however the solve ended; ``converged`` says whether the gap is at
        most ``tol``.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint; raised before any work.
        DivergenceError: ``method="qp"`` found no solution.

    Warns:
        ConvergenceWarning: the gap is above ``tol``; the message gives both, what ended the solve, and what to raise.

    Source: Crammer and Singer (2001), "On the algorithmic implementation of multiclass kernel-based vector machines".

    Differs: the model has no intercept (as in the source); with ``fit_intercept`` the intercept is regularised.

    Cost: time O(n_train · n_features · n_classes) per screen, and O(n_features) per active class and step between
    screens. Memory: the features, a float32 copy of them if they are float64, and O(active classes) beside it. The
    features of the points that compete are copied too, if that takes at most 256 MB. Newton's method adds a square
    system of at most 5,000 dimensions, and the features of the free points. The interior point adds a system of
    n_classes · n_features dimensions, and the features of the points that compete in float64.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import solve_crammer_singer
        >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.8]])
        >>> solution = solve_crammer_singer(features, np.array([0, 0, 1, 1]), C=1.0)
        >>> solution.converged, solution.weight.argmax(axis=0).tolist()
        (True, [0, 1])
        >>> bool(np.allclose(solution.weight, solution.dual_coef.T @ features[solution.support]))
        True
    """
    options = SolverOptions(
        owner="solve_crammer_singer",
        n_classes=n_classes,
        tol=tol,
        max_iter=max_iter,
        method=method,
        fit_intercept=fit_intercept,
        time_limit=time_limit,
        show_progress=show_progress,
        seed=seed,
        callback=callback,
    )
    return solve_one(features, labels, C, options.checked(), warm_start=warm_start)[0]


def solve_one(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    C: float,
    options: SolverOptions,
    *,
    warm_start: CrammerSingerSolution | None = None,
    history: CentralPathHistory | None = None,
) -> tuple[CrammerSingerSolution, CentralPathHistory | None]:
    """The solution, and the iterates of the interior point if it was used.

    With a ``history`` of a smaller C, an iterate of it is the start, if one fits; ``warm_start`` is then ignored.
    """
    whole = make_problem(
        features,
        labels,
        C,
        n_classes=options.n_classes,
        fit_intercept=options.fit_intercept,
        owner=options.owner,
    )
    if warm_start is not None:
        check_same_data(whole, warm_start, options.owner)
    if options.method == "qp":
        solution, reason = _by_quadratic_program(whole, options), None
    else:
        absent = AbsentClasses.of(whole)
        problem = absent.merge(whole)
        _check_size(problem, options)
        state, start = _first_state(problem, absent, warm_start, history)
        solution, reason, history = _by_screens(problem, state, start, options)
        solution = absent.expand(solution)
    _warn_unless_converged(solution, options, reason)
    return solution, history


def _by_quadratic_program(problem: CrammerSingerProblem, options: SolverOptions) -> CrammerSingerSolution:
    from dualview_plugin.solver.quadratic_program import solve_quadratic_program  # qpsolvers takes a second to import

    return certify(problem, *solve_quadratic_program(problem), tol=options.tol, n_iter=1)


def _by_screens(
    problem: CrammerSingerProblem, state: SimplexState, start: CentralPathIterate | None, options: SolverOptions
) -> tuple[CrammerSingerSolution, StopReason | None, CentralPathHistory | None]:
    with Monitor(options.tol, options.max_iter, options.time_limit, options.callback, options.show_progress) as monitor:
        solver = ActiveSetSolver(problem, state, monitor, method=options.method, seed=options.seed)
        n_iter = solver.solve(start)
    support, alpha = state.dual_coefficients(problem.n_classes)
    return certify(problem, support, alpha, tol=options.tol, n_iter=n_iter), monitor.reason, solver.history


def _check_size(problem: CrammerSingerProblem, options: SolverOptions) -> None:
    if options.method == "interior" and problem.n_weights > LARGEST_INTERIOR:
        constraint = f"another than 'interior' for n_classes · n_features above {LARGEST_INTERIOR}"
        value = f"'interior' for {problem.n_weights}"
        raise InvalidValueError("method", options.owner, constraint, value)


def _first_state(
    problem: CrammerSingerProblem,
    absent: AbsentClasses,
    warm_start: CrammerSingerSolution | None,
    history: CentralPathHistory | None,
) -> tuple[SimplexState, CentralPathIterate | None]:
    """The first β, and the iterate of the central path to start from, if there is one."""
    if history is not None and (start := history.start(problem.C)) is not None:
        return history.state(problem.C), start
    if warm_start is None:
        return SimplexState.cold(problem.labels, problem.C, problem.n_classes), None
    alpha = absent.merge_coefficients(csr_array(warm_start.sparse_dual_coef))
    return warm_state(problem, warm_start.support, alpha, warm_start.C), None


def _warn_unless_converged(solution: CrammerSingerSolution, options: SolverOptions, reason: StopReason | None) -> None:
    if solution.converged:
        return
    advice = "Rounding does not allow a smaller gap here: raise tol." if reason is None else _ADVICE[reason]
    warnings.warn(
        f"{options.owner} stopped at a relative duality gap of {solution.duality_gap:.2e}, above tol = "
        f"{options.tol:.2e}, after {solution.n_iter} iterations; the solution is feasible. {advice}",
        ConvergenceWarning,
        stacklevel=4,
    )
