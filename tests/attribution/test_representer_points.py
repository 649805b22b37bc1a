"""RepresenterPoints: the reconstruction of the retrained weights, completeness, the formula, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dualview_plugin.attribution import RepresenterPoints
from dualview_plugin.errors import ConvergenceWarning, DualViewError
from dualview_plugin.features import FeatureExtractor
from tests.worlds import N_TEST, N_TRAIN, World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])


def representer(world: World, **options: Any) -> RepresenterPoints:
    return RepresenterPoints(world.model, "fc", world.train, show_progress=False, **options)


@pytest.mark.parametrize("weight_decay", [1e-4, 0.003, 1.0])
@pytest.mark.parametrize("tol", [1e-3, 1e-8])
def test_coefficients_reconstruct_the_retrained_weights(weight_decay: float, tol: float) -> None:
    method = representer(small_world(dtype=torch.float64), weight_decay=weight_decay, tol=tol).fit()
    weight = method.surrogate_weight_
    error = float((method.dual_coef_.mT @ method.support_features_ - weight).norm() / weight.norm())
    assert method.regression_.stationarity <= tol
    assert error == pytest.approx(method.regression_.stationarity, rel=1e-2, abs=1e-12)


def test_reconstruction_in_single_precision() -> None:
    method = representer(small_world()).fit()
    weight = method.surrogate_weight_
    assert float((method.dual_coef_.mT @ method.support_features_ - weight).norm() / weight.norm()) < 1e-5


def test_attribution_is_the_formula() -> None:
    world = small_world()
    method = representer(world, weight_decay=0.01, tol=1e-8)
    found = method.attribute(world.x_test, TARGET)
    extract = FeatureExtractor(world.model, "fc")
    features, logits = (part.detach().double() for part in extract(world.train.tensors[0]))
    test, _ = (part.detach().double() for part in extract(world.x_test))
    retrained = (features @ method.regression_.weight.mT).softmax(1)
    for t in range(N_TEST):
        for i in range(N_TRAIN):
            c = TARGET[t]
            alpha = (logits.softmax(1)[i, c] - retrained[i, c]) / (2 * 0.01 * N_TRAIN)
            assert float(found[t, i]) == pytest.approx(float(alpha * (features[i] @ test[t])), rel=1e-3, abs=1e-5)


def test_attributions_add_up_to_the_retrained_logit() -> None:
    world = small_world(dtype=torch.float64)
    method = representer(world, tol=1e-10)
    total = method.attribute(world.x_test, TARGET).sum(1)
    logits = method.surrogate_logits(world.x_test)[torch.arange(N_TEST), TARGET]
    torch.testing.assert_close(total, logits, rtol=1e-7, atol=1e-8)


def test_a_weak_penalty_keeps_the_networks_decisions() -> None:
    world = small_world()
    world.model.fc.bias.data.zero_()
    decisions = world.model.eval()(world.x_test).argmax(1)
    method = representer(world, weight_decay=1e-6)
    assert torch.equal(method.surrogate_logits(world.x_test).argmax(1), decisions)


def test_a_fit_that_stops_early_warns_with_its_figures() -> None:
    with pytest.warns(ConvergenceWarning, match=r"after 1 steps at stationarity .* above tol 1\.0e-12: raise max_iter"):
        representer(small_world(), tol=1e-12, max_iter=1).fit()


@pytest.mark.parametrize("options", [{"weight_decay": 0}, {"tol": 0}, {"max_iter": 0}])
def test_bad_parameters_are_refused(options: dict[str, Any]) -> None:
    (parameter,) = options
    with pytest.raises(DualViewError, match=f"{parameter} of RepresenterPoints must be"):
        representer(small_world(), **options)


@pytest.mark.filterwarnings("ignore::dualview_plugin.errors.ConvergenceWarning")
@pytest.mark.parametrize("weight_decay", [pytest.param(1e-300, marks=pytest.mark.slow), 1e300])
def test_a_penalty_without_coefficients_is_refused(weight_decay: float) -> None:
    with pytest.raises(DualViewError, match="weight_decay of RepresenterPoints must be of a size"):
        representer(small_world(), weight_decay=weight_decay).fit()


@pytest.mark.parametrize("layer", ["hidden", "dropout"])
def test_a_layer_that_is_not_the_last_is_refused(layer: str) -> None:
    world = small_world()
    with pytest.raises(DualViewError, match=r"final_fc_layer of RepresenterPoints must be .* the last one .* is 'fc'"):
        RepresenterPoints(world.model, layer, world.train, show_progress=False).fit()


def test_a_network_without_a_preference_is_refused() -> None:
    world = small_world()
    for parameter in world.model.get_submodule("fc").parameters():
        torch.nn.init.zeros_(parameter)
    with pytest.raises(DualViewError, match="model of RepresenterPoints must be a network that prefers some class"):
        RepresenterPoints(world.model, "fc", world.train).fit()
