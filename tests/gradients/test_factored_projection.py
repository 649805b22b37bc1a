"""Factored projections against the explicit matrix, and the estimator's mean and variance against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dualview_plugin.gradients import (
    FactoredProjection,
    OuterProducts,
    PerSampleGradients,
    SampleGradients,
    cheaper_projection,
)
from tests.conftest import TOLERANCES
from tests.gradients.networks import gradient_by_gradient, make

EXACT = TOLERANCES[torch.float64]
N_COMPONENTS = 13
SMALL = "dualview_plugin.gradients.factored_projection._SMALL"


def setting(name: str) -> tuple[nn.Module, PerSampleGradients, SampleGradients, Tensor]:
    """A network, its gradients in factors, and as a matrix."""
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    return model, per_sample, per_sample(inputs, target), gradient_by_gradient(model, inputs, target)


def projection(per_sample: PerSampleGradients, n_components: int, seed: int) -> FactoredProjection:
    return FactoredProjection(n_components, seed, per_sample.dense_shapes)


@pytest.mark.parametrize("small", [0, 30, 4096])
@pytest.mark.parametrize("name", ["tied", "tied large", "words", "wide convolution", "custom"])
def test_projection_is_a_matrix_product(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SMALL, small)
    _, per_sample, gradients, whole = setting(name)
    found = projection(per_sample, N_COMPONENTS, seed=3)
    unit = torch.eye(N_COMPONENTS, dtype=torch.float64)
    matrix = per_sample.flatten(*found.adjoint(unit, gradients))
    assert matrix.shape == (N_COMPONENTS, per_sample.n_parameters)
    torch.testing.assert_close(found(gradients), whole @ matrix.mT, **EXACT)


@pytest.mark.parametrize("name", ["tied large", "words", "wide convolution"])
def test_projection_in_other_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SMALL, 0)
    _, per_sample, gradients, _ = setting(name)
    expected = projection(per_sample, N_COMPONENTS, seed=3)(gradients)
    monkeypatch.setattr("dualview_plugin.gradients.factored_projection._FACTOR_ELEMENTS", 17)
    torch.testing.assert_close(projection(per_sample, N_COMPONENTS, seed=3)(gradients), expected, **EXACT)
    assert not torch.allclose(projection(per_sample, N_COMPONENTS, seed=4)(gradients), expected)


def test_each_row_of_the_map_of_a_matrix_is_an_outer_product() -> None:
    left, right = torch.randn(5, dtype=torch.float64), torch.randn(2000, dtype=torch.float64)
    dense = torch.outer(left, right).flatten()[None]
    found = FactoredProjection(N_COMPONENTS, 0, [torch.Size((5, 2000))])
    gradients = SampleGradients([dense], {})
    rows, _ = found.adjoint(torch.eye(N_COMPONENTS, dtype=torch.float64), gradients)
    ranks = torch.linalg.matrix_rank(rows.view(N_COMPONENTS, 5, 2000))
    assert ranks.tolist() == [1] * N_COMPONENTS
    torch.testing.assert_close(found(gradients), dense @ rows.mT, **EXACT)


@pytest.mark.parametrize("small", [0, 4096])
def test_estimate_is_unbiased_with_the_stated_variance(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SMALL, small)
    model, per_sample, gradients, whole = setting("tied large")
    exact, squares = whole @ whole.mT, whole.square().sum(1)
    sizes = {name: parameter.shape for name, parameter in model.named_parameters()}
    parts = torch.split(whole, [shape.numel() for shape in sizes.values()], 1)
    excess = torch.zeros_like(exact)
    for part, shape in zip(parts, sizes.values(), strict=True):
        if len(shape) < 2 or shape.numel() <= small:
            continue
        matrices = part.view(-1, *shape)
        for i, first in enumerate(matrices):
            for j, second in enumerate(matrices):
                outer = first @ second.mT
                excess[i, j] += (first.mT @ second).square().sum() + outer.square().sum() + (outer @ outer).trace()
    n_seeds, n_components = 4000, 5
    projected = torch.stack([projection(per_sample, n_components, seed)(gradients) for seed in range(n_seeds)])
    estimates = projected @ projected.mT
    variance = (squares[:, None] * squares + exact**2 + 2 * excess) / n_components
    deviations = (estimates.mean(0) - exact) / (variance / n_seeds).sqrt()
    assert float(deviations.abs().max()) < 4.5
    torch.testing.assert_close(estimates.var(0), variance, rtol=0.3, atol=0)
    assert bool((excess > 0).any()) == (small == 0)


@pytest.mark.parametrize(
    ("n_positions", "n_channels", "expected"),
    [(1, 70, True), (16, 512, True), (64, 256, True), (1024, 64, False), (1, 60, False)],
    ids=["linear layer", "last convolutions", "middle convolutions", "first convolutions", "small matrix"],
)
def test_the_form_that_is_projected_and_measured_with_fewer_products(
    n_positions: int, n_channels: int, expected: bool
) -> None:
    """The layers of a residual network: many positions with few channels first, few with many last."""
    product = OuterProducts(
        torch.zeros(1, n_positions, n_channels), torch.zeros(1, n_positions, n_channels), n_channels
    )
    assert cheaper_projection(product, 128) is expected


def test_the_form_does_not_change_gradients() -> None:
    model, inputs, target = make("wide convolution")
    expected = gradient_by_gradient(model, inputs, target)
    for prefers in (lambda product: True, lambda product: False):
        gradients = PerSampleGradients(model, prefers_outer=prefers)(inputs, target)
        torch.testing.assert_close(gradients.inner(gradients), expected @ expected.mT, **EXACT)
