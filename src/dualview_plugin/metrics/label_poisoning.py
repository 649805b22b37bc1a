"""Label Poisoning: are the training points with wrong labels the first to be found?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Unpack, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_mask
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.metrics.train_subset import TrainSubset
from dualview_plugin.validation import check_option

Ranking = Literal["attributions", "self_influence"]
MAX_CURVES = 32  # an evaluation has a handful of methods; one name for each call would otherwise fill the memory


def poisoning_curve(ranking: NDArray[Any], poisoned: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of the poisoned points found among the first m of the ranking, for m = 0 .. n_train.

    Equal values are ranked at random, and the curve is the expectation over that: straight across a tie.

    Args:
        ranking: values of the training points, (n_train,); the highest is looked at first.
        poisoned: (n_train,), some of them True.

    Returns:
        (n_train + 1,), from 0 to 1.

    Raises:
        InvalidTypeError, InvalidValueError: no finite values (n_train,), or no mask of some of them.

    Cost: O(n_train · log n_train) time.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import poisoning_curve
        >>> poisoning_curve(np.array([5, 9, 1, 1]), np.array([False, True, True, False]))
        array([0.  , 0.5 , 0.5 , 0.75, 1.  ])
    """
    return _curve(*_checked(ranking, poisoned, "poisoning_curve"))


def _curve(ranking: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> NDArray[np.float64]:
    """:func:`poisoning_curve` of checked arrays."""
    values, group = np.unique(-ranking, return_inverse=True)
    sizes = np.bincount(group, minlength=len(values))
    found = np.bincount(group, weights=poisoned, minlength=len(values))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    shares = np.concatenate([[0], np.cumsum(found)]) / poisoned.sum()
    curve: NDArray[np.float64] = np.interp(np.arange(len(ranking) + 1), ends, shares)
    return curve


def _checked(ranking: ArrayLike, poisoned: ArrayLike, owner: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The two arrays, if they are finite values and a mask of some of them."""
    values = to_array(ranking).astype(np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        got = f"shape {values.shape}" if values.ndim != 1 else "NaN or infinite values"
        raise InvalidValueError("ranking", owner, "one finite value for each training point, (n_train,)", got)
    return values, check_mask(poisoned, len(values), "poisoned", owner)


def label_poisoning(ranking: NDArray[Any], poisoned: NDArray[np.bool_]) -> float:
    """The area under the poisoning curve, rescaled so that the best ranking scores 1 and the worst 0.

        (area − worst) / (best − worst),   area = Σ_{m=1..n} curve_m / n,
        best = (n − P + (P + 1)/2) / n,    worst = (P + 1)/(2n)   for P poisoned of n points

    Args:
        ranking: values of the training points, (n_train,); the highest is looked at first.
        poisoned: (n_train,), some but not all of them True.

    Returns:
        In [0, 1]; 0.5 is the expectation of a random ranking. It equals the ROC-AUC of "poisoned".

    Raises:
        InvalidTypeError, InvalidValueError: no finite values (n_train,), or no mask of some of them.

    Source: arXiv 2402.12118, "Label Poisoning".
    Cost: O(n_train · log n_train) time.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import label_poisoning
        >>> label_poisoning(np.array([5, 9, 1, 2]), np.array([True, True, False, False]))
        1.0
    """
    values, mask = _checked(ranking, poisoned, "label_poisoning")
    if mask.all():
        raise InvalidValueError("poisoned", "label_poisoning", "some of the training points", "all of them")
    n_train, n_poisoned = len(mask), int(mask.sum())
    area = _curve(values, mask)[1:].mean()
    best = (n_train - n_poisoned + (n_poisoned + 1) / 2) / n_train
    worst = (n_poisoned + 1) / (2 * n_train)
    return float(np.clip((area - worst) / (best - worst), 0.0, 1.0))


class LabelPoisoning(DataAttributionMetric):
    """One score for the whole test set: how early a ranking of the training points finds those with wrong labels.

    The ranking is by Σ_test |τ_i|, each test point's attributions divided by their largest magnitude first; ``abs`` and
    ``normalise`` are therefore on unless they are switched off.

    Args:
        poisoned: bool mask (n_train,) or indices of the points with wrong labels: ``poisoned_indices`` of the dataset.
        ranking: ``"attributions"``: as above. ``"self_influence"``: by each training point's attribution to itself, as
            in the successor work and in quanda; NaN for a source that has none, as a precomputed matrix.
        **options: see :class:`DataAttributionMetric`; here ``abs`` and ``normalise`` are True by default.

    Attributes:
        curve: after a call, the share of poisoned points found among the first m, (n_train + 1,).
        curves: the last curve of each of the latest 32 methods, by the name that ``quantus.evaluate`` gives it.

    Raises:
        InvalidTypeError, InvalidValueError: no or every point poisoned, indices out of range, a mask of another length.

    Source: arXiv 2402.12118, "Label Poisoning"; a random attributor scores 0.5.
    Differs: ties take their expectation over random ranking, where a sort takes them in the order of the dataset.
    Cost: O(n_test · n_train) time, memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import LabelPoisoning
        >>> metric = LabelPoisoning(poisoned=[0])
        >>> metric(None, np.zeros((2, 4)), np.array([1, 1]), a_batch=np.array([[0.9, -0.5, 0.3], [0.9, 0.1, 0.0]]))
        [1.0]
    """

    name = "Label Poisoning"
    interpretation = (
        "How early the points with wrong labels come in a ranking of the training points: 1 if they come first, 0 if"
        " they come last, and 0.5 for a random attributor."
    )

    def __init__(
        self, poisoned: ArrayLike, *, ranking: Ranking = "attributions", **options: Unpack[MetricOptions]
    ) -> None:
        options.setdefault("abs", True)
        options.setdefault("normalise", True)
        super().__init__(**options)
        self.poisoned = TrainSubset(poisoned, "poisoned", self._owner)
        self.ranking = check_option(ranking, "ranking", self._owner, get_args(Ranking))
        self.curve: NDArray[np.float64] | None = None
        self.curves: dict[str, NDArray[np.float64]] = {}

    def _check_sizes(self, _n_test: int, n_train: int) -> None:
        self.poisoned.mask(n_train)

    def _n_scores(self, _n_test: int) -> int:
        return 1

    def _score(self, rows: Iterator[AttributionRows], source: AttributionSource) -> list[float]:
        if self.ranking == "attributions":
            ranking = sum(part.attributions.sum(axis=0, dtype=np.float64) for part in rows)
        else:
            ranking = source.self_influence()
        if ranking is None:
            return self._not_applicable(1, f"{self.method_name} has no self-influence")
        self._check_block(ranking[None])
        poisoned = self.poisoned.mask(len(ranking))
        self._keep_curve(poisoning_curve(ranking, poisoned))
        return [label_poisoning(ranking, poisoned)]

    def _keep_curve(self, curve: NDArray[np.float64]) -> None:
        """Store the curve under the method's name, as the latest one, and forget the oldest beyond the limit."""
        self.curve = curve
        self.curves.pop(self.method_name, None)
        self.curves[self.method_name] = curve
        while len(self.curves) > MAX_CURVES:
            del self.curves[next(iter(self.curves))]
