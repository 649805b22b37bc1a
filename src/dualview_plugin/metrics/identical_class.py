"""Identical Class: does the strongest proponent of a class belong to it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.metrics.arguments import check_attributions, check_class_labels, check_k, check_length
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.share_in_top_k import share_in_top_k
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.validation import check_integer


def identical_class(
    attributions: NDArray[Any], train_labels: NDArray[Any], test_labels: NDArray[Any], k: int = 1
) -> NDArray[np.float64]:
    """The share of training points of the test point's class among the k highest attributed ones.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        train_labels: (n_train,).
        test_labels: (n_test,).
        k: number of places; ties at the last one count in expectation, see :func:`share_in_top_k`.

    Returns:
        (n_test,), in [0, 1].

    Raises:
        InvalidTypeError, InvalidValueError: arrays of other shapes or types, or k above n_train.

    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import identical_class
        >>> identical_class(np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.0]]), np.array([0, 1, 1]), np.array([1, 0]))
        array([1. , 0.5])
    """
    owner = "identical_class"
    check_attributions(attributions, owner)
    n_test, n_train = attributions.shape
    train, test = (
        check_class_labels(labels, name, owner)
        for labels, name in ((train_labels, "train_labels"), (test_labels, "test_labels"))
    )
    check_length(train, n_train, "train_labels", owner)
    check_length(test, n_test, "test_labels", owner)
    return share_in_top_k(attributions, np.equal.outer(test, train), k, owner=owner)


class IdenticalClass(DataAttributionMetric):
    """One score for each test point: the share of its k highest attributed training points that have its class.

    Its class is its entry of ``y_batch``. By default that is also the explained class, as in the paper's text; pass the
    network's decisions to explain them. The paper's reference code explains the decision and scores against the true
    label: ``explained_class="decision"`` with the true labels as ``y_batch``.

    Args:
        train_labels: labels of the training points, (n_train,). None: those that the method was fitted with.
        k: number of places.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: labels that are not one-dimensional integers, k that is no positive
            integer; when called: no labels from anywhere, another number of them than of columns, k above n_train.

    Source: arXiv 2402.12118, "Identical Class"; a random attributor scores 1 / n_classes.
    Differs: ties take their expectation, where an argmax takes the first training point.
    Cost: O(n_test · n_train) time, memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import IdenticalClass
        >>> metric = IdenticalClass(train_labels=[0, 1, 1])
        >>> metric(None, np.zeros((2, 4)), np.array([1, 1]), a_batch=np.array([[0.1, 0.9, 0.3], [0.5, 0.2, 0.0]]))
        [1.0, 0.0]
    """

    name = "Identical Class"
    interpretation = (
        "Share of the highest attributed training points that have the class of the test point: 1 is best, 0 is worst,"
        " and a random attributor scores 1 / number of classes."
    )

    def __init__(self, train_labels: ArrayLike | None = None, *, k: int = 1, **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.k = check_integer(k, "k", self._owner)
        self.train_labels = (
            None if train_labels is None else check_class_labels(train_labels, "train_labels", self._owner)
        )

    def _check_sizes(self, _n_test: int, n_train: int) -> None:
        check_k(self.k, n_train, self._owner)
        if self.train_labels is not None and len(self.train_labels) != n_train:
            constraint = f"one label for each of the {n_train} training points"
            raise self._error("train_labels", constraint, f"{len(self.train_labels)} labels")

    def _score(self, rows: Iterator[AttributionRows], source: AttributionSource) -> list[float]:
        scores: list[float] = []
        for part in rows:
            train_labels = source.train_labels() if self.train_labels is None else self.train_labels
            if train_labels is None:
                raise self._error("train_labels", "given where the attributions come without them", None)
            scores += identical_class(part.attributions, train_labels, part.y, self.k).tolist()
        return scores
