"""Model Randomization: what changes with the network, what does not, and layer by layer against a slow reference."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from dualview_plugin.attribution import DualView, GradientSimilarity, RandomAttribution, RepresenterPoints, TracIn
from dualview_plugin.errors import DualViewError, InvalidValueError, NotApplicableWarning
from dualview_plugin.metrics import ModelRandomization, data_attribution
from dualview_plugin.metrics.randomised_networks import layers_from_the_top, randomised_networks
from tests.metrics.world import N_CLASSES, N_TEST, N_TRAIN, TRAIN_DATASET, X_TEST, decisions, network

Y = np.arange(N_TEST) % N_CLASSES
SIZES = {"show_progress": False}


def by_network(model: nn.Module, changed: Any) -> Any:
    """A known matrix for the network, and ``changed`` of it for every other."""
    rows = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN))

    @data_attribution
    def attributions(model: Any, inputs: np.ndarray, targets: np.ndarray, own: nn.Module = model) -> np.ndarray:
        found = [int(np.flatnonzero((point == X_TEST).all(axis=(1, 2, 3)))[0]) for point in inputs]
        return rows[found] if model is own else changed(rows[found])

    return attributions


def test_unchanged_reversed_and_random() -> None:
    model, metric = network(), ModelRandomization()
    draws = np.random.default_rng(1)
    for changed, expected in ((lambda rows: rows * 3, 1), (lambda rows: -rows, -1), (np.zeros_like, np.nan)):
        scores = metric(model, X_TEST, Y, explain_func=by_network(model, changed), batch_size=4)
        np.testing.assert_allclose(scores, expected)
    anew = by_network(model, lambda rows: draws.normal(size=rows.shape))
    scores = [np.mean(metric(model, X_TEST, Y, explain_func=anew)) for _ in range(30)]
    assert abs(np.mean(scores)) < 5 / np.sqrt(30 * N_TEST * (N_TRAIN - 1))


@pytest.mark.parametrize("kind", [DualView, RepresenterPoints, GradientSimilarity])
@pytest.mark.parametrize("explained", ["y_batch", "decision"])
def test_each_step_is_a_method_made_for_the_randomised_network(kind: Any, explained: Any) -> None:
    model = network().eval()
    method = kind(model, "fc", TRAIN_DATASET, **SIZES).fit()
    metric = ModelRandomization(variant="cumulative", explained_class=explained, seed=3)
    scores = metric(model, X_TEST, Y, explain_func=method)
    target = torch.from_numpy(Y if explained == "y_batch" else decisions(model))
    own = method.attribute(torch.from_numpy(X_TEST), target).numpy()
    expected = {}
    for name, other in randomised_networks(model, ["fc", "hidden"], 3):
        matrix = kind(other, "fc", TRAIN_DATASET, **SIZES).attribute(torch.from_numpy(X_TEST), target).numpy()
        expected[name] = [spearmanr(a, b).statistic for a, b in zip(own, matrix, strict=True)]
    assert list(metric.correlations["attributions"]) == ["fc", "hidden"]
    for name, values in expected.items():
        np.testing.assert_allclose(metric.correlations["attributions"][name], values, atol=1e-4)
    np.testing.assert_allclose(scores, np.mean(list(expected.values()), axis=0), atol=1e-4)
    assert method.for_model(model) is method
    assert method._refitted is None
    full = ModelRandomization(explained_class=explained, seed=3)(model, X_TEST, Y, explain_func=method)
    assert not np.allclose(full, scores)


def test_a_method_that_does_not_look_at_the_network_scores_one() -> None:
    model = network()
    method = RandomAttribution(model, "fc", TRAIN_DATASET, **SIZES)
    np.testing.assert_allclose(ModelRandomization()(model, X_TEST, Y, explain_func=method), 1)


def test_networks_are_copies_and_change_from_the_top() -> None:
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first, second = (step for _, step in randomised_networks(model, layers_from_the_top(model, None, "test"), 0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(first.fc.weight, model.fc.weight)
    assert torch.equal(first.hidden.weight, model.hidden.weight)
    assert torch.equal(second.fc.weight, first.fc.weight)
    assert not torch.equal(second.hidden.weight, model.hidden.weight)


def test_parameters_without_a_reset_change_places() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(30.0).view(5, 6))

    model = Scaled()
    ((_, other),) = randomised_networks(model, [""], 0)
    assert not torch.equal(other.scale, model.scale)
    assert torch.equal(other.scale.flatten().sort().values, model.scale.flatten())


def test_what_explains_no_other_network_scores_nan() -> None:
    with pytest.warns(NotApplicableWarning, match="attributions explains no other network"):
        scores = ModelRandomization()(network(), X_TEST, Y, a_batch=np.ones((N_TEST, N_TRAIN)))
    assert len(scores) == N_TEST
    assert np.isnan(scores).all()


def test_wrong_calls() -> None:
    with pytest.raises(DualViewError, match="variant of ModelRandomization must be one of 'full', 'cumulative', got"):
        ModelRandomization(variant="half")  # type: ignore[arg-type]
    with pytest.raises(DualViewError, match="seed of ModelRandomization must be an integer of at least 0, got -1"):
        ModelRandomization(seed=-1)
    method = DualView(network(), "fc", TRAIN_DATASET, **SIZES)
    for layers, got in ((["dropout"], "dropout"), ([], "none")):
        with pytest.raises(InvalidValueError, match=f"layers of ModelRandomization must be some of .* got .*{got}"):
            ModelRandomization(layers=layers)(network(), X_TEST, Y, explain_func=method)


def test_checkpoints_of_one_network_score_nan() -> None:
    model = network()
    method = TracIn(model, "fc", TRAIN_DATASET, checkpoints=[model.state_dict()], show_progress=False)
    metric = ModelRandomization()
    with pytest.warns(NotApplicableWarning, match="explains no other network"):
        scores = metric(model, X_TEST, Y, explain_func=method, explain_func_kwargs={})
    assert np.isnan(scores).all()
    assert len(scores) == N_TEST
