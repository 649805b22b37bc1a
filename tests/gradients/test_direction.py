"""Directions in parameters and the derivative along them against whole vectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.gradients import Direction, PerSampleGradients
from tests.conftest import TOLERANCES
from tests.gradients.networks import NAMES, gradient_by_gradient, make
from tests.untouched import assert_untouched

EXACT = TOLERANCES[torch.float64]
OVER_NETWORKS = pytest.mark.parametrize("name", NAMES)


def summed(
    per_sample: PerSampleGradients, model: nn.Module, inputs: Tensor, target: Tensor
) -> tuple[Direction, Tensor]:
    """The sum of all gradients in factors, and as a vector."""
    return per_sample.sum_of(per_sample(inputs, target)), gradient_by_gradient(model, inputs, target).sum(0)


@OVER_NETWORKS
def test_the_sum_of_gradients_is_that_of_the_vectors(name: str) -> None:
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    first, expected = summed(per_sample, model, inputs, target)
    torch.testing.assert_close(first.vector(), expected, **EXACT)
    second, more = summed(per_sample, model, inputs[:2], target[:2])
    factor = torch.tensor(-0.3, dtype=torch.float64)
    torch.testing.assert_close(first.plus(second.scaled(factor)).vector(), expected + factor * more, **EXACT)
    torch.testing.assert_close(per_sample.split_vector(expected).vector(), expected)


@OVER_NETWORKS
@pytest.mark.parametrize("n_samples", [1, 5])
def test_the_derivative_along_a_direction(name: str, n_samples: int) -> None:
    """One sample's gradient stays in factors; that of several may be a matrix."""
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    direction, vector = summed(per_sample, model, inputs[:n_samples], target[:n_samples])
    expected = gradient_by_gradient(model, inputs, target) @ vector
    with assert_untouched(model):
        pairs = zip(inputs, target, strict=True)
        found = torch.stack([per_sample.derivative_along(x[None], c, direction).detach() for x, c in pairs])
    torch.testing.assert_close(found, expected, **EXACT)


def test_the_derivative_is_differentiable() -> None:
    model, inputs, target = make("tied large")
    per_sample = PerSampleGradients(model)
    direction, _ = summed(per_sample, model, inputs[1:3], target[1:3])
    sample = inputs[:1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: per_sample.derivative_along(x, target[0], direction), sample)


def test_parameters_keep_the_hooks_that_they_had() -> None:
    model, inputs, target = make("tied")
    seen: list[Tensor] = []
    model.fc.weight.register_hook(seen.append)
    before = [parameter._backward_hooks for parameter in model.parameters()]
    per_sample = PerSampleGradients(model)
    direction, _ = summed(per_sample, model, inputs[:1], target[:1])
    per_sample.derivative_along(inputs[:1], target[0], direction)
    for parameter, hooks in zip(model.parameters(), before, strict=True):
        assert parameter._backward_hooks is hooks
    assert len(model.fc.weight._backward_hooks) == 1
