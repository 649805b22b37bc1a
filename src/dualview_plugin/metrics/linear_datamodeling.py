"""Linear datamodeling score: do attributions predict what the network says after training on a part of the data?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.rank_correlation import correlation_of_ranks
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.validation import check_fraction, check_integer

MAX_METHODS = 32  # whose predictions are kept for intervals
_DIGITS = 12  # of sums, relative to the sum of magnitudes: what is beyond is rounding


def linear_datamodeling_score(
    attributions: NDArray[Any], subsets: NDArray[np.bool_], outputs: NDArray[Any]
) -> NDArray[np.float64]:
    """How well summed attributions rank the outputs of networks that were retrained on subsets of the training data.

        LDS_t = Spearman over s of (Σ_{j ∈ S_s} τ_tj, f_{S_s}(x_t))

    Args:
        attributions: (n_test, n_train), positive for proponents.
        subsets: which training points each network was trained on, bool (n_subsets, n_train).
        outputs: what each network says of each test point, (n_subsets, n_test), such as the margin of the true label.
            NaN where an output is missing: that subset does not count for that test point.

    Returns:
        (n_test,), in [−1, 1]. Sums that are equal for all subsets, as those of a method that attributes nothing, score
        0, as a random attributor does on average. NaN where outputs cannot be ranked: fewer than two, or all equal.

    Raises:
        InvalidTypeError, InvalidValueError: arrays of other shapes or types, infinite outputs, fewer than two subsets.

    Source: Park et al. 2023 (TRAK); arXiv 2402.12118, v3.
    Differs: sums that differ by rounding alone are ties.
    Cost: O(n_test · n_train · n_subsets) time.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import linear_datamodeling_score
        >>> subsets = np.array([[True, True, False], [True, False, True], [False, True, True]])
        >>> linear_datamodeling_score(np.array([[3, 2, 1]]), subsets, np.array([[5.0], [4.0], [3.0]]))
        array([1.])
    """
    owner = "linear_datamodeling_score"
    check_attributions(attributions, owner)
    mask, values = checked_retraining(subsets, outputs, owner)
    _check_points(mask, values, attributions.shape, owner)
    return _scores(subset_sums(attributions, mask), values.T)


def linear_datamodeling_interval(
    attributions: NDArray[Any],
    subsets: NDArray[np.bool_],
    outputs: NDArray[Any],
    *,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """A bootstrap interval of the mean linear datamodeling score over the test points.

    Subsets and test points are both drawn anew, with replacement; the ends are percentiles of the mean score.

    Args:
        attributions: as in :func:`linear_datamodeling_score`.
        subsets: as there.
        outputs: as there.
        confidence: in (0, 1].
        n_resamples: number of draws.
        seed: of the draws.

    Returns:
        The lower and the upper end; NaN if no test point has a score.

    Raises:
        InvalidTypeError, InvalidValueError: as :func:`linear_datamodeling_score`, or an option breaks its constraint.

    Cost: O(n_resamples · n_test · n_subsets · log n_subsets) time, after the sums.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import linear_datamodeling_interval
        >>> generator = np.random.default_rng(0)
        >>> attributions, subsets = generator.normal(size=(5, 20)), generator.random((30, 20)) < 0.5
        >>> outputs = subsets @ attributions.T  # a perfect attributor
        >>> low, high = linear_datamodeling_interval(attributions, subsets, outputs, n_resamples=50)
        >>> round(low, 6), round(high, 6)
        (1.0, 1.0)
    """
    owner = "linear_datamodeling_interval"
    check_attributions(attributions, owner)
    mask, values = checked_retraining(subsets, outputs, owner)
    _check_points(mask, values, attributions.shape, owner)
    return _interval(subset_sums(attributions, mask), values.T, confidence, n_resamples, seed, owner)


def subset_sums(attributions: NDArray[Any], subsets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The sum of each test point's attributions over each subset, relative to its sum of magnitudes, without rounding.

    Args:
        attributions: (n_test, n_train), finite.
        subsets: (n_subsets, n_train).

    Returns:
        (n_test, n_subsets), in [−1, 1].
    """
    values = attributions.astype(np.float64)
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0)
    values = np.divide(values, largest, out=np.zeros_like(values), where=largest > 0)
    total = np.abs(values).sum(axis=1, keepdims=True)
    sums = values @ subsets.T.astype(np.float64)
    relative = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    rounded: NDArray[np.float64] = np.round(relative, _DIGITS)
    return rounded


def _scores(sums: NDArray[np.float64], outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of each test point from its sums and outputs, both (n_test, n_subsets)."""
    missing = np.isnan(outputs)
    scores = np.full(len(sums), np.nan)
    whole = ~missing.any(axis=1)
    scores[whole] = _complete_scores(sums[whole], outputs[whole])
    for row in np.flatnonzero(~whole):
        there = ~missing[row]
        if there.sum() >= 2:
            scores[row] = _complete_scores(sums[row, there][None], outputs[row, there][None])[0]
    return scores


def _complete_scores(sums: NDArray[np.float64], outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores of test points without missing outputs."""
    scores = correlation_of_ranks(sums, outputs)
    undecided = (sums == sums[:, :1]).all(axis=1) & (outputs != outputs[:, :1]).any(axis=1)
    scores[undecided] = 0.0
    return scores


def _interval(
    sums: NDArray[np.float64],
    outputs: NDArray[np.float64],
    confidence: float,
    n_resamples: int,
    seed: int,
    owner: str,
) -> tuple[float, float]:
    """Percentiles of the mean score over draws of subsets and test points."""
    share = check_fraction(confidence, "confidence", owner)
    draws = check_integer(n_resamples, "n_resamples", owner)
    generator = np.random.default_rng(check_integer(seed, "seed", owner, minimum=0))
    n_test, n_subsets = sums.shape
    means = []
    for _ in range(draws):
        drawn = np.ix_(generator.integers(n_test, size=n_test), generator.integers(n_subsets, size=n_subsets))
        scores = _scores(sums[drawn], outputs[drawn])
        if not np.isnan(scores).all():
            means.append(np.nanmean(scores))
    if not means:
        return float("nan"), float("nan")
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def checked_retraining(
    subsets: ArrayLike, outputs: ArrayLike, owner: str
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The subsets as a mask (n_subsets, n_train), and the outputs (n_subsets, n_test), if they fit each other."""
    mask, values = to_array(subsets), to_array(outputs)
    if mask.dtype != np.bool_:
        raise InvalidTypeError("subsets", owner, "a bool mask", f"values of type {mask.dtype}")
    if mask.ndim != 2 or len(mask) < 2:
        raise InvalidValueError("subsets", owner, "of two rows at least, (n_subsets, n_train)", f"shape {mask.shape}")
    if not np.issubdtype(values.dtype, np.floating):
        raise InvalidTypeError("outputs", owner, "floating values", f"values of type {values.dtype}")
    if values.ndim != 2 or len(values) != len(mask):
        constraint = f"a matrix with a row for each of the {len(mask)} subsets"
        raise InvalidValueError("outputs", owner, constraint, f"shape {values.shape}")
    if np.isinf(values).any():
        raise InvalidValueError("outputs", owner, "finite, or NaN where they are missing", "infinite values")
    return mask, values.astype(np.float64)


def _check_points(subsets: NDArray[np.bool_], outputs: NDArray[np.float64], shape: tuple[int, ...], owner: str) -> None:
    """Refuse subsets and outputs of another number of points than attributions of this shape, (n_test, n_train)."""
    for parameter, values, size in (("subsets", subsets, shape[1]), ("outputs", outputs, shape[0])):
        if values.shape[1] != size:
            constraint = f"of one column for each of {size} points"
            raise InvalidValueError(parameter, owner, constraint, f"shape {values.shape}")


class LinearDatamodeling(DataAttributionMetric):
    """One score for each test point: how well summed attributions rank the outputs of retrained networks.

    :func:`~dualview_plugin.metrics.retrain_on_subsets` makes subsets and outputs. Outputs must be those of what is
    explained: the log-softmax of the decisions with the decisions as ``y_batch``, the margin of the true labels with
    the true labels as ``y_batch``.

    Args:
        subsets: which training points each network was trained on, bool (n_subsets, n_train).
        outputs: what each network says of each test point, (n_subsets, n_test), in the order of ``x_batch``; NaN where
            an output is missing.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: arrays of other shapes or types, infinite outputs, fewer than two subsets;
            when called: another number of columns than of points.

    Source: Park et al. 2023 (TRAK); arXiv 2402.12118, v3 (log-softmax); quanda 0.5 (margin). A random attributor
        scores 0 on average, a perfect one 1 if the output is linear in the subset, and the reversed one −1.
    Differs: sums that differ by rounding alone are ties; a method that attributes nothing scores 0.
    Cost: O(n_test · n_train · n_subsets) time, memory for a block of rows and (n_test × n_subsets) sums.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import LinearDatamodeling
        >>> subsets = np.array([[True, True, False], [True, False, True], [False, True, True]])
        >>> metric = LinearDatamodeling(subsets, outputs=np.array([[5.0], [4.0], [3.0]]))
        >>> metric(None, np.zeros((1, 4)), np.array([0]), a_batch=np.array([[3, 2, 1]]))
        [1.0]
    """

    name = "Linear Datamodeling"
    interpretation = (
        "Rank correlation between the summed attributions of a subset of the training points and the output of a"
        " network retrained on it: 1 is best, −1 is reversed, and a random attributor scores 0."
    )

    def __init__(self, subsets: ArrayLike, outputs: ArrayLike, **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.subsets, self.outputs = checked_retraining(subsets, outputs, self._owner)
        self._sums: dict[str, NDArray[np.float64]] = {}

    def interval(
        self, method: str | None = None, *, confidence: float = 0.95, n_resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """A bootstrap interval of the mean score, see :func:`linear_datamodeling_interval`.

        Args:
            method: one of the latest 32, by the name that ``quantus.evaluate`` gives it; None: the last one.
            confidence: in (0, 1].
            n_resamples: number of draws.
            seed: of the draws.

        Returns:
            The lower and the upper end.

        Raises:
            InvalidTypeError, InvalidValueError: a method that was not scored, an option that breaks its constraint.
        """
        name = next(reversed(self._sums), None) if method is None else method
        if name is None or name not in self._sums:
            raise self._error("method", f"one of those that were scored, {list(self._sums)}", repr(method))
        return _interval(self._sums[name], self.outputs.T, confidence, n_resamples, seed, self._owner)

    def _check_sizes(self, n_test: int, n_train: int) -> None:
        _check_points(self.subsets, self.outputs, (n_test, n_train), self._owner)

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        sums = np.concatenate([subset_sums(part.attributions, self.subsets) for part in rows])
        self._sums.pop(self.method_name, None)
        self._sums[self.method_name] = sums
        while len(self._sums) > MAX_METHODS:
            del self._sums[next(iter(self._sums))]
        scores: list[float] = _scores(sums, self.outputs.T).tolist()
        return scores
