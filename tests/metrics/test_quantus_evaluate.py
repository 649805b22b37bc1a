"""Mixed calls through quantus.evaluate: our metrics and Quantus', our methods and saliency, in any order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import quantus
import torch
from captum.influence import TracInCPFast
from torch import nn

from dualview_plugin.attribution import DataAttribution, DualView, RandomAttribution
from dualview_plugin.errors import NotApplicableWarning
from dualview_plugin.metrics import IdenticalClass, LabelPoisoning, data_attribution
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
