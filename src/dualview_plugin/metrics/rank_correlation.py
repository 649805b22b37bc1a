"""Spearman's rank correlation of the rows of two matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Spearman's correlation of each row of one matrix with the same row of the other.

        ρ_t = cov(rank(first_t), rank(second_t)) / (σ(rank(first_t)) · σ(rank(second_t)))

    Equal values share their mean rank, as in ``scipy.stats.spearmanr``.

    Args:
        first: (n_rows, n_columns).
        second: the same shape.

    Returns:
        (n_rows,), in [−1, 1]; NaN where all values of a row are equal, because such a row has no ranking.

    Raises:
        InvalidTypeError, InvalidValueError: no two finite matrices of one shape.

    Cost: O(n_rows · n_columns · log n_columns) time.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import rank_correlation
        >>> rank_correlation(np.array([[1, 2, 3], [1, 2, 3]]), np.array([[10, 20, 90], [3, 2, 1]]))
        array([ 1., -1.])
    """
    owner = "rank_correlation"
    for values in (first, second):
        check_attributions(values, owner)
    if first.shape != second.shape:
        raise InvalidValueError("second", owner, f"of the shape {first.shape} of the first", f"shape {second.shape}")
    return correlation_of_ranks(first, second)


def correlation_of_ranks(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """:func:`rank_correlation` of checked matrices."""
    a, b = (_centred_ranks(values) for values in (first, second))
    scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
    correlation: NDArray[np.float64] = np.divide(
        (a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=scale > 0
    )
    return np.clip(correlation, -1.0, 1.0)


def _centred_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """The ranks in each row, less their mean; multiples of a half, so that equal rows are exactly zero."""
    n_columns = values.shape[1]
    ranks: NDArray[np.float64] = rankdata(values, axis=1) if values.size else np.zeros(values.shape)
    ranks -= (n_columns + 1) / 2
    return ranks
