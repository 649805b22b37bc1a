"""Identical Class: does the training point that speaks most for a class belong to it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.attribution_source import AttributionSource
from dualview_plugin.metrics.base import DataAttributionMetric, MetricOptions, Rows
from dualview_plugin.metrics.top_share import top_share
from dualview_plugin.validation import check_integer


def identical_class(
    attributions: NDArray[Any], train_labels: NDArray[Any], test_labels: NDArray[Any], k: int = 1
) -> NDArray[np.float64]:
    """The share of training points of the test point's class among the k highest attributed ones.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        train_labels: (n_train,).
        test_labels: (n_test,).
        k: number of places; ties at the last one count in expectation, see :func:`top_share`.

    Returns:
        (n_test,), in [0, 1].

    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> identical_class(np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.0]]), np.array([0, 1, 1]), np.array([1, 0]))
        array([1. , 0.5])
    """
    return top_share(attributions, np.equal.outer(test_labels, train_labels), k)


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
        if self.train_labels is not None and len(self.train_labels) != n_train:
            constraint = f"one label for each of the {n_train} training points"
            raise self._error("train_labels", constraint, f"{len(self.train_labels)} labels")

    def _score(self, rows: Iterator[Rows], source: AttributionSource) -> list[float]:
        scores: list[float] = []
        for part in rows:
            train_labels = source.train_labels() if self.train_labels is None else self.train_labels
            if train_labels is None:
                raise self._error("train_labels", "given where the attributions come without them", None)
            scores += identical_class(part.attributions, train_labels, part.y, self.k).tolist()
        return scores


def check_class_labels(labels: ArrayLike, parameter: str, owner: str) -> NDArray[np.int64]:
    """The labels as an array of integers, (n,)."""
    values = np.asarray(labels)
    if not np.issubdtype(values.dtype, np.integer):
        raise InvalidTypeError(parameter, owner, "integers", f"values of type {values.dtype}")
    if values.ndim != 1 or len(values) == 0:
        raise InvalidValueError(parameter, owner, "one-dimensional and not empty", f"shape {values.shape}")
    return values.astype(np.int64)
