"""Every method on every kind of network and batch: equal to the formula written out sample by sample, or refused."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from torch import Tensor

from dualview_plugin import (
    DataAttribution,
    DualView,
    GradientSimilarity,
    IdenticalClass,
    InfluenceFunctions,
    InvalidValueError,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
    solve_crammer_singer,
)
from dualview_plugin.network import guest
from tests.attribution.network_kinds import KINDS, N_TEST, N_TRAIN, Kind
from tests.untouched import assert_untouched

METHODS: dict[str, tuple[type[DataAttribution], dict[str, Any]]] = {
    "DualView": (DualView, {"C": 0.5, "standardize": False, "tol": 1e-9}),
    "GradientSimilarity": (GradientSimilarity, {}),
    "InfluenceFunctions": (InfluenceFunctions, {"solver": "exact", "damping": 0.1}),
    "ProjectedGradientSimilarity": (ProjectedGradientSimilarity, {"n_components": 5}),
    "RandomAttribution": (RandomAttribution, {}),
    "RepresenterPoints": (RepresenterPoints, {"weight_decay": 0.05, "tol": 1e-8}),
}
REFUSED = {("cosine head", "InfluenceFunctions"), ("cosine head", "RepresenterPoints")}


@cache
def kind_of(name: str) -> Kind:
    torch.manual_seed(3)
    return KINDS[name]()


@cache
def fitted(name: str, method: str) -> DataAttribution:
    kind = kind_of(name)
    cls, options = METHODS[method]
    made = cls(kind.model, kind.layer, kind.train, batch_size=5, show_progress=False, **options, **kind.options)
    with assert_untouched(kind.model):
        return made.fit()


def stacked(kind: Kind, function: Any, samples: list[Any]) -> Tensor:
    """A function's values sample by sample."""
    with guest(kind.model):
        return torch.cat([function(sample) for sample in samples])


def gradients(kind: Kind, samples: list[Any], labels: Tensor) -> Tensor:
    """The gradient of each sample's logit in all parameters, one backward pass each."""
    rows = []
    with guest(kind.model):
        for sample, label in zip(samples, labels.tolist(), strict=True):
            logit = kind.logits(sample)[0, label]
            parts = torch.autograd.grad(logit, list(kind.model.parameters()), allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def similarities(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    train, test = gradients(kind, kind.samples, kind.labels), gradients(kind, kind.test_samples, target)
    return test @ (train / train.norm(dim=1, keepdim=True)).mT, train.norm(dim=1)


def influences(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    """∇Lᵀ (H + δI)⁻¹ ∇L from the Hessian that autograd finds."""
    weight, bias = (part.detach().double() for part in kind.head())  # type: ignore[misc]
    phi, test = (stacked(kind, kind.features, rows).detach().double() for rows in (kind.samples, kind.test_samples))

    def loss(w: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(features @ w.view_as(weight).mT + bias, labels)

    def slopes(features: Tensor, labels: Tensor) -> Tensor:
        parts = zip(features.split(1), labels.split(1), strict=True)
        rows = [torch.autograd.functional.jacobian(partial(loss, features=x, labels=y), flat) for x, y in parts]
        return torch.stack(rows)

    flat = weight.flatten()
    hessian = torch.autograd.functional.hessian(partial(loss, features=phi, labels=kind.labels), flat)
    train, of_test = slopes(phi, kind.labels), slopes(test, target)
    solved = torch.linalg.solve(hessian + 0.1 * torch.eye(len(flat)), train.mT)
    return of_test @ solved, (train * solved.mT).sum(1)


def kernel(kind: Kind, alpha: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    phi, test = (stacked(kind, kind.features, rows).detach().double() for rows in (kind.samples, kind.test_samples))
    own = alpha[torch.arange(N_TRAIN), kind.labels]
    return alpha[:, target].mT * (test @ phi.mT), own * phi.square().sum(1)


def dualview(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    phi = stacked(kind, kind.features, kind.samples).detach().numpy()
    n_classes = stacked(kind, kind.logits, kind.samples[:1]).shape[1]
    solution = solve_crammer_singer(phi, kind.labels.numpy(), 0.5, n_classes=n_classes, tol=1e-9)
    alpha = np.zeros((N_TRAIN, n_classes))
    alpha[solution.support] = solution.sparse_dual_coef.toarray()
    return kernel(kind, torch.from_numpy(alpha), target)


def representers(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    """A last layer without a bias, retrained by Newton's method on the Hessian that autograd finds."""
    phi = stacked(kind, kind.features, kind.samples).detach().double()
    wanted = stacked(kind, kind.logits, kind.samples).detach().double().softmax(1)
    shape = wanted.shape[1], phi.shape[1]

    def objective(w: Tensor) -> Tensor:
        scores = (phi @ w.view(shape).mT).log_softmax(1)
        return -(wanted * scores).sum(1).mean() + 0.05 * w.square().sum()

    w = torch.zeros(shape[0] * shape[1], dtype=torch.float64)
    for _ in range(12):
        gradient = torch.autograd.functional.jacobian(objective, w)
        w = w - torch.linalg.solve(torch.autograd.functional.hessian(objective, w), gradient)
    alpha = (wanted - (phi @ w.view(shape).mT).softmax(1)) / (2 * 0.05 * N_TRAIN)
    return kernel(kind, alpha, target)


ORACLES = {
    "DualView": dualview,
    "GradientSimilarity": similarities,
    "InfluenceFunctions": influences,
    "RepresenterPoints": representers,
}


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    found, expected = found.double(), expected.detach().double()
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def refused(name: str, method: str) -> bool:
    """Whether a pair must be refused; then it is checked here, in words."""
    if (name, method) not in REFUSED:
        return False
    with pytest.raises(InvalidValueError, match=r"final_fc_layer of .* must be the linear layer whose outputs"):
        fitted(name, method)
    return True


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", KINDS)
def test_attributions_are_those_written_out(name: str, method: str) -> None:
    if refused(name, method):
        return
    kind, explained = kind_of(name), fitted(name, method)
    with assert_untouched(kind.model):
        found = explained.attribute(kind.test)
        own = explained.self_influence()
        top = explained.influence(kind.test, k=2)
    decisions = stacked(kind, kind.logits, kind.test_samples).argmax(1)
    assert torch.equal(found, explained.attribute(kind.test, decisions))
    assert found.shape == (N_TEST, N_TRAIN)
    torch.testing.assert_close(top.influence_scores, found.topk(2).values, atol=1e-6 * float(found.abs().max()), rtol=0)
    if method in ORACLES:
        expected, expected_own = ORACLES[method](kind, decisions)
        tolerance = 1e-3 if method == "DualView" else 1e-4  # two runs of the solver to one gap
        close(found, expected, tolerance)
        close(own, expected_own, tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_a_projection_on_many_components_is_near_the_similarity(name: str) -> None:
    kind, options = kind_of(name), {"n_components": 3000, "show_progress": False, "batch_size": 5}
    projected = ProjectedGradientSimilarity(kind.model, kind.layer, kind.train, **options, **kind.options)
    expected = fitted(name, "GradientSimilarity").attribute(kind.test)
    found = projected.attribute(kind.test)
    assert float((found - expected).norm() / expected.norm()) < 0.2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", KINDS)
def test_quantus_scores_every_method(name: str) -> None:
    kind = kind_of(name)
    if kind.quantus is None:
        pytest.skip("Quantus has one array for the inputs; two of different shapes do not fit")
    methods = {method: fitted(name, method) for method in METHODS if (name, method) not in REFUSED}
    decisions = stacked(kind, kind.logits, kind.test_samples).argmax(1)
    scores = quantus.evaluate(
        {"same class": IdenticalClass()}, methods, kind.model, kind.quantus, decisions.numpy(), explain_func_kwargs={}
    )
    for method, explained in methods.items():
        strongest = explained.attribute(kind.test, decisions).argmax(1)
        expected = (kind.labels[strongest] == decisions).double()
        assert scores[method]["same class"] == pytest.approx(expected.tolist())
