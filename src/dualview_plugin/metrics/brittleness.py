"""Brittleness: how many of a decision's proponents must go until the network decides otherwise?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.utils.data import Dataset

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.arguments import check_attributions, check_class_labels, check_length
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.metrics.subset_retraining import Train, trained_on
from dualview_plugin.validation import check_integer


def brittleness(
    attributions: NDArray[Any],
    decisions: ArrayLike,
    train_dataset: Dataset[Any],
    train: Train,
    predict: Callable[[nn.Module], ArrayLike],
    *,
    counts: Sequence[int],
    seed: int = 0,
) -> NDArray[np.float64]:
    """The smallest number of top proponents without which a retrained network decides otherwise.

    Args:
        attributions: (n_test, n_train), positive for proponents, of the decisions.
        decisions: what the network takes the test points for, (n_test,).
        train_dataset: a map-style dataset of ``(input, label)`` pairs.
        train: ``train(subset, seed) -> network``, as in :func:`retrain_on_subsets`; each time with the same seed.
        predict: what a network takes the test points for, (n_test,).
        counts: how many top points to leave out, ascending, below n_train.
        seed: of every training and of the order of equal attributions, which is drawn.

    Returns:
        (n_test,): one of ``counts``, low for attributions that found what the decision hangs on; infinity where none
        turns it.

    Raises:
        InvalidTypeError, InvalidValueError: an argument breaks its constraint, ``train`` returns no network, or
            ``predict`` not one class for each test point.

    Source: Ilyas et al. 2022 (datamodels).
    Differs: counts are tried upwards, so that the smallest is found also where the effect is not monotone.
    Cost: at most n_test · len(counts) trainings.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin import brittleness
        >>> data = torch.utils.data.TensorDataset(torch.ones(4, 1), torch.tensor([1, 1, 0, 0]))
        >>> def train(subset, seed):  # a network that knows the share of the label 1
        ...     network = nn.Linear(1, 1)
        ...     nn.init.constant_(network.weight, sum(int(label) for _, label in subset) / len(subset))
        ...     return network
        >>> attributions = np.array([[0.9, 0.5, -0.1, -0.3]])
        >>> brittleness(attributions, [1], data, train, lambda network: network.weight[0] > 0.4, counts=[1, 2])
        array([1.])
    """
    owner = "brittleness"
    check_attributions(attributions, owner)
    n_test, n_train = attributions.shape
    data = TrainingData(train_dataset, 256, owner)
    if len(data) != n_train:
        raise InvalidValueError("train_dataset", owner, f"one of {n_train} points", f"{len(data)} points")
    decided = check_class_labels(decisions, "decisions", owner)
    check_length(decided, n_test, "decisions", owner)
    sizes = _checked_counts(counts, n_train, owner)
    shuffled = np.random.default_rng(check_integer(seed, "seed", owner, minimum=0)).permutation(n_train)
    found = np.full(n_test, np.inf)
    for point, row in enumerate(attributions.astype(np.float64)):
        order = shuffled[np.argsort(-row[shuffled], kind="stable")]
        for size in sizes:
            model = trained_on(train, data.dataset, np.sort(order[size:]), seed, owner)
            if _predicted(predict, model, n_test, owner)[point] != decided[point]:
                found[point] = size
                break
    return found


def _predicted(predict: Callable[[nn.Module], ArrayLike], model: nn.Module, n_test: int, owner: str) -> NDArray[Any]:
    """The classes that a network takes the test points for, (n_test,)."""
    classes = to_array(predict(model))
    if classes.shape != (n_test,) or not (np.issubdtype(classes.dtype, np.integer) or classes.dtype == np.bool_):
        got = f"{classes.dtype} of shape {classes.shape}"
        raise InvalidValueError("predict", owner, f"a function that returns classes, ({n_test},)", got)
    return classes


def _checked_counts(counts: Sequence[int], n_train: int, owner: str) -> list[int]:
    """The counts, if they ascend and leave something to train on."""
    sizes = [check_integer(count, "counts", owner) for count in counts]
    if not sizes or sizes != sorted(set(sizes)) or sizes[-1] >= n_train:
        raise InvalidValueError("counts", owner, f"ascending and below n_train = {n_train}", sizes)
    return sizes
