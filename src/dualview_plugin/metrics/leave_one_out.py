"""Leave-one-out: do attributions rank training points by what their removal changes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.utils.data import Dataset

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions, check_class_labels, is_real
from dualview_plugin.metrics.base import AttributionRows, DataAttributionMetric, MetricOptions
from dualview_plugin.metrics.rank_correlation import correlation_of_ranks
from dualview_plugin.metrics.sources import AttributionSource
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.metrics.subset_retraining import Train, trained_on
from dualview_plugin.validation import check_integer


def leave_one_out_effects(
    removed: ArrayLike,
    train_dataset: Dataset[Any],
    train: Train,
    output: Callable[[nn.Module], ArrayLike],
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What the network's outputs lose when one training point is left out and the network is trained again.

        effects_tr = f(x_t) − f_{without removed_r}(x_t)

    Args:
        removed: positions of the training points to leave out, (n_removed,), distinct.
        train_dataset: a map-style dataset of ``(input, label)`` pairs.
        train: ``train(subset, seed) -> network``, as in :func:`retrain_on_subsets`; each time with the same seed.
        output: what a network says of the test points, (n_test,).
        seed: of every training.

    Returns:
        (n_test, n_removed); positive where the point was a proponent.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint, ``train`` returns no network, or
            ``output`` not one number for each test point.

    Cost: n_removed + 1 trainings.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import leave_one_out_effects
        >>> data = torch.utils.data.TensorDataset(torch.tensor([[1.0], [3.0], [8.0]]), torch.arange(3))
        >>> def train(subset, seed):  # a network that knows the sum of its inputs
        ...     network = nn.Linear(1, 1)
        ...     nn.init.constant_(network.weight, sum(float(x) for x, _ in subset))
        ...     return network
        >>> leave_one_out_effects([0, 2], data, train, output=lambda network: network.weight[0].detach())
        array([[1., 8.]])
    """
    owner = "leave_one_out_effects"
    data = TrainingData(train_dataset, 256, owner)
    positions = _checked_removed(removed, len(data), owner)
    check_integer(seed, "seed", owner, minimum=0)
    everything = np.arange(len(data))

    def outputs(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        values = to_array(output(trained_on(train, data.dataset, chosen, seed, owner)))
        if values.ndim != 1 or not is_real(values):
            got = f"{values.dtype} of shape {values.shape}"
            raise InvalidValueError("output", owner, "a function that returns real numbers, (n_test,)", got)
        return values.astype(np.float64)  # a copy: the network may be trained on

    full = outputs(everything)
    without = [outputs(np.delete(everything, point)) for point in positions]
    if any(len(one) != len(full) for one in without):
        got = f"{sorted({len(full), *map(len, without)})} numbers"
        raise InvalidValueError("output", owner, "a function that always returns as many numbers", got)
    effects: NDArray[np.float64] = (full - np.stack(without)).T
    return effects


def leave_one_out_correlation(
    attributions: NDArray[Any], effects: NDArray[Any], removed: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Spearman's correlation between attributions and the effects of leaving their training points out.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        effects: (n_test, n_removed), as :func:`leave_one_out_effects` returns them.
        removed: the training points that were left out, (n_removed,); None: all, in their order.

    Returns:
        (n_test,), in [−1, 1]; a random attributor scores 0 on average. NaN where effects are all equal; 0 where only
        the attributions are.

    Raises:
        InvalidTypeError, InvalidValueError: arrays of other shapes or types.

    Source: dattri's leave-one-out correlation; Koh and Liang 2017.
    Cost: O(n_test · n_removed · log n_removed) time.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import leave_one_out_correlation
        >>> attributions, effects = np.array([[3.0, 2.0, 1.0]]), np.array([[0.5, 0.3, 0.1]])
        >>> leave_one_out_correlation(attributions, effects)
        array([1.])
    """
    owner = "leave_one_out_correlation"
    check_attributions(attributions, owner)
    values = _checked_effects(effects, owner)
    positions = np.arange(attributions.shape[1]) if removed is None else np.asarray(removed)
    positions = _checked_removed(positions, attributions.shape[1], owner)
    if values.shape != (len(attributions), len(positions)):
        constraint = f"of shape {(len(attributions), len(positions))}, (n_test, n_removed)"
        raise InvalidValueError("effects", owner, constraint, f"shape {values.shape}")
    return _correlation(attributions[:, positions], values)


def _correlation(attributions: NDArray[Any], effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation of two matrices (n_test, n_removed); equal attributions correlate with nothing."""
    correlation = correlation_of_ranks(attributions, effects)
    undecided = (attributions == attributions[:, :1]).all(axis=1) & (effects != effects[:, :1]).any(axis=1)
    correlation[undecided] = 0.0
    return correlation


def _checked_effects(effects: ArrayLike, owner: str) -> NDArray[np.float64]:
    """The effects as a finite matrix of two columns at least."""
    values = to_array(effects)
    if not is_real(values):
        raise InvalidTypeError("effects", owner, "real numbers", f"values of type {values.dtype}")
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        got = "NaN or infinite values" if values.ndim == 2 and values.shape[1] > 1 else f"shape {values.shape}"
        raise InvalidValueError("effects", owner, "finite, (n_test, n_removed), of two columns at least", got)
    return values.astype(np.float64)


def _checked_removed(removed: ArrayLike, n_train: int, owner: str) -> NDArray[np.int64]:
    """The positions, if they are distinct training points."""
    positions = check_class_labels(removed, "removed", owner)
    if positions.min() < 0 or positions.max() >= n_train or len(np.unique(positions)) != len(positions):
        raise InvalidValueError("removed", owner, f"distinct positions in 0 .. {n_train - 1}", positions.tolist())
    return positions


class LeaveOneOut(DataAttributionMetric):
    """One score for each test point: the rank correlation of attributions with the effects of leaving points out.

    Args:
        effects: (n_test, n_removed), in the order of ``x_batch``, as :func:`leave_one_out_effects` returns them.
        removed: the training points that were left out, (n_removed,); None: all, in their order.
        **options: see :class:`DataAttributionMetric`.

    Raises:
        InvalidTypeError, InvalidValueError: effects that are no finite matrix; when called: another number of test
            points, or of training points, or a position that is none.

    Source: dattri's leave-one-out correlation. A perfect attributor scores 1, the reversed −1, a random one 0 on
        average; so does one that attributes the same to all.
    Cost: O(n_test · n_removed · log n_removed) time, memory for a block of rows.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import LeaveOneOut
        >>> metric = LeaveOneOut(effects=np.array([[0.5, 0.3, 0.1]]))
        >>> metric(None, np.zeros((1, 4)), np.array([0]), a_batch=np.array([[3.0, 2.0, 1.0]]))
        [1.0]
    """

    name = "Leave-One-Out"
    interpretation = (
        "Rank correlation between attributions and what the output loses without the training point: 1 is best, −1 is"
        " reversed, and a random attributor scores 0."
    )

    def __init__(self, effects: ArrayLike, removed: ArrayLike | None = None, **options: Unpack[MetricOptions]) -> None:
        super().__init__(**options)
        self.effects = _checked_effects(effects, self._owner)
        self.removed = np.arange(self.effects.shape[1]) if removed is None else np.asarray(removed)
        self._all = removed is None

    def _check_sizes(self, n_test: int, n_train: int) -> None:
        positions = _checked_removed(self.removed, n_train, self._owner)
        if self._all and len(positions) != n_train:
            raise self._error("removed", f"given where effects are not of all {n_train} training points", None)
        if self.effects.shape != (n_test, len(positions)):
            constraint = f"of shape {(n_test, len(positions))}, (n_test, n_removed)"
            raise self._error("effects", constraint, f"shape {self.effects.shape}")

    def _score(self, rows: Iterator[AttributionRows], _source: AttributionSource) -> list[float]:
        return [
            score
            for part in rows
            for score in _correlation(part.attributions[:, self.removed], self.effects[part.test_indices]).tolist()
        ]
