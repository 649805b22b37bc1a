"""Mixed calls through quantus.evaluate: our metrics and Quantus', our methods and saliency, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import quantus
import torch
from captum.influence import TracInCPFast
from quantus.helpers.model.pytorch_model import PyTorchModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import DataAttribution, DualView, GradientSimilarity, RandomAttribution
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, NotApplicableWarning
from dualview_plugin.lrp import SurrogateRelevance
from dualview_plugin.metrics import IdenticalClass, LabelPoisoning, data_attribution, identical_class
from tests.worlds import N_TEST, N_TRAIN, World, small_world

pytestmark = [
    # evaluate says this whenever a dict comes second
    pytest.mark.filterwarnings("ignore:Passed explain_func_kwargs will be ignored"),
    # Captum, where the caller's inputs require no gradient
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]
OURS = ("DualView", "Random")


@pytest.fixture
def world() -> World:
    world = small_world()
    world.model.eval()
    return world


def decisions(world: World) -> np.ndarray:
    with torch.no_grad():
        return world.model(world.x_test).argmax(dim=1).numpy()


def methods(world: World, names: Iterable[str]) -> dict[str, Any]:
    common = (world.model, "fc", world.train)
    every = {
        "DualView": DualView(*common, show_progress=False),
        "Random": RandomAttribution(*common, show_progress=False),
        "Saliency": {"xai_lib": "captum", "method": "Saliency"},
    }
    return {name: every[name] for name in names}


def evaluate(world: World, metrics: dict[str, Any], xai_methods: dict[str, Any], **options: Any) -> Any:
    return quantus.evaluate(
        metrics=metrics,
        xai_methods=xai_methods,
        model=world.model,
        x_batch=world.x_test.numpy(),
        y_batch=decisions(world),
        explain_func_kwargs={},
        **options,
    )


@pytest.mark.parametrize("order", list(permutations(["DualView", "Random", "Saliency"])), ids="-".join)
@pytest.mark.parametrize("ours_first", [True, False])
def test_any_order_of_methods_and_metrics(world: World, order: tuple[str, ...], ours_first: bool) -> None:
    metrics = {"Sparseness": quantus.Sparseness(), "Identical class": IdenticalClass()}
    if ours_first:
        metrics = dict(reversed(metrics.items()))
    xai_methods = methods(world, order)
    with pytest.warns(NotApplicableWarning, match="Saliency gives no attributions") as caught:
        scores = evaluate(world, metrics, xai_methods)
    assert [warning.category for warning in caught].count(NotApplicableWarning) == 1
    assert np.isnan(scores["Saliency"]["Identical class"]).all()
    assert all(len(scores[name][metric]) == N_TEST for name in order for metric in metrics)
    assert all(np.isfinite(scores[name]["Sparseness"]).all() for name in order)
    x, y = world.x_test.numpy(), decisions(world)
    for name in OURS:
        assert scores[name]["Identical class"] == IdenticalClass()(world.model, x, y, explain_func=xai_methods[name])


def test_a_table_with_every_kind_of_method(world: World, tmp_path: Any) -> None:
    torch.save(world.model.state_dict(), tmp_path / "checkpoint.pt")
    xai_methods = methods(world, ["Saliency", *OURS])
    tracin = TracInCPFast(
        world.model,
        "fc",
        world.train,
        [str(tmp_path / "checkpoint.pt")],
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=16,
    )

    @data_attribution
    def by_label(model: nn.Module, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return np.equal.outer(targets, world.train.tensors[1].numpy()).astype(float)

    xai_methods |= {"TracIn": data_attribution(tracin), "By label": by_label}
    metrics = {
        "Identical class": IdenticalClass(world.train.tensors[1]),
        "Label poisoning": LabelPoisoning([2, 5, 7]),
        "Sparseness": quantus.Sparseness(),
    }
    with pytest.warns(NotApplicableWarning):
        table = evaluate(world, metrics, xai_methods, agg_func=np.mean, return_as_df=True)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["Saliency", "DualView", "Random", "TracIn", "By label"]
    assert table.loc[["Identical class", "Label poisoning"], "Saliency"].isna().all()
    assert table.loc["Sparseness", ["TracIn", "By label"]].isna().all()  # they have no map of the input
    assert (
        table.loc[["Identical class", "Label poisoning"], ["DualView", "Random", "TracIn", "By label"]]
        .notna()
        .all(axis=None)
    )
    # one class has no training points: nothing can be right where it is explained
    assert table.loc["Identical class", "By label"] == np.isin(decisions(world), world.train.tensors[1]).mean()
    assert list(metrics["Label poisoning"].curves) == ["DualView", "Random", "TracIn", "By label"]


def test_a_precomputed_matrix(world: World) -> None:
    dualview: DataAttribution = methods(world, ["DualView"])["DualView"]
    matrix = dualview.attribute(world.x_test, torch.from_numpy(decisions(world))).numpy()
    assert matrix.shape == (N_TEST, N_TRAIN)
    metrics = {"Identical class": IdenticalClass(world.train.tensors[1])}
    scores = evaluate(world, metrics, {"matrix": matrix, "object": dualview})
    assert scores["matrix"] == scores["object"]


def test_quantus_own_arguments_reach_the_metric(world: World) -> None:
    metric = IdenticalClass(return_aggregate=True)
    call_kwargs = {"small": {"batch_size": 2}, "large": {"batch_size": 64, "device": "cpu"}}
    scores = evaluate(world, {"Identical class": metric}, methods(world, OURS), call_kwargs=call_kwargs)
    for name in OURS:
        by_call = scores[name]["Identical class"]
        assert by_call["small"] == by_call["large"]
        assert len(by_call["small"]) == 1


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[list[int]]:
    """The sizes of the network's forward passes in the block."""
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", [DualView, GradientSimilarity, RandomAttribution])
def test_metrics_of_ours_alone_cost_what_attribute_costs(world: World, kind: type[DataAttribution]) -> None:
    method = kind(world.model, "fc", world.train, show_progress=False).fit()
    decided, labels = decisions(world), world.train.tensors[1].numpy()
    with counted_passes(world.model) as expected:
        matrix = method.attribute(world.x_test, torch.from_numpy(decided)).numpy()
    arguments = (world.model, world.x_test.numpy(), decided)
    with counted_passes(world.model) as passes:
        scores = quantus.evaluate(
            {"Identical class": IdenticalClass()}, {"method": method}, *arguments, explain_func_kwargs={}
        )
    assert passes == expected
    assert scores["method"]["Identical class"] == identical_class(matrix, labels, decided).tolist()


def test_metrics_of_quantus_get_the_map_whatever_stands_before_them(world: World) -> None:
    received: list[np.ndarray] = []

    class Receiving(quantus.Sparseness):
        def __call__(self, *args: Any, a_batch: Any, **kwargs: Any) -> Any:
            received.append(a_batch.copy())
            return super().__call__(*args, a_batch=a_batch, **kwargs)

    xai_methods = methods(world, ["DualView"])
    expected = xai_methods["DualView"](world.model, world.x_test.numpy(), decisions(world))
    assert np.isfinite(expected).all()
    for metrics in permutations({"Ours": IdenticalClass(), "Quantus'": Receiving()}.items()):
        evaluate(world, dict(metrics), xai_methods)
        np.testing.assert_array_equal(received.pop(), expected)


def test_scores_depend_on_no_order(world: World) -> None:
    names, seen = ["DualView", "Random", "Saliency"], []
    metrics = {
        "Identical class": IdenticalClass(world.train.tensors[1], disable_warnings=True),
        "Label poisoning": LabelPoisoning([2, 5, 7], disable_warnings=True),
        "Sparseness": quantus.Sparseness(abs=False, normalise=False),  # adds a number to the caller's array
    }
    for order in permutations(names):
        for metric_order in (list(metrics.items()), list(metrics.items())[::-1]):
            scores = evaluate(world, dict(metric_order), methods(world, order))
            seen.append([scores[name][metric] for name in names for metric in metrics])
    for other in seen[1:]:
        np.testing.assert_equal(other, seen[0])


def test_a_surrogates_map_is_left_out_where_no_metric_reads_it(world: World) -> None:
    dualview = methods(world, ["DualView"])["DualView"]
    surrogate = SurrogateRelevance(dualview, "epsilon_plus_flat")
    metrics, arguments = {"IC": IdenticalClass(disable_warnings=True)}, (world.x_test.numpy(), np.zeros(N_TEST, int))
    with counted_passes(world.model) as passes:
        quantus.evaluate(metrics, {"surrogate": surrogate}, world.model, *arguments, explain_func_kwargs={})
    assert passes == []


def test_a_marked_function_may_use_the_map_of_a_method(world: World) -> None:
    dualview, n_train = methods(world, ["DualView"])["DualView"], len(world.train)

    @data_attribution
    def by_map(model: nn.Module, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        heat = dualview(model, inputs, targets)
        assert np.isfinite(heat).all()
        return np.repeat(heat.sum(axis=tuple(range(1, heat.ndim)))[:, None], n_train, axis=1)

    scores = evaluate(world, {"Identical class": IdenticalClass(world.train.tensors[1])}, {"by map": by_map})
    assert np.isfinite(scores["by map"]["Identical class"]).all()


TOKENS = torch.randint(0, 20, (40, 6), generator=torch.Generator().manual_seed(0))
TOKEN_LABELS = torch.arange(40) % 3


def token_method() -> DualView:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
    return DualView(network, "4", TensorDataset(TOKENS[:30], TOKEN_LABELS[:30]), C=0.1, show_progress=False)


def test_a_token_network_is_scored_by_its_attributions() -> None:
    method, test = token_method(), (TOKENS[30:].numpy(), TOKEN_LABELS[30:].numpy())
    matrix = method.attribute(*test).numpy()
    expected = identical_class(matrix, TOKEN_LABELS[:30].numpy(), test[1]).tolist()
    metrics, kwargs = {"Identical class": IdenticalClass()}, {"explain_func_kwargs": {}}
    assert quantus.evaluate(metrics, {"DualView": method}, method.model, *test, **kwargs) == {
        "DualView": {"Identical class": expected}
    }


def test_a_token_network_has_no_map_for_metrics_of_quantus() -> None:
    method, test = token_method(), (TOKENS[30:].numpy(), TOKEN_LABELS[30:].numpy())
    metrics = {"Identical class": IdenticalClass(), "Sparseness": quantus.Sparseness()}
    with pytest.raises(InvalidTypeError, match=r"inputs of DualView must be floating .* data_attribution\(method\)"):
        quantus.evaluate(metrics, {"DualView": method}, method.model, *test, explain_func_kwargs={})
    marked = {"DualView": data_attribution(method)}
    scores = quantus.evaluate(metrics, marked, method.model, *test, explain_func_kwargs={})["DualView"]
    assert np.isnan(scores["Sparseness"]).all()
    assert np.isfinite(scores["Identical class"]).all()


def test_a_network_that_cannot_be_differentiated_has_no_map(world: World) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = world.model

        def forward(self, images: Tensor) -> Tensor:
            return self.body(images.detach())

    method = DualView(Detached(), "body.fc", world.train, show_progress=False)
    with pytest.raises(InvalidValueError, match="model of DualView must be differentiable in its inputs for an input"):
        method(method.model, world.x_test.numpy(), decisions(world))
    assert np.isfinite(IdenticalClass()(method.model, world.x_test, decisions(world), explain_func=method)).all()


def test_a_float64_network_scores_as_its_attributions(world: World) -> None:
    world.model.double()
    images, labels = world.train.tensors
    method = DualView(world.model, "fc", TensorDataset(images.double(), labels), show_progress=False)
    x = world.x_test.double()
    with torch.no_grad():
        decided = world.model(x).argmax(dim=1).numpy()
    expected = identical_class(method.attribute(x, torch.from_numpy(decided)).numpy(), labels.numpy(), decided)
    metrics = {"Identical class": IdenticalClass(), "decision": IdenticalClass(explained_class="decision")}
    scores = quantus.evaluate(metrics, {"DualView": method}, world.model, x.numpy(), decided, explain_func_kwargs={})[
        "DualView"
    ]
    assert scores == {"Identical class": expected.tolist(), "decision": expected.tolist()}


def test_quantus_wrapper_of_the_network_is_unwrapped(world: World) -> None:
    dualview, x, y = methods(world, ["DualView"])["DualView"], world.x_test.numpy(), decisions(world)
    wrapped = PyTorchModel(world.model)
    np.testing.assert_array_equal(dualview(wrapped, x, y), dualview(world.model, x, y))
    expected = IdenticalClass()(world.model, x, y, explain_func=dualview)
    assert IdenticalClass()(wrapped, x, y, explain_func=dualview) == expected


def test_a_metric_costs_the_passes_of_attribute() -> None:
    """With a metric of this package a gradient method sweeps the training data once, and makes no map."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    x, labels = torch.randn(60, 8), torch.arange(60) % 3
    method = GradientSimilarity(network, "2", TensorDataset(x, labels), batch_size=16, show_progress=False).fit()
    test = torch.randn(40, 8), torch.arange(40) % 3
    seen: list[int] = []

    def count(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(len(inputs[0]))

    handle = network.register_forward_pre_hook(count)
    method.attribute(*test)
    alone, seen[:] = sum(seen), []
    arrays = test[0].numpy(), test[1].numpy()
    quantus.evaluate({"a": IdenticalClass()}, {"SIM": method}, network, *arrays, explain_func_kwargs={})
    handle.remove()
    assert 0 < sum(seen) <= alone
