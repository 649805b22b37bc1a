"""A metric explains the network that it is called with, or refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.influence import SimilarityInfluence, TracInCPFast
from torch import nn
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import (
    DataAttribution,
    DualView,
    GradientSimilarity,
    InfluenceFunctions,
    RepresenterPoints,
)
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics import DataAttributionMetric, DomainMismatch, IdenticalClass, LabelPoisoning

N_TRAIN, N_TEST, N_FEATURES, N_CLASSES = 43, 11, 5, 3
METHODS = (DualView, GradientSimilarity, InfluenceFunctions, RepresenterPoints)
METRICS: dict[str, Callable[[], DataAttributionMetric]] = {
    "IdenticalClass": lambda: IdenticalClass(k=5),
    "IdenticalClass, decision": lambda: IdenticalClass(k=5, explained_class="decision"),
    "LabelPoisoning": lambda: LabelPoisoning([1, 4, 6]),
    "LabelPoisoning, self-influence": lambda: LabelPoisoning([1, 4, 6], ranking="self_influence"),
    "DomainMismatch": lambda: DomainMismatch(np.arange(N_TRAIN) % 5 == 1, variant="auprc"),
}
generator = torch.Generator().manual_seed(3)
TRAIN = TensorDataset(torch.randn(N_TRAIN, N_FEATURES, generator=generator), torch.arange(N_TRAIN) % N_CLASSES)
X = torch.randn(N_TEST, N_FEATURES, generator=generator).numpy()
Y = np.arange(N_TEST) % N_CLASSES


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(N_FEATURES, 7), nn.ReLU(), nn.Linear(7, N_CLASSES)).eval()


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", METRICS)
def test_the_score_is_that_of_a_method_made_for_the_network(kind: type[DataAttribution], name: str) -> None:
    first, second = network(0), network(1)
    method = kind(first, "2", TRAIN, show_progress=False)
    expected = [
        METRICS[name]()(net, X, Y, explain_func=kind(net, "2", TRAIN, show_progress=False)) for net in (first, second)
    ]
    got = [METRICS[name]()(net, X, Y, explain_func=method) for net in (first, second, first)]
    assert got[0] == got[2] == pytest.approx(expected[0])
    assert got[1] == pytest.approx(expected[1])
    assert METRICS[name]()(None, X, Y, explain_func=method) == pytest.approx(expected[0])


def test_two_metrics_fit_the_method_to_another_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[DualView] = []
    fit = DualView._fit
    monkeypatch.setattr(DualView, "_fit", lambda self: (fitted.append(self), fit(self))[1])
    method, second = DualView(network(0), "2", TRAIN, show_progress=False), network(1)
    for metric in (IdenticalClass(), LabelPoisoning([2, 3]), IdenticalClass(k=3)):
        metric(second, X, Y, explain_func=method)
    assert len(fitted) == 1


def test_sizes_are_checked_before_the_method_is_fitted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DualView, "_fit", lambda _self: pytest.fail("fitted"))
    method = DualView(network(0), "2", TRAIN, show_progress=False)
    with pytest.raises(InvalidValueError, match="k of IdenticalClass must be at most the number of training points"):
        IdenticalClass(k=N_TRAIN + 1)(network(1), X, Y, explain_func=method)


def influence_objects(model: nn.Module, folder: Any) -> list[Any]:
    torch.save(model.state_dict(), folder / "checkpoint.pt")
    loss = nn.CrossEntropyLoss(reduction="sum")
    return [
        TracInCPFast(model, "2", TRAIN, [str(folder / "checkpoint.pt")], loss_fn=loss, batch_size=8),
        SimilarityInfluence(model, "0", TRAIN, str(folder), batch_size=8),
    ]


def test_influence_objects_refuse_another_network(tmp_path: Any) -> None:
    first, second, labels = network(0), network(1), TRAIN.tensors[1].numpy()
    for influence in influence_objects(first, tmp_path):
        with pytest.raises(InvalidValueError, match="model of IdenticalClass must be the network of the influence"):
            IdenticalClass(labels)(second, X, Y, explain_func=influence)
        expected = IdenticalClass(labels)(first, X, Y, explain_func=influence)
        assert IdenticalClass(labels)(None, X, Y, explain_func=influence) == expected
        assert IdenticalClass(labels)(copy.deepcopy(first), X, Y, explain_func=influence) == expected


def test_a_copy_with_another_attribute_is_another_network(tmp_path: Any) -> None:
    class Scaled(nn.Sequential):
        scale = 1.0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.scale * super().forward(inputs)

    first = Scaled(*network(0))
    second = copy.deepcopy(first)
    second.scale = -1.0
    for influence in influence_objects(first, tmp_path):
        with pytest.raises(InvalidValueError, match="model of IdenticalClass must be the network of the influence"):
            IdenticalClass(TRAIN.tensors[1])(second, X, Y, explain_func=influence)


def test_a_matrix_scores_alike_whatever_the_network() -> None:
    matrix = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN))
    metric = IdenticalClass(TRAIN.tensors[1])
    assert metric(network(0), X, Y, a_batch=matrix) == metric(None, X, Y, a_batch=matrix)


def test_what_is_no_network_is_refused() -> None:
    method: Any = DualView(network(0), "2", TRAIN, show_progress=False)
    with pytest.raises(InvalidTypeError, match=r"model of IdenticalClass must be a torch.nn.Module.*, got str"):
        IdenticalClass()("resnet18", X, Y, explain_func=method)
