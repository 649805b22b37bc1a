"""EKFACInfluence against its definition with explicit Kronecker products, sums over samples, positions and labels."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn
from torch.nn.functional import unfold
from torch.utils.data import TensorDataset

from dualview_plugin import EKFACInfluence
from dualview_plugin.errors import InvalidValueError, LeftOutWarning
from tests.attribution.loss_gradients import gradients, log_probability
from tests.worlds import World, small_world

TARGET = torch.tensor([4, 0, 1, 2, 3, 0, 4])
LAYERS = ["conv", "hidden", "fc"]


def ekfac(world: World, **options: Any) -> EKFACInfluence:
    return EKFACInfluence(world.model, "fc", world.train, show_progress=False, **options)


def factors(world: World, name: str) -> tuple[Tensor, Tensor]:
    """Mean products of inputs (a one behind them) and of output gradients, one sample, label and position a time."""
    network = copy.deepcopy(world.model).double().eval()
    layer, seen = network.get_submodule(name), []
    layer.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    incoming, outgoing = 0.0, 0.0
    for sample in world.train.tensors[0].double():
        logits = network(sample[None])[0]
        inputs, output = seen[-1]
        rows = unfold(inputs, layer.kernel_size)[0].mT if isinstance(layer, nn.Conv2d) else inputs
        for row in torch.cat([rows, torch.ones(len(rows), 1)], 1):
            incoming = incoming + torch.outer(row, row)
        for label in range(len(logits)):
            (slope,) = torch.autograd.grad(logits.log_softmax(0)[label], output, retain_graph=True)
            for row in slope[0].flatten(1).mT if isinstance(layer, nn.Conv2d) else slope:
                outgoing = outgoing + logits.softmax(0)[label].detach() * torch.outer(row, row)
    return incoming, outgoing


def by_definition(world: World, damping: float) -> Tensor:
    """Σ over layers of gᵀ (Q (Λ + δ) Qᵀ)⁻¹ g_i with Q = U_S ⊗ U_A as a matrix."""
    x, labels = world.train.tensors
    p = copy.deepcopy(world.model).double().eval()(x.double()).softmax(1)
    total = torch.zeros(1)
    for name in LAYERS:
        names = [f"{name}.weight", f"{name}.bias"]
        n_rows = len(world.model.get_submodule(name).bias)

        def rows(x: Tensor, labels: Tensor, names: list[str] = names, n_rows: int = n_rows) -> Tensor:
            flat = gradients(world.model, log_probability, x, labels, names)
            weight, bias = flat[:, :-n_rows].view(len(flat), n_rows, -1), flat[:, -n_rows:, None]
            return torch.cat([weight, bias], 2).flatten(1)

        incoming, outgoing = factors(world, name)
        basis = torch.kron(torch.linalg.eigh(outgoing)[1], torch.linalg.eigh(incoming)[1])
        squares = torch.zeros(len(basis))
        for label in range(p.shape[1]):
            squares = squares + (p[:, label, None] * (rows(x, torch.full_like(labels, label)) @ basis) ** 2).mean(0)
        inverse = basis @ torch.diag(1 / (squares + damping * squares.mean())) @ basis.mT
        total = total + rows(world.x_test, TARGET) @ inverse @ rows(x, labels).mT
    return total


@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_attribution_is_the_definition(damping: float) -> None:
    world = small_world(dtype=torch.float64)
    method = ekfac(world, damping=damping, batch_size=7)
    expected = by_definition(world, damping).detach()
    torch.testing.assert_close(method.attribute(world.x_test, TARGET), expected, rtol=1e-6, atol=1e-8)


def test_a_whole_last_layer_is_near_its_exact_fisher() -> None:
    """One test direction: with a single input feature the last layer's factors are exact."""
    x = torch.randn(23, 1).double()
    model = nn.Sequential(nn.Linear(1, 3, bias=False)).double()
    train = TensorDataset(torch.ones_like(x), torch.arange(23) % 3)  # one input for all: A ⊗ S is the Fisher matrix
    method = EKFACInfluence(model, "0", train, damping=1e-6, show_progress=False)
    p = model(torch.ones(1, 1).double())[0].softmax(0).detach()
    fisher = torch.diag(p) - torch.outer(p, p)
    damped = fisher + 1e-6 * fisher.trace() / 3 * torch.eye(3)
    slopes = torch.eye(3).double() - p
    expected = slopes @ torch.linalg.inv(damped) @ slopes.mT
    found = method.attribute(torch.ones(3, 1).double(), torch.arange(3))
    torch.testing.assert_close(found, expected[:, train.tensors[1]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_budget", [1, 2**30])
def test_the_budget_changes_nothing(memory_budget: int) -> None:
    world = small_world()
    found = ekfac(world, memory_budget=memory_budget).attribute(world.x_test, TARGET)
    expected = ekfac(world).attribute(world.x_test, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_other_layers_are_refused() -> None:
    world = small_world()
    with pytest.raises(InvalidValueError, match="layers of EKFACInfluence must be linear layers"):
        ekfac(world, layers=["norm"]).fit()
    grouped = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(), nn.Linear(30, 5))
    train = TensorDataset(torch.randn(9, 2, 5, 7), torch.arange(9) % 5)
    with pytest.raises(InvalidValueError, match="without groups"):
        EKFACInfluence(grouped, "2", train, show_progress=False).fit()
    layer = nn.Linear(4, 4)
    twice = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 3))
    train = TensorDataset(torch.randn(9, 4), torch.arange(9) % 3)
    with pytest.raises(InvalidValueError, match="by exactly one run"):
        EKFACInfluence(twice, "3", train, show_progress=False).fit()


def test_a_layer_of_two_names_is_one_layer() -> None:
    world = small_world()
    expected = ekfac(world).attribute(world.x_test, TARGET)
    world.model.alias = world.model.hidden
    torch.testing.assert_close(ekfac(world).attribute(world.x_test, TARGET), expected)
    named = ekfac(world, layers=["conv", "alias", "fc"]).attribute(world.x_test, TARGET)
    torch.testing.assert_close(named, expected)


def tied() -> nn.Module:
    """A head whose weight is the embedding's, as of language models."""
    model = nn.Sequential(nn.Embedding(5, 6), nn.Flatten(), nn.Linear(6, 5, bias=False))
    model[2].weight = model[0].weight
    return model


def parametrized() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)))


@pytest.mark.parametrize("layers", [None, ["2"]])
@pytest.mark.parametrize("make", [tied, parametrized])
def test_weights_that_are_not_the_layers_own_are_refused_at_construction(make: Any, layers: Any) -> None:
    train = TensorDataset(torch.zeros(9, 1, dtype=torch.int64), torch.arange(9) % 3)
    with pytest.raises(InvalidValueError, match=r"layers with a weight and a bias of their own, .* got '2'"):
        EKFACInfluence(make(), "2", train, layers=layers, show_progress=False)


def test_networks_without_such_layers_are_refused() -> None:
    data = TensorDataset(torch.eye(4), torch.arange(4))

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x

    with pytest.raises(InvalidValueError, match="a network with linear or convolutional layers, got none"):
        EKFACInfluence(nn.Sequential(Scale()), "0", data, show_progress=False).fit()


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 3, 3), nn.ConvTranspose1d(2, 3, 3)])
def test_convolutions_that_it_does_not_take_are_refused_and_not_left_out(layer: nn.Module) -> None:
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    x = torch.randn(6, 2, 7)
    model(x)
    data = TensorDataset(x, torch.arange(6) % 3)
    with pytest.raises(InvalidValueError, match="layers of EKFACInfluence must be linear layers, and 2d convolutions"):
        EKFACInfluence(model, "2", data, show_progress=False)
    EKFACInfluence(model, "2", data, layers=["2"], show_progress=False).fit()


class Twice(nn.Module):
    """A layer, and a function of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(nn.functional.linear(torch.tanh(self.a(x)), self.a.weight)))


class WithoutGradient(Twice):
    """A layer in a block without gradients."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = torch.tanh(self.a(x))
        return self.fc(hidden)


def few_points() -> TensorDataset:
    return TensorDataset(torch.randn(9, 5, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Twice, "a weight and a bias of their own, shared with no other and not parametrized, got 'a'"),
        (WithoutGradient, "by exactly one run in a forward pass: choose them by layers=, got 'a' with 0 runs"),
    ],
)
def test_layers_whose_weights_work_elsewhere_or_nowhere_are_refused(model: Any, message: str) -> None:
    method = EKFACInfluence(model(), "fc", few_points(), show_progress=False)
    with pytest.raises(InvalidValueError, match=message):
        method.fit()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.3),
    ],
)
def test_weights_that_are_made_of_others_are_refused(change: Any) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    change(model[0])
    with pytest.raises(InvalidValueError, match="a weight and a bias of their own"):
        EKFACInfluence(model, "2", few_points(), show_progress=False)


class AnotherLinear(nn.Module):
    """A linear layer of another class, with its weight the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("layer", [AnotherLinear, lambda: torch.jit.script(nn.Linear(5, 4))])
def test_matrices_that_do_not_count_are_named(layer: Any) -> None:
    model = nn.Sequential(layer(), nn.ReLU(), nn.Linear(4, 3)).eval()
    with pytest.warns(LeftOutWarning, match=r"leaves \d+% of the parameters out: 0.weight; pass layers= to choose"):
        EKFACInfluence(model, "2", few_points(), show_progress=False).fit()
    EKFACInfluence(model, "2", few_points(), layers=["2"], show_progress=False).fit()


def test_norms_and_embeddings_are_known_not_to_count() -> None:
    model = nn.Sequential(nn.Embedding(7, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(10, 3))
    data = TensorDataset(torch.arange(18).view(9, 2) % 7, torch.arange(9) % 3)
    EKFACInfluence(model, "3", data, show_progress=False).fit()
