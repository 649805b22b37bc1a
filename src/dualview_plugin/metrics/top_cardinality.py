"""Top Cardinality: do test points differ in their strongest training points, or are a few hubs on top of all?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray
from quantus.helpers.enums import ScoreDirection

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_k
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.share_in_top_k import split_at_kth
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.validation import check_integer, check_option

Variant = Literal["distinct", "commonest"]


class TopCounts:
    """How often each training point is among the k highest attributed ones; blocks of test points are added to it.

    Args:
        k: number of places.
        owner: what the user called, for error messages.
    """

    def __init__(self, k: int, owner: str) -> None:
        self._k, self._owner = k, owner
        self._n_test = 0
        self._never: NDArray[np.float64] = np.ones(1)  # the chance to be on top of no test point, (n_train,)
        self._expected: NDArray[np.float64] = np.zeros(1)  # the expected number of test points, (n_train,)

    def add(self, attributions: NDArray[Any]) -> None:
        """Count the rows of a block, (n_block, n_train)."""
        above, tied, places_left = split_at_kth(attributions, self._k, self._owner)
        chances = above + tied * (places_left / tied.sum(axis=1))[:, None]
        self._never = self._never * np.prod(1 - chances, axis=0)
        self._expected = self._expected + chances.sum(axis=0)
        self._n_test += len(attributions)

    @property
    def distinct(self) -> float:
        """The expected number of distinct training points on top, relative to the largest possible number."""
        n_train = len(self._never)
        return float((n_train - self._never.sum()) / min(self._n_test * self._k, n_train))

    @property
    def commonest(self) -> float:
        """The share of the test points for which the commonest training point is on top."""
        return float(self._expected.max() / self._n_test)


def top_cardinality(attributions: NDArray[Any], k: int = 1) -> float:
    """The number of distinct training points among the k highest of any test point, relative to the possible number.

        Σ_j (1 − Π_t (1 − p_tj)) / min(n_test · k, n_train)

    p_tj is the chance of training point j to be among the k highest of test point t: 1 above the k-th value, 0 below
    it, and for a tie at it the places left over the points tied. Ties thus count in expectation.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        k: number of places.

    Returns:
        In (0, 1]; 1: no training point is on top twice (or all are on top), low: a few hubs are on top everywhere.

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix with rows, or k above n_train.

    Source: quanda's top-k cardinality.
    Differs: ties count in expectation; the possible number is at most n_train.
    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import top_cardinality
        >>> top_cardinality(np.array([[3, 1, 0], [2, 0, 1], [0, 0, 9]]))
        0.6666666666666666
    """
    return _counts(attributions, k, "top_cardinality").distinct


def commonest_share(attributions: NDArray[Any], k: int = 1) -> float:
    """The share of the test points that have the commonest training point among their k highest.

        max_j Σ_t p_tj / n_test,   p_tj as in :func:`top_cardinality`

    Args:
        attributions: (n_test, n_train), positive for proponents.
        k: number of places.

    Returns:
        In (0, 1]; 1: one hub is on top of every test point.

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix with rows, or k above n_train.

    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import commonest_share
        >>> commonest_share(np.array([[3, 1, 0], [2, 0, 1], [4, 0, 2], [0, 0, 9]]))
        0.75
    """
    return _counts(attributions, k, "commonest_share").commonest


def _counts(attributions: NDArray[Any], k: int, owner: str) -> TopCounts:
    """The counts of one matrix."""
    counts = TopCounts(k, owner)
    counts.add(attributions)
    if len(attributions) == 0:
        raise InvalidValueError("attributions", owner, "of at least one test point", "none")
    return counts


class TopCardinality(DataAttributionMetric):
    """One score for the whole test set: how many distinct training points are on top, or how common the commonest is.

    A low cardinality tells of hubs: a few training points explain everything, whatever the test point.

    Args:
        k: number of places.
        variant: ``"distinct"``: :func:`top_cardinality`, higher is better. ``"commonest"``: :func:`commonest_share`,
            lower is better.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: k that is no positive integer, another variant; when called: k above
            n_train.

    Source: quanda's top-k cardinality. With n = n_train, a random attributor scores n (1 − (1 − k/n)^n_test) over the
        possible number.
    Differs: ties count in expectation; the possible number is min(n_test · k, n_train).
    Cost: O(n_test · n_train) time, memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import TopCardinality
        >>> attributions = np.array([[3, 1, 0], [2, 0, 1], [0, 0, 9]])
        >>> TopCardinality(variant="commonest")(None, np.zeros((3, 4)), np.zeros(3, int), a_batch=attributions)
        [0.6666666666666666]
    """

    name = "Top Cardinality"
    interpretation = (
        "Number of distinct training points on top over the test set, relative to the possible number: 1 is most"
        " diverse, low values tell of hubs, and a random attributor is near 1 for fewer test than training points."
    )

    def __init__(self, *, k: int = 1, variant: Variant = "distinct", **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.k = check_integer(k, "k", self._owner)
        self.variant = check_option(variant, "variant", self._owner, get_args(Variant))
        if variant == "commonest":
            vars(self)["score_direction"] = ScoreDirection.LOWER  # a class variable in Quantus' annotations

    def _n_scores(self, _n_test: int) -> int:
        return 1

    def _check_sizes(self, _n_test: int, n_train: int) -> None:
        check_k(self.k, n_train, self._owner)

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        counts = TopCounts(self.k, self._owner)
        for part in rows:
            counts.add(part.attributions)
        return [counts.distinct if self.variant == "distinct" else counts.commonest]
