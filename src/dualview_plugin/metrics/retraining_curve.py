"""Coreset selection and data pruning: how good is a network that is retrained on the top or bottom of a ranking?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.utils.data import Dataset

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions, check_length
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.metrics.subset_retraining import Train, trained_on
from dualview_plugin.validation import check_fraction, check_integer, check_option

Keep = Literal["top", "bottom"]
Sign = Literal["signed", "absolute"]
SHARES = tuple(tenth / 10 for tenth in range(1, 11))


@dataclass(frozen=True)
class RetrainingCurve:
    """What networks are worth that were trained on a growing part of a ranking.

    Attributes:
        shares: of the training points, ascending, (n_shares,).
        values: of the networks trained on them, (n_shares,).
        area: the mean of the piecewise linear curve between the first and the last share.
    """

    shares: NDArray[np.float64]
    values: NDArray[np.float64]
    area: float


def summed_attributions(attributions: NDArray[Any], sign: Sign = "signed") -> NDArray[np.float64]:
    """A value for each training point: its attributions added up over the test points.

    Args:
        attributions: (n_test, n_train), positive for proponents.
        sign: ``"signed"``: Σ_t τ_tj, for which an opponent is worth less than a stranger. ``"absolute"``: Σ_t |τ_tj|,
            as in the successor work, for which an opponent counts as a proponent does.

    Returns:
        (n_train,).

    Raises:
        InvalidTypeError, InvalidValueError: no finite matrix, another sign.

    Example:
        >>> import numpy as np
        >>> from dualview_plugin import summed_attributions
        >>> summed_attributions(np.array([[1.0, -2.0], [0.5, 1.0]])).tolist()
        [1.5, -1.0]
        >>> summed_attributions(np.array([[1.0, -2.0], [0.5, 1.0]]), "absolute").tolist()
        [1.5, 3.0]
    """
    owner = "summed_attributions"
    check_attributions(attributions, owner)
    absolute = check_option(sign, "sign", owner, get_args(Sign)) == "absolute"
    summed: NDArray[np.float64] = (np.abs(attributions) if absolute else attributions).sum(axis=0, dtype=np.float64)
    return summed


def retraining_curve(
    ranking: ArrayLike,
    train_dataset: Dataset[Any],
    train: Train,
    evaluate: Callable[[nn.Module], float],
    *,
    keep: Keep = "top",
    shares: Sequence[float] = SHARES,
    seed: int = 0,
) -> RetrainingCurve:
    """Retrain on the top or the bottom of a ranking of the training points, share by share, and evaluate.

    Args:
        ranking: a value for each training point, (n_train,), such as :func:`summed_attributions`.
        train_dataset: a map-style dataset of ``(input, label)`` pairs.
        train: ``train(subset, seed) -> network``, as in :func:`retrain_on_subsets`; each time with the same seed.
        evaluate: what a network is worth, such as its accuracy or its mean cross-entropy on the test data.
        keep: ``"top"``: coreset selection, on the highest values. ``"bottom"``: data pruning, on the lowest.
        shares: of the training points to keep, ascending, in (0, 1].
        seed: of the training and of the order of equal values, which is drawn.

    Returns:
        The curve and its area. A random ranking has the same expected curve for "top" and "bottom".

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint, or ``train`` returns no network.

    Source: arXiv 2402.12118, v3, coreset selection and data pruning.
    Differs: signed rankings beside absolute ones; equal values in random order.
    Cost: a training for each share.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import retraining_curve
        >>> x = torch.tensor([[1.0], [3.0], [8.0], [4.0]])
        >>> data = torch.utils.data.TensorDataset(x, torch.arange(4))
        >>> def train(subset, seed):  # a network that knows the sum of its inputs
        ...     network = nn.Linear(1, 1)
        ...     nn.init.constant_(network.weight, sum(float(x) for x, _ in subset))
        ...     return network
        >>> curve = retraining_curve(x[:, 0], data, train, lambda network: network.weight.item(), shares=(0.25, 0.5, 1))
        >>> curve.values.tolist()
        [8.0, 12.0, 16.0]
    """
    owner = "retraining_curve"
    data = TrainingData(train_dataset, 256, owner)
    values = to_array(ranking).astype(np.float64)
    check_length(values, len(data), "ranking", owner)
    if not np.isfinite(values).all():
        raise InvalidValueError("ranking", owner, "finite", "NaN or infinite values")
    parts = [check_fraction(share, "shares", owner) for share in shares]
    if len(parts) < 2 or parts != sorted(set(parts)):
        raise InvalidValueError("shares", owner, "two or more, ascending", list(shares))
    check_option(keep, "keep", owner, get_args(Keep))
    order = _order(values, keep, check_integer(seed, "seed", owner, minimum=0))
    found = [
        float(evaluate(trained_on(train, data.dataset, np.sort(order[: max(1, round(part * len(data)))]), seed, owner)))
        for part in parts
    ]
    widths, heights = np.diff(parts), (np.array(found[1:]) + np.array(found[:-1])) / 2
    return RetrainingCurve(np.array(parts), np.array(found), float(np.average(heights, weights=widths)))


def _order(values: NDArray[np.float64], keep: Keep, seed: int) -> NDArray[np.int64]:
    """The training points from the first to keep to the last; equal values in random order."""
    shuffled = np.random.default_rng(seed).permutation(len(values))
    ascending = shuffled[np.argsort(values[shuffled], kind="stable")]
    return ascending[::-1] if keep == "top" else ascending
