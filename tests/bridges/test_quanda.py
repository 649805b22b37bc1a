"""Our methods in quanda's benchmark loop; skipped where quanda is not installed."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from dualview_plugin import DualView, IdenticalClass, InvalidValueError, LabelPoisoning
from tests.worlds import N_TEST, N_TRAIN, small_world

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies
    pytest.importorskip("quanda")
    from quanda.metrics import downstream_eval

    from dualview_plugin.bridges.quanda import QuandaExplainer

WORLD = small_world()
TARGETS = torch.arange(N_TEST) % 5


def explainer(**options: object) -> QuandaExplainer:
    arguments = {"method": "DualView", "final_fc_layer": "fc", "C": 0.05, **options}
    return QuandaExplainer(model=WORLD.model, train_dataset=WORLD.train, **arguments)


def test_explanations_are_the_methods_own() -> None:
    ours = DualView(WORLD.model, "fc", WORLD.train, C=0.05, show_progress=False)
    for targets in (TARGETS, TARGETS.tolist()):
        torch.testing.assert_close(explainer().explain(WORLD.x_test, targets), ours.attribute(WORLD.x_test, TARGETS))


@pytest.mark.parametrize("method", ["DualView", "InfluenceFunctions", "RepresenterPoints", "RandomAttribution"])
def test_quandas_class_detection_is_our_identical_class(method: str) -> None:
    options = {"C": 0.05} if method == "DualView" else {}
    made = QuandaExplainer(WORLD.model, WORLD.train, method=method, final_fc_layer="fc", **options)
    theirs = downstream_eval.ClassDetectionMetric(WORLD.model, WORLD.train, s=1)
    theirs.update(made.explain(WORLD.x_test, TARGETS), TARGETS)
    metric = IdenticalClass()
    ours = metric(WORLD.model, WORLD.x_test.numpy(), TARGETS.numpy(), explain_func=made.method)
    assert theirs.compute()["score"] == pytest.approx(np.mean(ours))


def test_quandas_ranking_by_self_influence_is_ours() -> None:
    poisoned = [1, 4, 11, 30]
    made = QuandaExplainer(WORLD.model, WORLD.train, method="InfluenceFunctions", final_fc_layer="fc")
    values = made.method.self_influence()
    spaced = made.self_influence() + torch.arange(N_TRAIN) * 1e-4  # what quanda sorts
    assert spaced.argsort().tolist() == values.argsort(stable=True).tolist()
    theirs = downstream_eval.MislabelingDetectionMetric(
        WORLD.model,
        WORLD.train,
        poisoned,
        explainer_cls=QuandaExplainer,
        expl_kwargs={"method": "InfluenceFunctions", "final_fc_layer": "fc"},
    )
    ours = LabelPoisoning(poisoned, ranking="self_influence")
    ours(WORLD.model, WORLD.x_test.numpy(), TARGETS.numpy(), explain_func=made.method)
    np.testing.assert_allclose(theirs.compute()["curve"], ours.curve[1:], atol=1e-6)


def test_the_last_checkpoint_is_explained(tmp_path: Path) -> None:
    other, path = copy.deepcopy(WORLD.model), tmp_path / "weights.pt"
    torch.save(other.state_dict(), path)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    made = QuandaExplainer(other, WORLD.train, checkpoints=str(path), final_fc_layer="fc", C=0.05)
    torch.testing.assert_close(
        made.explain(WORLD.x_test, TARGETS), explainer().explain(WORLD.x_test, TARGETS), rtol=1e-4, atol=1e-5
    )


def test_a_method_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="method of QuandaExplainer"):
        explainer(method="nonsense")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_example_finds_the_class() -> None:
    from examples.in_quanda import main

    scores = main()
    assert scores["DualView"] > 0.9
    assert scores["RandomAttribution"] < 0.3
