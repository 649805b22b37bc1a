"""Solutions along a path of C, each started from the one before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.solver.dual.warm_start import AT_BOUND
from dualview_plugin.solver.interior.history import CentralPathHistory
from dualview_plugin.solver.options import SolverOptions
from dualview_plugin.solver.problem import checked_features, squared_norms_of
from dualview_plugin.solver.solution import CrammerSingerSolution
from dualview_plugin.solver.solve import solve_one
from dualview_plugin.validation import check_positive

# Above this C · mean ‖φ_i‖² warm starts were slower than cold ones (measured on MNIST's penultimate features).
_MAX_SCALED_C_WARM = 20.0


def solve_path(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    Cs: Sequence[float],
    *,
    n_classes: int | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    method: str = "auto",
    fit_intercept: bool = False,
    time_limit: float | None = None,
    show_progress: bool = False,
    seed: int = 0,
) -> list[CrammerSingerSolution]:
    """One solution per C, in the order of ``Cs``; solved from the smallest C up, warm-started where that pays.

    At hard margins a warm start is slower than a cold one, unless no multiplier is at its bound: then the solution no
    longer depends on C. After an interior-point solve the next C starts from one of its iterates.

    Args:
        features: As for ``solve_crammer_singer``, like every argument that is not listed here.
        labels: (n_train,) integers.
        Cs: At least one constant above 0, in any order.
        n_classes: The number of classes; None: the largest label + 1.
        tol: Relative duality gap of each solution.
        max_iter: Most screens of each solution.
        method: "auto", "cd", "newton", "interior" or "qp" ("qp" starts afresh every time).
        fit_intercept: Appends the constant feature 1.
        time_limit: Seconds for each solution; None: no limit.
        show_progress: One bar per solution.
        seed: Of the order in which points are visited.

    Returns:
        Certified solutions; one that stopped early is still feasible, and warns.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint; all C are checked before any work.

    Cost: about that of the single solves; less where two values of C are close or share a solution. From one
    interior-point solve to the next it is several times less; for this up to one β per decade of the gap is kept.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import solve_path
        >>> features, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.9]]), np.array([0, 1, 1])
        >>> [solution.C for solution in solve_path(features, labels, [1.0, 0.1])]
        [1.0, 0.1]
    """
    options = SolverOptions(
        owner="solve_path",
        n_classes=n_classes,
        tol=tol,
        max_iter=max_iter,
        method=method,
        fit_intercept=fit_intercept,
        time_limit=time_limit,
        show_progress=show_progress,
        seed=seed,
    ).checked()
    if np.ndim(Cs) != 1:
        raise InvalidTypeError("Cs", options.owner, "a list of numbers", repr(Cs))
    constants = [check_positive(C, "Cs", options.owner) for C in Cs]
    if not constants:
        raise InvalidValueError("Cs", options.owner, "at least one number", Cs)
    features = checked_features(features, options.owner)
    solved: dict[float, CrammerSingerSolution] = {}
    previous: CrammerSingerSolution | None = None
    history: CentralPathHistory | None = None
    for C in sorted(set(constants)):
        warm_start = previous if previous is not None and _is_worthwhile(previous, features, C) else None
        previous, history = solve_one(features, labels, C, options, warm_start=warm_start, history=history)
        solved[C] = previous
    return [solved[C] for C in constants]


def _is_worthwhile(previous: CrammerSingerSolution, features: NDArray[np.floating], C: float) -> bool:
    """Whether a warm start from the solution at a smaller C will be faster than a cold start."""
    scaled_c = C * float(squared_norms_of(features).mean())
    if scaled_c <= _MAX_SCALED_C_WARM or not previous.n_support:
        return True
    return bool(previous.sparse_dual_coef.max() < AT_BOUND * previous.C)
