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
    TRAK,
    ArnoldiInfluence,
    DataAttribution,
    DualView,
    EKFACInfluence,
    FeatureSimilarity,
    GradCos,
    GradientSimilarity,
    IdenticalClass,
    InfluenceFunctions,
    InputSimilarity,
    InvalidTypeError,
    InvalidValueError,
    ProjectedGradientSimilarity,
    RandomAttribution,
    RepresenterPoints,
    TracIn,
    solve_crammer_singer,
)
from dualview_plugin.batches import leaves, mapped
from dualview_plugin.data import TrainingData
from dualview_plugin.network import guest
from tests.attribution.network_kinds import KINDS, N_TEST, N_TRAIN, Kind
from tests.untouched import assert_untouched

METHODS: dict[str, tuple[type[DataAttribution], dict[str, Any]]] = {
    "ArnoldiInfluence": (ArnoldiInfluence, {"layers": "last", "damping": 0.1, "n_components": 3}),
    "DualView": (DualView, {"C": 0.5, "standardize": False, "tol": 1e-9}),
    "DualDA": (DualView, {"C": 0.5, "standardize": False, "fit_intercept": True, "tol": 1e-9}),
    "EKFACInfluence": (EKFACInfluence, {"damping": 0.5}),
    "EKFACInfluence of the last layer": (EKFACInfluence, {"damping": 0.5, "layers": "last"}),
    "FeatureSimilarity": (FeatureSimilarity, {}),
    "GradCos": (GradCos, {}),
    "GradientSimilarity": (GradientSimilarity, {}),
    "InfluenceFunctions": (InfluenceFunctions, {"solver": "exact", "damping": 0.1}),
    "InputSimilarity": (InputSimilarity, {}),
    "ProjectedGradientSimilarity": (ProjectedGradientSimilarity, {"n_components": 5}),
    "RandomAttribution": (RandomAttribution, {}),
    "RepresenterPoints": (RepresenterPoints, {"weight_decay": 0.05, "tol": 1e-8}),
    "TRAK": (TRAK, {"n_components": 5, "damping": 0.5}),
    "TracIn": (TracIn, {}),
    "TracIn, projected": (TracIn, {"n_components": 5}),
}
LINEAR = (InvalidValueError, r"final_fc_layer of .* must be the linear layer whose outputs")
KRONECKER = (InvalidValueError, r"layers of EKFACInfluence must be linear layers, and 2d convolutions without groups")
ONE_RUN = (InvalidValueError, r"layers of EKFACInfluence must be layers that the outputs depend on by exactly one run")
TOKENS = (InvalidTypeError, r"train_dataset of InputSimilarity must be of floating tensors")
REFUSED: dict[tuple[str, str], tuple[type[Exception], str]] = {
    ("cosine head", "InfluenceFunctions"): LINEAR,
    ("cosine head", "RepresenterPoints"): LINEAR,
    ("cosine head", "EKFACInfluence"): ONE_RUN,
    ("cosine head", "EKFACInfluence of the last layer"): KRONECKER,
    **{(name, "EKFACInfluence"): ONE_RUN for name in ("ViT", "tokens in padded dictionaries", "a head at each token")},
    **{
        (name, "InputSimilarity"): TOKENS
        for name in ("tokens in padded dictionaries", "a head at each token", "BERT", "GPT-2", "packed LSTM")
    },
}


@cache
def kind_of(name: str) -> Kind:
    torch.manual_seed(3)
    return KINDS[name]()


@cache
def precise(name: str) -> Kind:
    """The same network and samples in double precision, for oracles."""
    torch.manual_seed(3)
    kind = KINDS[name]()
    kind.model.double()
    kind.samples, kind.test_samples = (
        [mapped(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, sample) for sample in samples]
        for samples in (kind.samples, kind.test_samples)
    )
    return kind


def made(name: str, method: str) -> DataAttribution:
    kind = kind_of(name)
    cls, options = METHODS[method]
    options = {**options, **({"layers": [kind.layer]} if options.get("layers") == "last" else {})}
    return cls(kind.model, kind.layer, kind.train, batch_size=5, show_progress=False, **options, **kind.options)


@cache
def fitted(name: str, method: str) -> DataAttribution:
    unfitted = made(name, method)
    with assert_untouched(kind_of(name).model):
        return unfitted.fit()


def stacked(kind: Kind, function: Any, samples: list[Any]) -> Tensor:
    """A function's values sample by sample."""
    with guest(kind.model):
        return torch.cat([function(sample) for sample in samples])


def logit(logits: Tensor, label: int) -> Tensor:
    return logits[label]


def log_probability(logits: Tensor, label: int) -> Tensor:
    return logits.log_softmax(0)[label]


def log_odds(logits: Tensor, label: int) -> Tensor:
    return logits[label] - logits[torch.arange(len(logits)) != label].logsumexp(0)


def gradients(
    kind: Kind, samples: list[Any], labels: Tensor, output: Any = logit, parameters: list[Tensor] | None = None
) -> Tensor:
    """The gradient of each sample's output in all parameters, or in some, one backward pass each."""
    chosen = list(kind.model.parameters()) if parameters is None else parameters
    rows = []
    with guest(kind.model):
        for sample, label in zip(samples, labels.tolist(), strict=True):
            value = output(kind.logits(sample)[0], label)
            parts = torch.autograd.grad(value, chosen, allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def both(kind: Kind, target: Tensor, output: Any = logit, parameters: Any = None) -> tuple[Tensor, Tensor]:
    """The gradients of training points at their labels, and of test points at the target."""
    train = gradients(kind, kind.samples, kind.labels, output, parameters)
    return train, gradients(kind, kind.test_samples, target, output, parameters)


def similarities(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    train, test = both(kind, target)
    return test @ (train / train.norm(dim=1, keepdim=True)).mT, train.norm(dim=1)


def cosines(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    _, test = both(kind, target)
    return similarities(kind, target)[0] / test.norm(dim=1, keepdim=True), torch.ones(N_TRAIN)


def losses(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    train, test = both(kind, target, log_probability)
    return test @ train.mT, train.square().sum(1)


def projection_of(method: Any, kind: Kind) -> Tensor:
    """The matrix P of a fitted method, read off its own adjoint, (n_components, n_parameters)."""
    layout = method._gradients(*next(iter(method._training_batches())))
    identity = torch.eye(method.n_components)
    assert sum(p.numel() for p in kind.model.parameters()) == method._gradients.n_parameters
    return method._gradients.flatten(*method._projection.adjoint(identity, layout)).double()


def projected(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    """Similarities after the projection: ⟨P g, P g_i⟩ / ‖g_i‖."""
    train, test = both(kind, target)
    matrix = projection_of(method, kind)
    columns = (train / train.norm(dim=1, keepdim=True)) @ matrix.mT
    return test @ matrix.mT @ columns.mT, (train @ matrix.mT * columns).sum(1)


def projected_losses(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    matrix = projection_of(method._parts[0], kind)
    train, test = (part @ matrix.mT for part in both(kind, target, log_probability))
    return test @ train.mT, train.square().sum(1)


def trak(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    """φ_cᵀ (ΦᵀΦ + λI)⁻¹ φ_i (1 − p_i)."""
    matrix = projection_of(method, kind)
    train, test = (part @ matrix.mT for part in both(kind, target, log_odds))
    p = stacked(kind, kind.logits, kind.samples).softmax(1).gather(1, kind.labels[:, None])[:, 0]
    gram = train.mT @ train
    gram += method.damping * gram.trace() / len(gram) * torch.eye(len(gram))
    columns = torch.linalg.solve(gram, train.mT) * (1 - p)
    return test @ columns, (train * columns.mT).sum(1)


def arnoldi(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    """The leading eigenvectors of the Hessian in the last layer, row by row by autograd."""
    chosen = list(kind.model.get_submodule(kind.layer).parameters())
    loss = torch.nn.functional.cross_entropy
    with guest(kind.model):
        logits = torch.cat([kind.logits(sample) for sample in kind.samples])
        slopes = torch.autograd.grad(loss(logits, kind.labels), chosen, create_graph=True)
        flat = torch.cat([slope.flatten() for slope in slopes])
        rows = [torch.autograd.grad(entry, chosen, retain_graph=True, materialize_grads=True) for entry in flat]
    values, vectors = torch.linalg.eigh(torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]))
    leading = torch.arange(len(values)) >= len(values) - method.n_components
    train, test = (part @ vectors[:, leading] for part in both(kind, target, log_probability, chosen))
    columns = train / (values[leading] + method.damping)
    return test @ columns.mT, (train * columns).sum(1)


def kronecker(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    """Σ over layers of gᵀ (Q (Λ + δ) Qᵀ)⁻¹ g_i, with Q = U_S ⊗ U_A as a matrix, one sample and label a time."""
    found, own = torch.zeros(len(target), N_TRAIN), torch.zeros(N_TRAIN)
    with guest(kind.model):
        p = stacked(kind, kind.logits, kind.samples).softmax(1).detach()
        for name in method._counted_layers():
            layer, seen = kind.model.get_submodule(name), []
            chosen = list(layer.parameters())
            handle = layer.register_forward_hook(lambda _, args, output, seen=seen: seen.append((args[0], output)))
            incoming, outgoing = 0.0, 0.0
            for sample, own_p in zip(kind.samples, p, strict=True):
                scores = kind.logits(sample)[0].log_softmax(0)
                inputs, output = seen[-1]
                rows = inputs.flatten(0, -2)
                if isinstance(layer, torch.nn.Conv2d):
                    rows = torch.nn.functional.unfold(
                        inputs, layer.kernel_size, padding=layer.padding, stride=layer.stride
                    )[0].mT
                rows = torch.cat([rows, torch.ones(len(rows), layer.bias is not None)], 1).detach()
                slopes = [torch.autograd.grad(score, output, retain_graph=True)[0] for score in scores]
                slopes = [slope[0].flatten(1).mT if slope.ndim == 4 else slope.flatten(0, -2) for slope in slopes]
                outgoing = outgoing + sum(weight * s.mT @ s for weight, s in zip(own_p, slopes, strict=True))
                if inputs.ndim == 3:  # tokens that no output depends on do not count
                    rows = rows[torch.stack(slopes).any(2).any(0)]
                incoming = incoming + rows.mT @ rows
            handle.remove()
            n_rows = len(outgoing)

            def matrices(samples: list[Any], labels: Tensor, chosen: Any = chosen, n_rows: int = n_rows) -> Tensor:
                flat = gradients(kind, samples, labels, log_probability, chosen)
                parts = flat.split([parameter.numel() for parameter in chosen], 1)
                return torch.cat([part.view(len(flat), n_rows, -1) for part in parts], 2).flatten(1)

            basis = torch.kron(torch.linalg.eigh(outgoing)[1], torch.linalg.eigh(incoming)[1])
            squares = sum(
                (p[:, label, None] * (matrices(kind.samples, torch.full_like(kind.labels, label)) @ basis) ** 2).mean(0)
                for label in range(p.shape[1])
            )
            inverse = basis @ torch.diag(1 / (squares + method.damping * squares.mean())) @ basis.mT
            train, test = matrices(kind.samples, kind.labels), matrices(kind.test_samples, target)
            found, own = found + test @ inverse @ train.mT, own + (train @ inverse * train).sum(1)
    return found, own


def compared(vectors: Any) -> Any:
    """Cosines of some vectors of the samples."""

    def oracle(kind: Kind, _: Tensor) -> tuple[Tensor, Tensor]:
        train, test = (
            torch.stack([vectors(kind, sample).flatten() for sample in samples])
            for samples in (kind.samples, kind.test_samples)
        )
        each = [[torch.nn.functional.cosine_similarity(a, b, dim=0) for b in train] for a in test]
        return torch.tensor(each), torch.ones(N_TRAIN)

    return oracle


def features_of(kind: Kind, sample: Any) -> Tensor:
    with guest(kind.model):
        return kind.features(sample).detach()


def values_of(_: Kind, sample: Any) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in leaves(sample)])


def influences(kind: Kind, target: Tensor) -> tuple[Tensor, Tensor]:
    """∇Lᵀ (H + δI)⁻¹ ∇L from the Hessian that autograd finds; of one output z in its own weights w."""
    weight, bias = (part.detach().double() for part in kind.head())  # type: ignore[misc]
    phi, test = (stacked(kind, kind.features, rows).detach().double() for rows in (kind.samples, kind.test_samples))

    def loss(w: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        rows = torch.stack([-w / 2, w / 2]) if is_single else w.view_as(weight)
        return torch.nn.functional.cross_entropy(features @ rows.mT + bias, labels)

    def slopes(features: Tensor, labels: Tensor) -> Tensor:
        parts = zip(features.split(1), labels.split(1), strict=True)
        rows = [torch.autograd.functional.jacobian(partial(loss, features=x, labels=y), flat) for x, y in parts]
        return torch.stack(rows)

    is_single = len(weight) == 2 and torch.equal(weight[0], -weight[1])
    flat = 2 * weight[1] if is_single else weight.flatten()
    hessian = torch.autograd.functional.hessian(partial(loss, features=phi, labels=kind.labels), flat)
    train, of_test = slopes(phi, kind.labels), slopes(test, target)
    solved = torch.linalg.solve(hessian + 0.1 * torch.eye(len(flat)), train.mT)
    return of_test @ solved, (train * solved.mT).sum(1)


def kernel(kind: Kind, alpha: Tensor, target: Tensor, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    phi, test = (stacked(kind, kind.features, rows).detach().double() for rows in (kind.samples, kind.test_samples))
    own = alpha[torch.arange(N_TRAIN), kind.labels]
    return alpha[:, target].mT * (test @ phi.mT + offset), own * (phi.square().sum(1) + offset)


def dualview(kind: Kind, target: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    phi = stacked(kind, kind.features, kind.samples).detach().numpy()
    if method.fit_intercept:
        phi = np.concatenate([phi, np.ones((N_TRAIN, 1))], 1)
    n_classes = stacked(kind, kind.logits, kind.samples[:1]).shape[1]
    solution = solve_crammer_singer(phi, kind.labels.numpy(), 0.5, n_classes=n_classes, tol=1e-9)
    alpha = np.zeros((N_TRAIN, n_classes))
    alpha[solution.support] = solution.sparse_dual_coef.toarray()
    return kernel(kind, torch.from_numpy(alpha), target, float(method.fit_intercept))


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


# Of a network, the explained classes, and for some the fitted method, of which they read the options.
ORACLES = {
    "ArnoldiInfluence": arnoldi,
    "DualView": dualview,
    "DualDA": dualview,
    "EKFACInfluence": kronecker,
    "EKFACInfluence of the last layer": kronecker,
    "FeatureSimilarity": compared(features_of),
    "GradCos": cosines,
    "GradientSimilarity": similarities,
    "InfluenceFunctions": influences,
    "InputSimilarity": compared(values_of),
    "ProjectedGradientSimilarity": projected,
    "RepresenterPoints": representers,
    "TRAK": trak,
    "TracIn": losses,
    "TracIn, projected": projected_losses,
}
WITH_METHOD = (arnoldi, dualview, kronecker, projected, projected_losses, trak)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    found, expected = found.double(), expected.detach().double()
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def refused(name: str, method: str) -> bool:
    """Whether a pair must be refused; then it is checked here, in words.

    What the modules of the network tell is refused at construction. What only its outputs, or the data, tell is refused
    on a few training points, before the training set is read: constructors run nothing.
    """
    if (name, method) not in REFUSED:
        return False
    error, message = REFUSED[name, method]
    if (error, message) == KRONECKER:
        with pytest.raises(error, match=message):
            made(name, method)
        return True
    explained, kind = made(name, method), kind_of(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingData, "batches", lambda *_, **__: pytest.fail("the training set was read"))
        for call in (explained.fit, explained.self_influence, lambda: explained.attribute(kind.test)):
            with assert_untouched(kind.model), pytest.raises(error, match=message):
                call()
    return True


@pytest.mark.filterwarnings("ignore::dualview_plugin.LeftOutWarning")
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
        oracle = ORACLES[method]
        more = (explained,) if oracle in WITH_METHOD else ()
        expected, expected_own = oracle(precise(name), decisions, *more)
        tolerance = 1e-3 if oracle is dualview else 1e-4  # two runs of the solver to one gap
        close(found, expected, tolerance)
        close(own, expected_own, tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_a_projection_on_many_components_is_near_the_similarity(name: str) -> None:
    kind, options = kind_of(name), {"n_components": 3000, "show_progress": False, "batch_size": 5}
    projected = ProjectedGradientSimilarity(kind.model, kind.layer, kind.train, **options, **kind.options)
    expected = fitted(name, "GradientSimilarity").attribute(kind.test)
    found = projected.attribute(kind.test)
    assert float((found - expected).norm() / expected.norm()) < 0.2


@pytest.mark.slow
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
