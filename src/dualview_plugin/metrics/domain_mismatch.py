"""Domain Mismatch: is the mark that fooled the network traced to the training points that taught it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.metrics.arguments import check_attributions, check_mask
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.share_in_top_k import share_in_top_k
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.metrics.train_subset import TrainSubset
from dualview_plugin.validation import check_option

Variant = Literal["top", "auprc"]


def domain_mismatch(attributions: NDArray[Any], marked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Whether the highest attributed training point is a marked one; a tie counts as the share of marked points in it.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        marked: (n_train,).

    Returns:
        (n_test,), in [0, 1].

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix, or ``marked`` is no mask of some of its columns.

    Cost: O(n_test · n_train) time and memory.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import domain_mismatch
        >>> domain_mismatch(np.array([[0.1, 0.9, 0.3], [0.5, 0.5, 0.0]]), np.array([True, False, False]))
        array([0. , 0.5])
    """
    owner = "domain_mismatch"
    check_attributions(attributions, owner)
    return share_in_top_k(attributions, check_mask(marked, attributions.shape[1], "marked", owner), owner=owner)


def domain_mismatch_auprc(attributions: NDArray[Any], marked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Area under the precision-recall curve of "marked", with the training points ranked by their attributions.

    The area is that of the step function, Σ (recall_j − recall_{j−1}) · precision_j over the distinct values, which is
    scikit-learn's average precision.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        marked: (n_train,), some of them True.

    Returns:
        (n_test,), in (0, 1].

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix, or ``marked`` is no mask of some of its columns.

    Cost: O(n_test · n_train · log n_train) time, O(n_train) memory beside the input.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import domain_mismatch_auprc
        >>> domain_mismatch_auprc(np.array([[0.1, 0.9, 0.3], [0.9, 0.5, 0.0]]), np.array([True, False, False]))
        array([0.33333333, 1.        ])
    """
    owner = "domain_mismatch_auprc"
    check_attributions(attributions, owner)
    mask = check_mask(marked, attributions.shape[1], "marked", owner)
    return np.array([average_precision(row, mask) for row in attributions])


def average_precision(values: NDArray[Any], marked: NDArray[np.bool_]) -> float:
    """The step-wise area for one test point; equal values enter the ranking together."""
    numbers = values.astype(np.float64)  # unsigned integers have no negative
    order = np.argsort(-numbers)
    descending, found = numbers[order], np.cumsum(marked[order])
    last_of_tie = np.append(descending[1:] != descending[:-1], True)
    places, found = np.flatnonzero(last_of_tie) + 1, found[last_of_tie]
    return float(np.sum(np.diff(found, prepend=0) * found / places) / found[-1])


class DomainMismatch(DataAttributionMetric):
    """One score for each test point: whether its highest attributed training point carries the mark.

    The test points are those whose decision the mark has turned into the marked class, with the mark on them:
    ``x_batch, indices = marked_images.mismatched(model, x, y)``, and ``y_batch`` the marked class for each.

    Args:
        marked: bool mask (n_train,) or indices of the marked training points, as ``MarkedImages.marked_indices``.
        variant: ``"top"``: the paper's score. ``"auprc"``: the area under the precision-recall curve of the whole
            ranking, which quanda calls shortcut detection.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: no or every point marked, indices out of range, a mask of another length.

    Source: arXiv 2402.12118, "Domain Mismatch"; a random attributor scores the share of marked training points.
    Differs: ties take their expectation. Without test points the score is NaN, where quanda's is 0.
    Cost: O(n_test · n_train) time ("auprc": times log n_train), memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import DomainMismatch
        >>> metric = DomainMismatch(marked=[0])
        >>> metric(None, np.zeros((2, 4)), np.array([1, 1]), a_batch=np.array([[0.1, 0.9, 0.3], [0.9, 0.2, 0.0]]))
        [0.0, 1.0]
    """

    name = "Domain Mismatch"
    interpretation = (
        "Share of test points whose decision was turned by a mark and whose highest attributed training point carries"
        " that mark: 1 is best, 0 is worst, and a random attributor scores the share of marked training points."
    )

    def __init__(self, marked: ArrayLike, *, variant: Variant = "top", **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.marked = TrainSubset(marked, "marked", self._owner)
        self.variant = check_option(variant, "variant", self._owner, get_args(Variant))

    def _check_sizes(self, _n_test: int, n_train: int) -> None:
        self.marked.mask(n_train)

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        score = domain_mismatch if self.variant == "top" else domain_mismatch_auprc
        scores: list[float] = []
        for part in rows:
            marked = self.marked.mask(part.attributions.shape[1])
            scores += score(part.attributions, marked).tolist()
        return scores
