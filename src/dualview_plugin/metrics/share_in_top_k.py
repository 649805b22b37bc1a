"""Share of relevant training points among the k highest attributed ones; ties count in expectation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.metrics.arguments import check_attributions, check_k


def share_in_top_k(
    attributions: NDArray[Any], relevant: NDArray[np.bool_], k: int = 1, *, owner: str = "share_in_top_k"
) -> NDArray[np.float64]:
    """The share of relevant training points among the k highest attributed ones of each test point.

    Ties at the k-th place are broken at random, and the score is the expectation over that: (relevant points above the
    k-th value + places left · share of relevant points at the k-th value) / k. A sparse method that attributes nothing
    to any training point thus scores what a random attributor does, and the order of the training points never matters.

    Args:
        attributions: (n_test, n_train).
        relevant: which training points count as a hit, (n_test, n_train) or (n_train,) for all test points.
        k: number of places, at most n_train.
        owner: what the user called, for error messages.

    Returns:
        (n_test,), in [0, 1].

    Raises:
        InvalidTypeError, InvalidValueError: k is no integer in 1 .. n_train, or attributions are no finite matrix.

    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import share_in_top_k
        >>> share_in_top_k(np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.0]]), np.array([True, False, False]))
        array([0. , 0.5])
    """
    above, tied, places_left = split_at_kth(attributions, k, owner)
    share_of_tied = (tied & relevant).sum(axis=1) / tied.sum(axis=1)
    shares: NDArray[np.float64] = ((above & relevant).sum(axis=1) + places_left * share_of_tied) / k
    return shares


def split_at_kth(
    attributions: NDArray[Any], k: int, owner: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Which values are above the k-th highest of their row, which equal it, and how many places those share."""
    check_attributions(attributions, owner)
    n_train = attributions.shape[1]
    check_k(k, n_train, owner)
    if k == 1:
        threshold = attributions.max(axis=1, keepdims=True)
    else:
        threshold = np.partition(attributions, n_train - k, axis=1)[:, n_train - k, None]
    above, tied = attributions > threshold, attributions == threshold
    return above, tied, k - above.sum(axis=1)
