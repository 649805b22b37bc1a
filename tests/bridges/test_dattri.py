"""Our methods as dattri's attributors and the other way round; skipped where dattri is not installed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dualview_plugin import (
    DualView,
    IdenticalClass,
    InfluenceFunctions,
    InvalidValueError,
    LinearDatamodeling,
    data_attribution,
)
from tests.worlds import N_TEST, N_TRAIN, World, small_world

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("dattri")
    from dattri.benchmark.utils import SubsetSampler
    from dattri.metric import lds
    from dattri.task import AttributionTask

    from dualview_plugin.bridges.dattri import DattriAttributor, from_dattri

TARGETS = torch.arange(N_TEST) % 5


@pytest.fixture(scope="module")
def world() -> World:
    return small_world()


def task(model: nn.Module) -> Any:
    def loss(parameters: Any, data: Any) -> Any:
        image, label = data
        output = torch.func.functional_call(model, parameters, image.unsqueeze(0))
        return nn.functional.cross_entropy(output, label.unsqueeze(0))

    return AttributionTask(loss, model, checkpoints=model.state_dict())


def loaders(world: World) -> tuple[DataLoader[Any], DataLoader[Any]]:
    test = TensorDataset(world.x_test, TARGETS)
    return DataLoader(world.train, batch_size=8), DataLoader(test, batch_size=3)


def test_scores_are_ours_transposed(world: World) -> None:
    train, test = loaders(world)
    attributor = DattriAttributor(task(world.model), "DualView", "fc", C=0.05)
    attributor.cache(train)
    ours = DualView(world.model, "fc", world.train, C=0.05, show_progress=False)
    torch.testing.assert_close(attributor.attribute(train, test), ours.attribute(world.x_test, TARGETS).T)
    torch.testing.assert_close(attributor.self_attribute(train), ours.self_influence())


def test_samplers_of_dattri_choose_the_training_points(world: World) -> None:
    chosen = [3, 4, 7, 8, 20, 21, 22, 30]
    train = DataLoader(world.train, batch_size=3, sampler=SubsetSampler(chosen))
    test = DataLoader(TensorDataset(world.x_test, TARGETS), batch_size=3, sampler=SubsetSampler([0, 5]))
    scores = DattriAttributor(task(world.model), DualView, "fc", C=0.05).attribute(train, test)
    subset = torch.utils.data.Subset(world.train, chosen)
    ours = DualView(world.model, "fc", subset, C=0.05, show_progress=False)
    torch.testing.assert_close(scores, ours.attribute(world.x_test[[0, 5]], TARGETS[[0, 5]]).T)


def test_another_training_set_is_refused(world: World) -> None:
    train, test = loaders(world)
    attributor = DattriAttributor(task(world.model), "DualView", "fc", C=0.05)
    attributor.cache(train)
    with pytest.raises(InvalidValueError, match="over the training set that cache"):
        attributor.attribute(DataLoader(world.train, sampler=SubsetSampler([1, 2])), test)


def test_dattris_lds_of_our_scores_is_our_score(world: World) -> None:
    train, test = loaders(world)
    scores = DattriAttributor(task(world.model), "InfluenceFunctions", "fc").attribute(train, test)
    generator = torch.Generator().manual_seed(0)
    subsets = torch.stack([torch.randperm(N_TRAIN, generator=generator)[:13] for _ in range(17)])
    outputs = torch.randn(17, N_TEST, generator=generator)
    theirs, _ = lds(scores, (outputs, subsets))
    method = InfluenceFunctions(world.model, "fc", world.train, show_progress=False)
    members = torch.zeros(17, N_TRAIN, dtype=torch.bool).scatter_(1, subsets, True)
    metric = LinearDatamodeling(members.numpy(), outputs.numpy())
    ours = metric(world.model, world.x_test.numpy(), TARGETS.numpy(), explain_func=method)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_an_attributor_of_dattri_is_scored_by_our_metric(world: World) -> None:
    class ByPosition:
        """Stands for any of dattri's: (n_train, n_test)."""

        def attribute(self, train: DataLoader[Any], test: DataLoader[Any]) -> Any:
            return torch.arange(len(train.dataset))[:, None] + torch.zeros(len(test.dataset))

    train, _ = loaders(world)
    marked = data_attribution(from_dattri(ByPosition(), train))
    labels = world.train.tensors[1]
    scores = IdenticalClass(labels)(
        world.model, world.x_test.numpy(), TARGETS.numpy(), explain_func=marked, explain_func_kwargs={}
    )
    assert scores == [float(label == labels[-1]) for label in TARGETS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_example_finds_wrong_labels() -> None:
    from examples.in_dattri import main

    areas = main()
    assert areas["InfluenceFunctions"] > 0.8
    assert areas["RandomAttribution"] == pytest.approx(0.5, abs=0.1)
