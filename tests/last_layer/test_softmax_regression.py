"""Softmax regression on soft labels: stationarity, the representer identity, another optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.last_layer import fit_softmax_regression

N_TRAIN, N_FEATURES, N_CLASSES = 97, 11, 5


def problem(scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Features in single precision, soft labels."""
    features = scale * torch.randn(N_TRAIN, N_FEATURES).relu()
    return features, torch.randn(N_TRAIN, N_CLASSES, dtype=torch.float64).mul(3).softmax(1)


def objective(weight: Tensor, features: Tensor, soft: Tensor, weight_decay: float) -> Tensor:
    fit = -(soft * (features.double() @ weight.mT).log_softmax(1)).sum(1).mean()
    return fit + weight_decay * weight.square().sum()


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_fit_is_stationary_and_reconstructs_its_weights(scale: float, tol: float, start: float) -> None:
    features, soft = problem(scale)
    weight_decay = 0.003
    first = start * torch.randn(N_CLASSES, N_FEATURES)
    fit = fit_softmax_regression(features, soft, weight_decay, start=first, tol=tol, max_iter=100)
    alpha = (soft - fit.probabilities) / (2 * weight_decay * N_TRAIN)
    error = float((alpha.mT @ features.double() - fit.weight).norm() / fit.weight.norm())
    assert fit.stationarity <= tol
    assert error == pytest.approx(fit.stationarity, rel=1e-3, abs=1e-11)
    weight = fit.weight.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(weight, features, soft, weight_decay), weight)
    assert float(gradient.norm()) <= 1.001 * tol * 2 * weight_decay * float(fit.weight.norm()) + 1e-15


def test_fit_is_the_minimum_of_another_optimiser() -> None:
    features, soft = problem()
    fit = fit_softmax_regression(
        features, soft, 0.003, start=torch.zeros(N_CLASSES, N_FEATURES), tol=1e-9, max_iter=100
    )
    weight = torch.zeros(N_CLASSES, N_FEATURES, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=1000, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(weight, features, soft, 0.003)
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(fit.weight, weight.detach(), rtol=1e-5, atol=1e-6)


def test_fit_in_other_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, soft = problem()
    start = torch.zeros(N_CLASSES, N_FEATURES)
    expected = fit_softmax_regression(features, soft, 0.01, start=start, tol=1e-9, max_iter=100)
    monkeypatch.setattr("dualview_plugin.last_layer.softmax_regression._ROWS", 13)
    found = fit_softmax_regression(features, soft, 0.01, start=start, tol=1e-9, max_iter=100)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-8, atol=1e-10)


def test_fit_that_stops_early_warns_with_its_figures() -> None:
    features, soft = problem()
    start = torch.randn(N_CLASSES, N_FEATURES)
    with pytest.warns(
        ConvergenceWarning, match=r"after 1 steps at stationarity .*, above tol 1\.0e-09: raise max_iter"
    ):
        fit = fit_softmax_regression(features, soft, 0.003, start=start, tol=1e-9, max_iter=1)
    assert (fit.n_iter, fit.stationarity > 1e-9) == (1, True)
