"""GradientSimilarity against a double loop over whole gradients, on a network with a tied layer, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import GradientSimilarity, ProjectedGradientSimilarity
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from tests.gradients.networks import N_CLASSES, Tied, TiedLarge

N_TRAIN, N_TEST = 17, 5
TARGET = torch.tensor([4, 0, 1, 2, 0])
NETWORKS = pytest.mark.parametrize("network", [Tied, TiedLarge])


def setting(network: type[nn.Module], **options: Any) -> tuple[GradientSimilarity, TensorDataset, Tensor]:
    """The method in single precision on random data, and test inputs."""
    shape = (2, 3, 23) if network is Tied else (29,)
    model, x = network(), torch.randn(N_TRAIN, *shape)
    model.train()(x)
    train = TensorDataset(x, torch.arange(N_TRAIN) % N_CLASSES)
    method = GradientSimilarity(model, "fc", train, show_progress=False, **options)
    return method, train, torch.randn(N_TEST, *shape)


def gradient(model: nn.Module, sample: Tensor, label: Tensor) -> Tensor:
    """∇_θ f_c(x) in double precision, each parameter once."""
    model.zero_grad()
    model(sample[None].double())[0, label].backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def by_double_loop(method: GradientSimilarity, train: TensorDataset, x: Tensor, target: Tensor) -> Tensor:
    model = type(method.model)().double().eval()
    model.load_state_dict(method.model.state_dict())
    result = torch.zeros(len(x), N_TRAIN, dtype=torch.float64)
    for t in range(len(x)):
        for i in range(N_TRAIN):
            test, own = gradient(model, x[t], target[t]), gradient(model, *train[i])
            result[t, i] = test @ own / (own.norm() if method.normalize_train else 1)
    return result


@NETWORKS
@pytest.mark.parametrize("normalize_train", [True, False])
@pytest.mark.parametrize("memory_budget", [1, 10**5, 2**30])
def test_attribution_is_the_formula(network: type[nn.Module], normalize_train: bool, memory_budget: int) -> None:
    method, train, x = setting(network, normalize_train=normalize_train, memory_budget=memory_budget, batch_size=7)
    expected = by_double_loop(method, train, x, TARGET)
    found = method.attribute(x, TARGET)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().mean()))


@NETWORKS
def test_self_influence_is_the_norm(network: type[nn.Module]) -> None:
    method, train, _ = setting(network)
    expected = by_double_loop(method, train, *train.tensors).diagonal()
    torch.testing.assert_close(method.self_influence().double(), expected, rtol=1e-4, atol=1e-5)


def test_memory_budget_sets_the_blocks() -> None:
    method, _, x = setting(TiedLarge, memory_budget=6_000)
    whole, _, _ = setting(TiedLarge)
    each = method.fit()._layout.bytes_per_sample + 4 * N_TRAIN
    assert method.block_size == 6_000 // (2 * each) < N_TEST < whole.block_size
    assert len(list(method.attribute_blocks(x, TARGET))) == -(-N_TEST // method.block_size)


@pytest.mark.parametrize("memory_budget", [1, 2**30])
def test_input_attribution_within_the_budget(memory_budget: int) -> None:
    method, _, x = setting(TiedLarge, memory_budget=memory_budget)
    expected = GradientSimilarity(method.model, "fc", method.train_dataset, show_progress=False)
    torch.testing.assert_close(method.input_attribution(x, TARGET, k=3), expected.input_attribution(x, TARGET, k=3))


def test_a_gradient_of_zero_has_no_similarity() -> None:
    model = nn.Sequential(nn.Linear(3, 7, bias=False), nn.ReLU(), nn.Linear(7, 5, bias=False))
    train = TensorDataset(torch.cat([torch.zeros(1, 3), torch.randn(2, 3)]), torch.tensor([0, 1, 2]))
    method = GradientSimilarity(model, "2", train, show_progress=False)
    attribution = method.attribute(torch.randn(2, 3), 1)
    assert attribution.isfinite().all()
    assert not attribution[:, 0].any()
    assert float(method.self_influence()[0]) == 0


def test_layers_by_name_and_by_module_agree() -> None:
    named, _, x = setting(Tied, layers=["conv", "tied"])
    model = named.model
    by_module = GradientSimilarity(
        model, "fc", named.train_dataset, layers=[model.conv, model.tied], show_progress=False
    )
    everything = GradientSimilarity(model, "fc", named.train_dataset, show_progress=False)
    torch.testing.assert_close(named.attribute(x, 1), by_module.attribute(x, 1))
    assert not torch.allclose(named.attribute(x, 1), everything.attribute(x, 1))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"layers": ["nonsense"]},
            InvalidValueError,
            "layers of GradientSimilarity must be one of conv, norm, relu, tied, fc",
        ),
        ({"layers": ["relu"]}, InvalidValueError, "must be layers with parameters"),
        ({"layers": []}, InvalidValueError, "must be layers with parameters"),
        ({"layers": "fc"}, InvalidTypeError, "must be a list of modules or of their dotted names, got 'fc'"),
        (
            {"memory_budget": 0},
            InvalidValueError,
            "memory_budget of GradientSimilarity must be an integer of at least 1",
        ),
    ],
)
def test_bad_parameters_are_refused(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        setting(Tied, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", [GradientSimilarity, ProjectedGradientSimilarity])
def test_half_precision_is_that_of_the_twin(method: type[GradientSimilarity], dtype: torch.dtype) -> None:
    model, inputs = TiedLarge().to(dtype), torch.randn(N_TRAIN, 29).to(dtype)
    twin, labels, x = TiedLarge(), torch.arange(N_TRAIN) % N_CLASSES, torch.randn(N_TEST, 29).to(dtype)
    twin.load_state_dict(model.state_dict())
    found = method(model, "fc", TensorDataset(inputs, labels), show_progress=False)
    expected = method(twin, "fc", TensorDataset(inputs.float(), labels), show_progress=False)
    wanted, got = expected.attribute(x.float(), TARGET), found.attribute(x, TARGET)
    assert got.dtype == torch.float32
    assert (got - wanted).norm() <= 0.1 * wanted.norm()
    torch.testing.assert_close(found.self_influence(), expected.self_influence(), rtol=0.1, atol=0)
    map_, wanted_map = found.input_attribution(x, TARGET), expected.input_attribution(x.float(), TARGET)
    assert (map_ - wanted_map).norm() <= 0.2 * wanted_map.norm()


@pytest.mark.parametrize("method", [GradientSimilarity, ProjectedGradientSimilarity])
def test_a_training_point_with_nan_is_refused(method: type[GradientSimilarity]) -> None:
    _, train, x = setting(TiedLarge)
    train.tensors[0][13, 2] = torch.nan
    model = TiedLarge()
    with pytest.raises(InvalidValueError, match=f"train_dataset of {method.__name__} must be"):
        method(model, "fc", train, show_progress=False).attribute(x, TARGET)


@pytest.mark.parametrize("method", [GradientSimilarity, ProjectedGradientSimilarity])
def test_a_network_without_gradients_is_refused(method: type[GradientSimilarity]) -> None:
    _, train, x = setting(TiedLarge)
    model = TiedLarge()
    run = model.forward
    model.forward = lambda inputs: run(inputs).detach()
    with pytest.raises(InvalidValueError, match=f"model of {method.__name__} must be .* differentiate"):
        method(model, "fc", train, show_progress=False).attribute(x, TARGET)


def test_tiny_gradients_have_their_similarities() -> None:
    """A network sure of its classes, with outputs after a softmax, has gradients of 1e-25."""
    method, train, x = setting(TiedLarge)
    method.model.fc.weight.data *= 1e-22
    found, expected = method.attribute(x, TARGET), by_double_loop(method, train, x, TARGET)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    part = GradientSimilarity(method.model, "fc", train, layers=["first"], show_progress=False)
    own = part.self_influence()
    assert 0 < own.max() < 1e-18
    torch.testing.assert_close(own, part.attribute(*train.tensors).diagonal(), rtol=1e-3, atol=0)
