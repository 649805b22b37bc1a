"""InfluenceFunctions against autograd's Hessian, and against leaving points out and training again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import InfluenceFunctions
from dualview_plugin.errors import ConvergenceWarning, DivergenceError, DualViewError
from dualview_plugin.last_layer import fit_softmax_regression
from tests.gradients.networks import N_CLASSES, Tied

N_TRAIN, N_TEST = 53, 5
TARGET = torch.tensor([4, 0, 1, 2, 0])


def tied_world() -> tuple[nn.Module, TensorDataset, Tensor]:
    """A network with convolution, batch norm, biases and a tied layer; training data; test inputs."""
    model, x = Tied(), torch.randn(N_TRAIN, 2, 3, 23)
    model.train()(x)
    return model, TensorDataset(x, torch.arange(N_TRAIN) % N_CLASSES), torch.randn(N_TEST, 2, 3, 23)


def influence(**options: Any) -> tuple[InfluenceFunctions, Tensor]:
    model, train, x = tied_world()
    return InfluenceFunctions(model, "fc", train, show_progress=False, **options), x


def by_autograd(method: InfluenceFunctions, x: Tensor) -> Tensor:
    """The formula with the Hessian and the gradients that torch.autograd finds, in double precision."""
    model = Tied().double().eval()
    model.load_state_dict(method.model.state_dict())
    x_train, labels = method.train_dataset.tensors
    names = ["fc.weight", "fc.bias"] if method.include_bias else ["fc.weight"]
    sizes = [model.get_parameter(name).numel() for name in names]

    def loss(vector: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        parts = zip(names, vector.split(sizes), strict=True)
        parameters = {name: part.view_as(model.get_parameter(name)) for name, part in parts}
        return cross_entropy(torch.func.functional_call(model, parameters, inputs.double()), targets)

    vector = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    hessian = torch.autograd.functional.hessian(lambda v: loss(v, x_train, labels), vector)
    hessian += method.damping * torch.eye(len(vector))
    test, train = (
        torch.stack([torch.func.grad(loss)(vector, inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))])
        for inputs, targets in ((x, TARGET), (x_train, labels))
    )
    return test @ torch.linalg.solve(hessian, train.mT)


@pytest.mark.parametrize("include_bias", [False, True])
@pytest.mark.parametrize("damping", [1e-3, 0.01, 1.0])
def test_exact_is_autograds_hessian(include_bias: bool, damping: float) -> None:
    method, x = influence(include_bias=include_bias, damping=damping, batch_size=7)
    expected = by_autograd(method, x)
    found = method.attribute(x, TARGET)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("include_bias", [False, True])
def test_cg_meets_its_tolerance(include_bias: bool) -> None:
    method, x = influence(solver="cg", include_bias=include_bias)
    expected = by_autograd(method, x)
    assert (method.attribute(x, TARGET) - expected).norm() <= 1e-4 * expected.norm()
    coarse, _ = influence(solver="cg", include_bias=include_bias, tol=0.3)
    assert (coarse.attribute(x, TARGET) - expected).norm() > 1e-3 * expected.norm()


def test_lissa_is_within_a_fifth() -> None:
    method, x = influence(solver="lissa", damping=0.05)
    expected = by_autograd(method, x)
    assert (method.attribute(x, TARGET) - expected).norm() <= 0.2 * expected.norm()


def test_lissa_raises_on_divergence_and_warns_when_it_stops_early() -> None:
    method, x = influence(solver="lissa", scale=1e-3)
    with pytest.raises(DivergenceError, match=r"LiSSA diverged with scale 0\.001"):
        method.attribute(x, TARGET)
    method, x = influence(solver="lissa", max_iter=3)
    with pytest.warns(ConvergenceWarning, match="LiSSA stopped at relative residual"):
        method.attribute(x, TARGET)


def test_positive_means_that_leaving_out_raises_the_loss() -> None:
    """Train a regularised linear network, leave each point out, train again: the loss changes by τ/n_train."""
    weight_decay, n_train = 0.02, 41
    features, labels = torch.randn(n_train, 3, dtype=torch.float64), torch.arange(n_train) % 4
    features[:, 0] += labels
    soft = one_hot(labels, 4).double()

    def fitted(kept: Tensor) -> Tensor:
        """The minimiser of (1/n_train) Σ over the kept points of the loss, plus the same penalty."""
        penalty = weight_decay * n_train / len(kept)
        start = torch.zeros(4, 3)
        fit = fit_softmax_regression(features[kept], soft[kept], penalty, start=start, tol=1e-10, max_iter=50)
        return fit.weight

    x, target = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    everyone = torch.arange(n_train)
    model = nn.Sequential(nn.Linear(3, 4, bias=False)).double()
    model[0].weight.data = fitted(everyone)

    def losses(weight: Tensor) -> Tensor:
        return cross_entropy(x @ weight.mT, target, reduction="none")

    rises = torch.stack(
        [losses(fitted(everyone[everyone != i])) - losses(model[0].weight.detach()) for i in everyone], 1
    )
    train = TensorDataset(features, labels)
    method = InfluenceFunctions(model, "0", train, damping=2 * weight_decay, show_progress=False)
    predicted = method.attribute(x, target) / n_train
    assert np.corrcoef(predicted.flatten(), rises.flatten())[0, 1] > 0.99
    torch.testing.assert_close(predicted, rises, rtol=0.5, atol=0.1 * float(rises.abs().max()))


def test_block_size_counts_solver_vectors_and_attributions(monkeypatch: pytest.MonkeyPatch) -> None:
    method, x = influence()
    expected = method.attribute(x, TARGET)
    monkeypatch.setattr("dualview_plugin.attribution.influence_functions._BLOCK_BYTES", 20_000)
    monkeypatch.setattr("dualview_plugin.attribution.influence_functions._GRADIENT_ELEMENTS", 1000)
    assert method.block_size == 20_000 // (48 * 33 * N_CLASSES + 4 * N_TRAIN) < N_TEST
    torch.testing.assert_close(method.attribute(x, TARGET), expected)


@pytest.mark.parametrize(
    "options",
    [{"solver": "newton"}, {"damping": 0}, {"damping": -1.0}, {"tol": 0}, {"max_iter": 0}, {"scale": 0}, {"seed": -1}],
)
def test_bad_parameters_are_refused(options: dict[str, Any]) -> None:
    (parameter,) = options
    with pytest.raises(DualViewError, match=f"{parameter} of InfluenceFunctions must be"):
        influence(**options)
