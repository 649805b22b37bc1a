"""The baseline: normal, independent values that depend on the seed, the test point and the class alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin import LabelPoisoning, RandomAttribution

N_TRAIN = 4001


def noise(seed: int = 0, n_train: int = N_TRAIN, weight_seed: int = 0) -> RandomAttribution:
    torch.manual_seed(weight_seed)
    train = TensorDataset(torch.randn(n_train, 3), torch.arange(n_train) % 5)
    return RandomAttribution(nn.Sequential(nn.Linear(3, 5)), "0", train, seed=seed, show_progress=False)


def test_rows_are_standard_normal_and_independent() -> None:
    x = torch.randn(3, 3)
    rows = torch.cat([noise().attribute(x, target=c) for c in (0, 1)])
    assert rows.mean(1).abs().max() < 0.08
    assert (rows.std(1) - 1).abs().max() < 0.06
    assert (torch.corrcoef(rows) - torch.eye(6)).abs().max() < 0.08
    assert torch.equal(noise().attribute(x[1:2], target=1), rows[4:5])


def test_self_influence_is_a_random_ranking_of_its_own() -> None:
    method = noise()
    own = method.self_influence()
    assert own.shape == (N_TRAIN,)
    assert float(own.mean().abs()) < 0.08
    assert float((own.std() - 1).abs()) < 0.06
    assert torch.equal(own, method.self_influence())
    assert torch.equal(own, noise(weight_seed=1).self_influence())  # of the seed and n_train alone
    x, labels = method.train_dataset.tensors
    few = method.attribute(x[:200], labels[:200])
    for other in (noise(seed=1).self_influence(), few[0]):
        assert abs(float(torch.corrcoef(torch.stack([own, other]))[0, 1])) < 0.08
    assert abs(float(torch.corrcoef(torch.stack([own[:200], few.diagonal()]))[0, 1])) < 0.3


def test_a_random_ranking_finds_wrong_labels_as_chance_does() -> None:
    method = noise(n_train=500)
    poisoned = torch.randperm(500, generator=torch.Generator().manual_seed(3))[:100].tolist()
    metric = LabelPoisoning(poisoned, ranking="self_influence")
    x = torch.randn(2, 3)
    scores = metric(method.model, x.numpy(), method.decisions(x).numpy(), explain_func=method)
    assert float(scores[0]) == pytest.approx(0.5, abs=0.1)
