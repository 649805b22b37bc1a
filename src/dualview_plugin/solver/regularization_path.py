"""Solutions along a path of C, each started from its neighbour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver.dual.warm_start import AT_BOUND
from dualview_plugin.solver.solution import CrammerSingerSolution
from dualview_plugin.solver.solve import solve_along
from dualview_plugin.validation import check_positive

_HARD = 20.0  # C · mean ‖φ_i‖² from which on warm starts were slower: measured on MNIST's penultimate features


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

    For hard margins a start from a neighbour's multipliers takes longer than none, unless none of them is at its bound:
    there the neighbour's solution is the next one's too. Where the interior point was needed (classes overlap), the
    next C starts from its way.

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

    Cost: about that of the single solves; less where neighbours are close or share a solution, and several times less
    from one interior-point solve to the next, for which up to one β per decade of the gap is kept.

    Example:
        >>> import numpy as np
        >>> features, labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.9]]), np.array([0, 1, 1])
        >>> [solution.C for solution in solve_path(features, labels, [1.0, 0.1])]
        [1.0, 0.1]
    """
    constants = [check_positive(C, "Cs", "solve_path") for C in Cs]
    if not constants:
        raise InvalidValueError("Cs", "solve_path", "at least one number", Cs)
    solved: dict[float, CrammerSingerSolution] = {}
    previous = trail = None
    for C in sorted(set(constants)):
        previous, trail = solve_along(
            features,
            labels,
            C,
            n_classes=n_classes,
            tol=tol,
            max_iter=max_iter,
            warm_start=previous if previous is not None and _pays(previous, features, C) else None,
            method=method,
            fit_intercept=fit_intercept,
            time_limit=time_limit,
            show_progress=show_progress,
            seed=seed,
            trail=trail,
        )
        solved[C] = previous
    return [solved[C] for C in constants]


def _pays(neighbour: CrammerSingerSolution, features: NDArray[np.floating], C: float) -> bool:
    """Whether to start from the neighbour at a smaller C."""
    hardness = C * float(np.einsum("ij,ij->i", features, features, dtype=np.float64).mean())
    if hardness <= _HARD or not neighbour.n_support:
        return True
    return bool(neighbour.sparse_dual_coef.max() < AT_BOUND * neighbour.C)
