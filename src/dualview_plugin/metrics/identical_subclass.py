"""Identical Subclass: is the strongest proponent of a superclass from the test point's own subclass?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from numpy.typing import ArrayLike

from dualview_plugin.metrics.arguments import check_class_labels, check_k
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.identical_class import identical_class
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.validation import check_integer


class IdenticalSubclass(DataAttributionMetric):
    """One score for each test point: the share of its k highest attributed training points that have its subclass.

    The network knows superclasses only (:class:`~dualview_plugin.modifications.GroupedClasses`), and ``y_batch`` holds
    the superclasses to explain; the subclasses are the original labels.

    Args:
        train_subclasses: (n_train,), as ``GroupedClasses.subclasses``.
        test_subclasses: (n_test,), in the order of ``x_batch``.
        k: number of places.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: subclasses that are not one-dimensional integers, k that is no positive
            integer; when called: another number of subclasses than of test points or of columns, k above n_train.

    Source: arXiv 2402.12118, "Identical Subclass"; a random attributor scores 1 / n_subclasses.
    Differs: ties take their expectation, where an argmax takes the first training point.
    Cost: O(n_test · n_train) time, memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import IdenticalSubclass
        >>> metric = IdenticalSubclass(train_subclasses=[4, 7, 7], test_subclasses=[7, 4])
        >>> metric(None, np.zeros((2, 4)), np.array([1, 1]), a_batch=np.array([[0.1, 0.9, 0.3], [0.2, 0.5, 0.0]]))
        [1.0, 0.0]
    """

    name = "Identical Subclass"
    interpretation = (
        "Share of the highest attributed training points that have the test point's own subclass, which the network was"
        " never told: 1 is best, 0 is worst, and a random attributor scores 1 / number of subclasses."
    )

    def __init__(
        self,
        train_subclasses: ArrayLike,
        test_subclasses: ArrayLike,
        *,
        k: int = 1,
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(**options)
        self.k = check_integer(k, "k", self._owner)
        self.train_subclasses = check_class_labels(train_subclasses, "train_subclasses", self._owner)
        self.test_subclasses = check_class_labels(test_subclasses, "test_subclasses", self._owner)

    def _check_sizes(self, n_test: int, n_train: int) -> None:
        check_k(self.k, n_train, self._owner)
        sizes = (
            ("train_subclasses", self.train_subclasses, n_train),
            ("test_subclasses", self.test_subclasses, n_test),
        )
        for parameter, subclasses, size in sizes:
            if len(subclasses) != size:
                raise self._error(parameter, f"one for each of {size} points", f"{len(subclasses)} subclasses")

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        scores: list[float] = []
        for part in rows:
            own = self.test_subclasses[part.test_indices]
            scores += identical_class(part.attributions, self.train_subclasses, own, self.k).tolist()
        return scores
