"""Gaussian projections against the explicit matrix, and the estimator's mean and variance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dualview_plugin.gradients import GaussianProjection, PerSampleGradients, SampleGradients
from tests.conftest import TOLERANCES
from tests.gradients.networks import gradient_by_gradient, make

EXACT = TOLERANCES[torch.float64]
N_COMPONENTS = 13


def setting(name: str) -> tuple[PerSampleGradients, SampleGradients, Tensor]:
    """Gradients of a network in factors, and as a matrix."""
    model, inputs, target = make(name)
    per_sample = PerSampleGradients(model)
    return per_sample, per_sample(inputs, target), gradient_by_gradient(model, inputs, target)


def explicit(per_sample: PerSampleGradients, gradients: SampleGradients, n_components: int, seed: int) -> Tensor:
    """The projection as a matrix (n_components, n_parameters): the adjoint at each unit vector."""
    unit = torch.eye(n_components, dtype=torch.float64)
    return per_sample.flatten(*GaussianProjection(n_components, seed).adjoint(unit, gradients))


@pytest.mark.parametrize("name", ["tied", "tied large", "words", "wide convolution", "custom"])
def test_projection_is_a_matrix_product(name: str) -> None:
    per_sample, gradients, whole = setting(name)
    matrix = explicit(per_sample, gradients, N_COMPONENTS, seed=3)
    assert matrix.shape == (N_COMPONENTS, per_sample.n_parameters)
    torch.testing.assert_close(GaussianProjection(N_COMPONENTS, 3)(gradients), whole @ matrix.mT, **EXACT)


@pytest.mark.parametrize("name", ["tied large", "words"])
@pytest.mark.parametrize("limit", ["_TERMS", "_DENSE_BLOCK"])
def test_projection_in_other_blocks(name: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    per_sample, gradients, whole = setting(name)
    monkeypatch.setattr(f"dualview_plugin.gradients.projection.{limit}", 17)
    matrix = explicit(per_sample, gradients, N_COMPONENTS, seed=3)
    torch.testing.assert_close(GaussianProjection(N_COMPONENTS, 3)(gradients), whole @ matrix.mT, **EXACT)


def test_projection_of_a_sample_does_not_depend_on_its_batch() -> None:
    model, inputs, target = make("tied large")
    per_sample, projection = PerSampleGradients(model), GaussianProjection(N_COMPONENTS, 3)
    whole = projection(per_sample(inputs, target))
    alone = torch.cat([projection(per_sample(inputs[i : i + 1], target[i : i + 1])) for i in range(len(inputs))])
    torch.testing.assert_close(whole, alone, **EXACT)
    assert not torch.allclose(whole, GaussianProjection(N_COMPONENTS, 4)(per_sample(inputs, target)))


def test_entries_are_normal_with_variance_one_over_n_components() -> None:
    per_sample, gradients, _ = setting("tied large")
    used = explicit(per_sample, gradients, 97, seed=0) * 97**0.5
    assert abs(float(used.mean())) < 4 / used.numel() ** 0.5
    assert float(used.square().mean()) == pytest.approx(1, abs=4 * (2 / used.numel()) ** 0.5)
    assert float(used.pow(4).mean()) == pytest.approx(3, abs=4 * (96 / used.numel()) ** 0.5)
    rows, columns = torch.corrcoef(used), torch.corrcoef(used.mT)
    assert float((rows - torch.eye(len(rows))).abs().max()) < 6 / used.shape[1] ** 0.5
    assert float((columns - torch.eye(len(columns))).abs().max()) < 6 / used.shape[0] ** 0.5


def test_estimate_is_unbiased_with_the_stated_variance() -> None:
    _, gradients, whole = setting("tied")
    exact, squares = whole @ whole.mT, whole.square().sum(1)
    n_seeds, n_components = 200, 5
    projected = torch.stack([GaussianProjection(n_components, seed)(gradients) for seed in range(n_seeds)])
    estimates = projected @ projected.mT
    variance = (squares[:, None] * squares + exact**2) / n_components
    deviations = (estimates.mean(0) - exact) / (variance / n_seeds).sqrt()
    assert float(deviations.abs().max()) < 4.5
    torch.testing.assert_close(estimates.var(0), variance, rtol=0.5, atol=0)
