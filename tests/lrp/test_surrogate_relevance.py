"""LRP of the surrogate's logit is the sum of the pairwise relevances, and Quantus takes it for a saliency map."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import quantus
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from zennit.composites import EpsilonPlus, EpsilonPlusFlat

from dualview_plugin.attribution import DualView, RandomAttribution
from dualview_plugin.errors import ConservationWarning, InvalidTypeError, InvalidValueError
from dualview_plugin.lrp import PairwiseRelevance, SurrogateRelevance
from tests.lrp.kernel_world import N_TEST, N_TRAIN, SHAPE, cnn, images, kernel

X_TEST, TARGET = images(N_TEST, seed=1), torch.tensor([2, 0, 4])


@pytest.mark.parametrize("composite", [EpsilonPlus(), EpsilonPlusFlat(zero_params="bias")], ids=["plus", "flat"])
@pytest.mark.parametrize("options", [{}, {"standardize": False, "offset": 1.0}, {"batch_size": 2}], ids=str)
def test_it_is_the_sum_over_all_training_points(composite, options):
    method = kernel(cnn(bias=True), **options)
    pairs = PairwiseRelevance(method, composite).attribute(X_TEST, TARGET, train_indices=torch.arange(N_TRAIN))
    found = SurrogateRelevance(method, composite).attribute(X_TEST, TARGET)
    torch.testing.assert_close(found, pairs.test_relevance.sum(dim=1), rtol=1e-7, atol=1e-10)
    logits = method.surrogate_logits(X_TEST).gather(1, TARGET[:, None]).squeeze(1)
    torch.testing.assert_close(pairs.attribution.sum(dim=1), logits, rtol=1e-7, atol=1e-10)


def test_without_biases_it_sums_to_the_surrogates_logit():
    method = kernel()
    found = SurrogateRelevance(method, EpsilonPlus()).attribute(X_TEST, TARGET)
    logits = method.surrogate_logits(X_TEST).gather(1, TARGET[:, None]).squeeze(1)
    torch.testing.assert_close(found.flatten(1).sum(dim=1), logits, rtol=0.01, atol=0)


def test_without_a_composite_it_is_gradient_times_input():
    method = kernel()
    strongest = method.strongest(X_TEST, 2, TARGET).indices
    point = X_TEST.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(method._pair_attribution(point, TARGET, strongest).sum(), point)
    torch.testing.assert_close(method.input_attribution(X_TEST, TARGET, k=2), gradient * X_TEST)


class Bent(nn.Module):
    """A network whose activations are a function that keeps little of what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc = nn.Linear(6, 20, bias=False), nn.Linear(20, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.fc(torch.where(z > 0.3, 0.3, z))


def test_relevance_that_is_lost_is_reported_at_the_line_of_the_caller():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(20, 6), torch.arange(20) % 3)
    method = DualView(Bent(), "fc", data, C=0.1, show_progress=False)
    relevance = SurrogateRelevance(method, "epsilon_plus")
    with pytest.warns(ConservationWarning, match=r"relevance is not conserved in \d+ of 4 heatmaps") as caught:
        relevance.attribute(torch.randn(4, 6))
    assert caught[0].filename == __file__
    with pytest.warns(ConservationWarning, match="relevance is not conserved"):
        relevance(method.model, torch.randn(4, 6), np.arange(4) % 3)


def test_the_callable_gives_the_map_as_an_array():
    method = kernel()
    explain = SurrogateRelevance(method, "epsilon_plus")
    found = explain(method.model, X_TEST, TARGET.numpy(), method="ignored")
    assert isinstance(found, np.ndarray)
    assert found.shape == (N_TEST, *SHAPE)
    expected = SurrogateRelevance(method, EpsilonPlus()).attribute(X_TEST, TARGET)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-7)


def test_another_network_gets_a_fit_of_its_own():
    method = kernel()
    other = copy.deepcopy(method.model)
    torch.nn.init.normal_(other.hidden.weight)
    found = SurrogateRelevance(method, EpsilonPlus())(other, X_TEST, TARGET)
    expected = SurrogateRelevance(kernel(other), EpsilonPlus()).attribute(X_TEST, TARGET)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-9)


class _SmallNet(torch.nn.Module):
    """A convolution, with a batch norm behind it or without, and a final layer."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = torch.nn.Conv2d(SHAPE[0], 6, 3), norm, torch.nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


def nets_without_and_with_a_batch_norm() -> list[_SmallNet]:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(6)
    norm.running_mean.normal_()
    torch.nn.init.uniform_(norm.weight, -2.0, 2.0)
    torch.nn.init.normal_(norm.bias)
    return [_SmallNet(layer).double().eval() for layer in (torch.nn.Identity(), norm)]


def test_a_composite_by_name_is_made_for_the_network_of_each_call():
    plain, normed = nets_without_and_with_a_batch_norm()
    expected = SurrogateRelevance(kernel(normed), "epsilon_plus").attribute(X_TEST, TARGET)
    explain = SurrogateRelevance(kernel(plain), "epsilon_plus")
    np.testing.assert_allclose(explain(normed, X_TEST, TARGET), expected.numpy(), rtol=1e-6, atol=1e-9)
    pairs = PairwiseRelevance(kernel(plain), "epsilon_plus")
    for owner in (explain, pairs):
        owner.method.model = normed
    torch.testing.assert_close(explain.attribute(X_TEST, TARGET), expected, rtol=1e-6, atol=1e-9)
    found = pairs.attribute(X_TEST, TARGET, train_indices=torch.arange(N_TRAIN)).test_relevance.sum(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_quantus_scores_it():
    model = cnn().float()
    train = TensorDataset(images(N_TRAIN).float(), torch.arange(N_TRAIN) % 5)
    dualview = DualView(model, "fc", train, C=1.0, show_progress=False)
    table = quantus.evaluate(
        metrics={"Sparseness": quantus.Sparseness(return_aggregate=False)},
        xai_methods={"LRP": SurrogateRelevance(dualview), "gradient": dualview},
        model=model,
        x_batch=X_TEST.float().numpy(),
        y_batch=TARGET.numpy(),
        explain_func_kwargs={},
        agg_func=np.mean,
    )
    assert 0 < table["LRP"]["Sparseness"] < 1


def test_refusals():
    method = RandomAttribution(cnn(), "fc", TensorDataset(images(N_TRAIN), torch.zeros(N_TRAIN, dtype=torch.int64)))
    with pytest.raises(InvalidTypeError, match=r"method of SurrogateRelevance must be a method with a feature kernel"):
        SurrogateRelevance(method)
    with pytest.raises(InvalidValueError, match=r"composite of SurrogateRelevance must be one of"):
        SurrogateRelevance(kernel(), "lrp")
