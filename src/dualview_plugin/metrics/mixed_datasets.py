"""Mixed Datasets: of training data from several sources, do the strongest points come from the test point's source?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions, check_class_labels, check_k, check_length
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.domain_mismatch import average_precision
from dualview_plugin.metrics.share_in_top_k import share_in_top_k
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.validation import check_integer, check_option

Variant = Literal["top", "auprc"]


def mixed_datasets(
    attributions: NDArray[Any],
    train_sources: NDArray[Any],
    test_sources: NDArray[Any],
    k: int = 1,
    variant: Variant = "top",
) -> NDArray[np.float64]:
    """How well the training points of the test point's own source come out on top.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        train_sources: which dataset each training point comes from, integers (n_train,).
        test_sources: the same for the test points, (n_test,); each is among the training points' sources.
        k: number of places, for "top".
        variant: ``"top"``: the share of the own source among the k highest attributed; ties count in expectation.
            ``"auprc"``: the area under the precision-recall curve of "own source", over the whole ranking.

    Returns:
        (n_test,), in [0, 1].

    Raises:
        InvalidTypeError, InvalidValueError: arrays of other shapes or types, a test source that no training point has,
            k above n_train, another variant.

    Cost: O(n_test · n_train) time and memory ("auprc": times log n_train in time).

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import mixed_datasets
        >>> mixed_datasets(np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.0]]), np.array([0, 1, 1]), np.array([1, 0]))
        array([1. , 0.5])
    """
    owner = "mixed_datasets"
    check_attributions(attributions, owner)
    n_test, n_train = attributions.shape
    train, test = _checked_sources(train_sources, test_sources, owner)
    check_length(train, n_train, "train_sources", owner)
    check_length(test, n_test, "test_sources", owner)
    own = np.equal.outer(test, train)
    if check_option(variant, "variant", owner, get_args(Variant)) == "top":
        return share_in_top_k(attributions, own, k, owner=owner)
    return np.array([average_precision(row, mask) for row, mask in zip(attributions, own, strict=True)])


def _checked_sources(
    train_sources: ArrayLike, test_sources: ArrayLike, owner: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The sources as integers, if every test point's source is in the training data."""
    train = check_class_labels(train_sources, "train_sources", owner)
    test = check_class_labels(test_sources, "test_sources", owner)
    missing = np.setdiff1d(test, train)
    if len(missing):
        constraint = "among the sources of the training points"
        raise InvalidValueError("test_sources", owner, constraint, missing.tolist())
    return train, test


class MixedDatasets(DataAttributionMetric):
    """One score for each test point: whether its highest attributed training points come from its own source.

    The training data mix several datasets, such as MNIST's and Fashion-MNIST's images under one class. A test point of
    one of them should be explained by training points of the same one.

    Args:
        train_sources: which dataset each training point comes from, integers (n_train,).
        test_sources: the same for the test points, (n_test,), in the order of ``x_batch``.
        k: number of places, for "top".
        variant: ``"top"`` or ``"auprc"``, see :func:`mixed_datasets`.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: sources that are not one-dimensional integers, a test source that no
            training point has, k that is no positive integer, another variant; when called: another number of sources
            than of points, k above n_train.

    Source: quanda's "mixed datasets"; a random attributor scores the share of training points of the own source.
    Differs: any number of sources, and the top points beside the area; ties count in expectation.
    Cost: O(n_test · n_train) time ("auprc": times log n_train), memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import MixedDatasets
        >>> metric = MixedDatasets(train_sources=[0, 1, 1], test_sources=[1, 0])
        >>> metric(None, np.zeros((2, 4)), np.array([0, 0]), a_batch=np.array([[0.1, 0.9, 0.3], [0.2, 0.5, 0.0]]))
        [1.0, 0.0]
    """

    name = "Mixed Datasets"
    interpretation = (
        "Share of the highest attributed training points that come from the test point's own source: 1 is best, 0 is"
        " worst, and a random attributor scores the share of training points of that source."
    )

    def __init__(
        self,
        train_sources: ArrayLike,
        test_sources: ArrayLike,
        *,
        k: int = 1,
        variant: Variant = "top",
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(**options)
        self.k = check_integer(k, "k", self._owner)
        self.variant: Variant = check_option(variant, "variant", self._owner, get_args(Variant))
        self.train_sources, self.test_sources = _checked_sources(train_sources, test_sources, self._owner)

    def _check_sizes(self, n_test: int, n_train: int) -> None:
        check_k(self.k, n_train, self._owner)
        check_length(self.train_sources, n_train, "train_sources", self._owner)
        check_length(self.test_sources, n_test, "test_sources", self._owner)

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        scores: list[float] = []
        for part in rows:
            own = self.test_sources[part.test_indices]
            scores += mixed_datasets(part.attributions, self.train_sources, own, self.k, self.variant).tolist()
        return scores
