"""InfluenceFunctions against autograd's Hessian, and against leaving points out and training again."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import InfluenceFunctions
from dualview_plugin.errors import ConvergenceWarning, DivergenceError, DualViewError, PrecisionWarning
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.last_layer import CholeskyInverse, ConjugateGradientInverse, fit_softmax_regression
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
    monkeypatch.setattr("dualview_plugin.attribution.influence_functions._BLOCK_BYTES", 30_000)
    monkeypatch.setattr("dualview_plugin.attribution.influence_functions._SCORE_ELEMENTS", 1000)
    assert method.block_size == 30_000 // (56 * 33 * N_CLASSES + 8 * N_TRAIN) < N_TEST
    torch.testing.assert_close(method.attribute(x, TARGET), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_vectors", [1, 3, 70])
@pytest.mark.parametrize("elements", [1, 1000, 2**21])
def test_products_from_factors_are_those_with_the_gradients_written_out(
    n_vectors: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualview_plugin.attribution.influence_functions._SCORE_ELEMENTS", elements)
    method, _ = influence(include_bias=True)
    method.fit()
    gradients = method._gradients_at(torch.arange(N_TRAIN))
    vectors = torch.randn(n_vectors, *gradients.shape[1:], dtype=torch.float64)
    expected = vectors.flatten(1) @ gradients.flatten(1).mT
    torch.testing.assert_close(method._products(vectors, range(N_TRAIN)), expected)


@pytest.mark.parametrize(
    "options",
    [{"solver": "newton"}, {"damping": 0}, {"damping": -1.0}, {"tol": 0}, {"max_iter": 0}, {"scale": 0}, {"seed": -1}],
)
def test_bad_parameters_are_refused(options: dict[str, Any]) -> None:
    (parameter,) = options
    with pytest.raises(DualViewError, match=f"{parameter} of InfluenceFunctions must be"):
        influence(**options)


def confident_world(scale: float) -> tuple[nn.Module, TensorDataset, Tensor]:
    """A network in single precision whose logits differ by up to a few hundred."""
    model, train, x = tied_world()
    with torch.no_grad():
        model.fc.weight.mul_(scale)
    return model, train, x


def by_formula(method: InfluenceFunctions, x: Tensor, target: Tensor) -> Tensor:
    """The formula in double precision from the network's features; the label's residual is minus the others' sum."""
    extract, (x_train, labels) = FeatureExtractor(method.model, "fc"), method.train_dataset.tensors
    layer = method.model.fc
    gradients, probabilities = [], []
    for inputs, classes in ((x, target), (x_train, labels)):
        features = extract(inputs)[0].detach().double()
        p = (features @ layer.weight.detach().double().mT + layer.bias.detach().double()).softmax(1)
        residuals = p.masked_fill(one_hot(classes, N_CLASSES).bool(), 0.0)
        residuals[torch.arange(len(p)), classes] = -residuals.sum(1)
        gradients.append(torch.einsum("nc,nf->ncf", residuals, features).flatten(1))
        probabilities.append(p)
    spread = torch.diag_embed(probabilities[1]) - torch.einsum("na,nb->nab", probabilities[1], probabilities[1])
    hessian = torch.einsum("nab,nf,ng->afbg", spread, features, features).flatten(2).flatten(0, 1) / len(features)
    damped = hessian + method.damping * torch.eye(len(hessian), dtype=torch.float64)
    return gradients[0] @ torch.linalg.solve(damped, gradients[1].mT)


def assert_rows_agree(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Each row by itself, since rows differ by orders of magnitude."""
    assert found.dtype == torch.float64
    # The squares of 1e-200 underflow: compare after division by the largest entry.
    largest = expected.abs().amax(1, keepdim=True)
    assert (largest > 0).all()
    assert ((found - expected) / largest).norm(dim=1).max() <= tolerance * (expected / largest).norm(dim=1).min()


@pytest.mark.parametrize("scale", [1.0, 300.0, 2000.0])
@pytest.mark.parametrize(("solver", "tolerance"), [("exact", 1e-6), ("cg", 1e-3)])
def test_a_confident_network_in_single_precision(scale: float, solver: str, tolerance: float) -> None:
    model, train, x = confident_world(scale)
    method = InfluenceFunctions(model, "fc", train, solver=solver, show_progress=False)
    expected = by_formula(method, x, model.eval()(x).argmax(1))
    assert_rows_agree(torch.cat(list(method.attribute_blocks(x))), expected, tolerance)
    assert scale == 1.0 or expected.abs().max(1).values.min() < 1e-15


def test_self_influence_and_pairs_of_a_confident_network() -> None:
    model, train, _ = confident_world(300.0)
    decisions = model.eval()(train.tensors[0]).argmax(1)
    train = TensorDataset(train.tensors[0], decisions)
    method = InfluenceFunctions(model, "fc", train, show_progress=False)
    expected = by_formula(method, *train.tensors)
    with pytest.warns(PrecisionWarning, match="self-influences"):
        assert method.self_influence().dtype == torch.float32
    own = method._self_influence()
    torch.testing.assert_close(own, expected.diagonal(), rtol=1e-6, atol=0)
    assert own.min() < 1e-40
    indices = torch.arange(N_TRAIN)[:, None]
    pairs = method._pair_attribution(train.tensors[0].requires_grad_(), decisions, indices)
    torch.testing.assert_close(pairs.detach(), own[:, None], rtol=1e-6, atol=0)
    assert pairs.requires_grad


def test_lissa_of_a_confident_network() -> None:
    model, train, x = confident_world(30.0)
    method = InfluenceFunctions(model, "fc", train, solver="lissa", damping=0.1, show_progress=False, max_iter=20000)
    expected = by_formula(method, x, model.eval()(x).argmax(1))
    assert_rows_agree(torch.cat(list(method.attribute_blocks(x))), expected, 0.2)


def test_rows_too_small_for_single_precision_are_spoken_of_and_ranked() -> None:
    model, train, x = confident_world(300.0)
    method = InfluenceFunctions(model, "fc", train, show_progress=False)
    expected = by_formula(method, x, model.eval()(x).argmax(1))
    with pytest.warns(PrecisionWarning, match="influence.k. and attribute_blocks keep them"):
        assert method.attribute(x).dtype == torch.float32
    top = method.strongest(x, 5)
    torch.testing.assert_close(expected.gather(1, top.indices), expected.topk(5).values, rtol=1e-6, atol=0)


def test_auto_is_exact_within_the_budget_and_cg_beyond() -> None:
    weights = 33 * N_CLASSES
    model, train, x = tied_world()
    exact, within, beyond = (
        InfluenceFunctions(model, "fc", train, memory_budget=budget, show_progress=False)
        for budget in (2**30, 16 * weights**2, 16 * weights**2 - 1)
    )
    assert type(exact.fit()._inverse) is type(within.fit()._inverse) is CholeskyInverse
    assert type(beyond.fit()._inverse) is ConjugateGradientInverse
    torch.testing.assert_close(beyond.attribute(x, TARGET), exact.attribute(x, TARGET), rtol=1e-3, atol=1e-4)


class Counted(TensorDataset):
    """Training data that counts how often it is read."""

    reads = 0

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.reads += 1
        return super().__getitem__(index)


def test_exact_beyond_the_memory_is_refused_before_the_data_are_read() -> None:
    model = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 400_000, bias=False))
    train = Counted(torch.randn(97, 3), torch.arange(97))
    method = InfluenceFunctions(model, "1", train, solver="exact", show_progress=False)
    with pytest.raises(DualViewError, match="solver of InfluenceFunctions must be 'cg' or 'auto'"):
        method.attribute(torch.randn(2, 3))
    assert train.reads < 13


@pytest.mark.parametrize("solver", ["auto", "exact", "cg"])
@pytest.mark.parametrize("damping", [1e-30, 1e-17])
def test_a_damping_below_rounding_is_refused(solver: str, damping: float) -> None:
    method, x = influence(solver=solver, damping=damping)
    with pytest.raises(DualViewError, match="damping of InfluenceFunctions must be above the rounding"):
        method.attribute(x, TARGET)


@pytest.mark.parametrize("damping", [1e-30, 1e300])
def test_lissa_with_any_damping_gives_numbers_or_a_refusal(damping: float) -> None:
    method, x = influence(solver="lissa", damping=damping, max_iter=10)
    with warnings.catch_warnings(), contextlib.suppress(DualViewError):
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert method.attribute(x, TARGET).isfinite().all()


def test_a_tolerance_below_rounding_ends() -> None:
    method, x = influence(solver="cg", tol=1e-300)
    expected = by_autograd(method, x)
    assert (method.attribute(x, TARGET) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("layer", ["tied", "relu"])
def test_a_layer_that_is_not_the_last_is_refused(layer: str) -> None:
    model, train, x = tied_world()
    with pytest.raises(DualViewError, match="final_fc_layer of InfluenceFunctions must be"):
        InfluenceFunctions(model, layer, train, show_progress=False).attribute(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_the_twin(dtype: torch.dtype) -> None:
    model, train, x = tied_world()
    model, inputs = model.to(dtype), train.tensors[0].to(dtype)
    twin = Tied()
    twin.load_state_dict(model.state_dict())
    found = InfluenceFunctions(model, "fc", TensorDataset(inputs, train.tensors[1]), show_progress=False)
    expected = InfluenceFunctions(twin, "fc", TensorDataset(inputs.float(), train.tensors[1]), show_progress=False)
    wanted = expected.attribute(x.to(dtype).float(), TARGET)
    assert (found.attribute(x.to(dtype), TARGET) - wanted).norm() <= 0.1 * wanted.norm()


def test_a_bias_that_does_not_exist_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    data = TensorDataset(torch.randn(8, 3), torch.arange(8) % 2)
    method = InfluenceFunctions(network, "0", data, include_bias=True, show_progress=False)
    with pytest.raises(DualViewError, match=r"include_bias of InfluenceFunctions must be False .* without a bias"):
        method.fit()


@pytest.mark.parametrize("include_bias", [False, True])
@pytest.mark.parametrize("solver", ["exact", "cg"])
@pytest.mark.parametrize("n_outputs", [1, 4])
def test_one_output_has_the_curvature_of_its_own_weights(n_outputs: int, solver: Any, include_bias: bool) -> None:
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Linear(5, n_outputs)
    column = n_outputs - 1
    x, x_test = torch.randn(40, 6), torch.randn(3, 6)
    labels, target = (torch.rand(40, n_outputs) > 0.5).long(), torch.tensor([0, 1, 1])
    data = TensorDataset(x, labels[:, column] if n_outputs == 1 else labels)
    output = None if n_outputs == 1 else column
    options: dict[str, Any] = {"solver": solver, "include_bias": include_bias, "output": output, "show_progress": False}
    found = InfluenceFunctions(nn.Sequential(body, head), "1", data, **options).attribute(x_test, target)

    def rows(inputs: Tensor) -> Tensor:
        features = body(inputs).detach().double()
        return torch.cat([features, torch.ones(len(features), 1)], 1) if include_bias else features

    probability, at_test = (head(body(inputs))[:, column].detach().double().sigmoid() for inputs in (x, x_test))
    train, test = rows(x), rows(x_test)
    curvature = (probability * (1 - probability))[:, None]
    hessian = train.mT @ (curvature * train) / len(x) + 0.01 * torch.eye(train.shape[1])
    slopes = (probability - labels[:, column])[:, None] * train
    expected = (at_test - target)[:, None] * test @ torch.linalg.solve(hessian, slopes.mT)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
