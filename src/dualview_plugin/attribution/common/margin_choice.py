"""C chosen by a rule: the largest agreement with the network among the solutions that are sparse enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.solver import CrammerSingerSolution, solve_path

DECADES = tuple(10.0**power for power in range(-6, 2))
USUAL_SUPPORT = 0.2


def chosen_solution(
    features: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    decisions: NDArray[np.integer[Any]],
    max_support: float | None,
    owner: str,
    **options: Any,
) -> CrammerSingerSolution:
    """The solution with the largest agreement with the network among those of a decade each that are sparse enough.

    Args:
        features: (n_train, n_features).
        labels: (n_train,).
        decisions: the network's, (n_train,).
        max_support: the largest share of training points that may be support points; None: :data:`USUAL_SUPPORT`, or if
            every solution has more, the share of the sparsest.
        owner: the class that asks, for the error message.
        **options: of :func:`solve_path`.

    Returns:
        Of solutions with equal agreement, that of the smallest C.

    Raises:
        InvalidValueError: every solution has a larger support than was asked for.
    """
    solutions = solve_path(features, labels, DECADES, **options)
    most = (USUAL_SUPPORT if max_support is None else max_support) * len(labels)
    sparse = [solution for solution in solutions if solution.n_support <= most]
    if not sparse:
        sparsest = min(solutions, key=lambda solution: solution.n_support)
        if max_support is None:
            return sparsest
        share = sparsest.n_support / len(labels)
        constraint = f"at least {share:.3g}, the share of support points of the sparsest solution, C = {sparsest.C:g}"
        raise InvalidValueError("max_support", owner, constraint, repr(max_support))
    return max(sparse, key=lambda solution: (agreement(solution, features, decisions), -solution.C))


def agreement(
    solution: CrammerSingerSolution, features: NDArray[Any], decisions: NDArray[np.integer[Any]] | Sequence[int]
) -> float:
    """The share of points (n, n_features) that the surrogate takes for what the network does."""
    logits = features @ solution.weight.T + solution.intercept
    return float((logits.argmax(axis=1) == np.asarray(decisions)).mean())
