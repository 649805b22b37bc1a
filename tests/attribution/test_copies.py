"""A copied or pickled method explains as the one that was fitted, and knows as well as that one what has changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import DualView, GradientSimilarity, InfluenceFunctions, StaleFitError

X, LABELS = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda method: pickle.loads(pickle.dumps(method))]


def tensors() -> TensorDataset:
    return TensorDataset(X.clone(), LABELS.clone())


def fitted(method: Any, data: Any) -> Any:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return method(network, "2", data, show_progress=False).fit()


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("method", [DualView, GradientSimilarity, InfluenceFunctions])
@pytest.mark.parametrize(
    "data", [tensors(), list(zip(X, LABELS.tolist(), strict=True)), DataLoader(tensors(), batch_size=5)]
)
def test_a_copy_of_a_fitted_method_explains_as_it_does(copied: Any, method: Any, data: Any) -> None:
    own = fitted(method, data)
    assert torch.equal(copied(own).attribute(X[:3]), own.attribute(X[:3]))


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_stale_fit_is_stale(copied: Any) -> None:
    data = tensors()
    own = fitted(DualView, data)
    data.tensors[1][0] = 2
    with pytest.raises(StaleFitError, match="other labels"):
        copied(own).attribute(X[:3])


def test_a_copy_notices_changes_of_its_own_data() -> None:
    other = copy.deepcopy(fitted(DualView, tensors()))
    other.train_dataset.tensors[0].add_(1.0)
    with pytest.raises(StaleFitError, match="must be as it was at the fit"):
        other.attribute(X[:3])
