"""LRP explains the user's network: special weights, layers that run twice, composites that change it or are in use."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.utils.data import TensorDataset
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonAlpha2Beta1, EpsilonGammaBox, EpsilonPlus, EpsilonPlusFlat

from dualview_plugin.attribution import DualView
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.lrp import FunctionRules, SurrogateRelevance, named_composite
from tests.lrp.wired_nets import CLOSE, N_CHANNELS, Wired, X, conv, maps, norm, plain_rules


class _Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


CHANGES: dict[str, Callable[[nn.Conv2d], object]] = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "pruned bias": lambda layer: prune.l1_unstructured(layer, "bias", 0.5),
    "spectral norm": spectral_norm,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "own parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", _Doubled()),
    "weight norm": weight_norm,
}


def layer_and_norm(net: Wired, x: Tensor) -> Tensor:
    return torch.relu(net["norm1"](net["conv1"](x)))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_computed_weight_is_explained_like_a_plain_one(change: Callable[[nn.Conv2d], object], composite: str) -> None:
    layer, plain = conv().double(), conv().double()
    change(layer)
    net = Wired(layer_and_norm, {"conv1": layer, "norm1": norm()})
    net(X)  # a hook computes the weight anew in each pass
    plain.weight.data, plain.bias.data = layer.weight.detach().clone(), layer.bias.detach().clone()
    twin = Wired(layer_and_norm, {"conv1": plain, "norm1": copy.deepcopy(net["norm1"])})
    before, own_class, expected = list(net.state_dict()), type(layer), net(X)
    relevance = [maps(each, named_composite(composite, each, zero_params="bias")) for each in (net, twin)]
    torch.testing.assert_close(*relevance, **CLOSE)
    assert list(net.state_dict()) == before
    assert type(layer) is own_class
    torch.testing.assert_close(net(X), expected)


def test_a_weight_that_nothing_known_computes_is_refused() -> None:
    net = Wired(lambda net, x: net["conv1"](x), {"conv1": conv()})
    weight, bias = (getattr(net["conv1"], name).detach() for name in ("weight", "bias"))
    del net["conv1"].weight, net["conv1"].bias
    net["conv1"].weight, net["conv1"].bias = weight, bias
    with pytest.raises(InvalidValueError, match="keep their weights as parameters, got 'conv1'"):
        maps(net, plain_rules())


def twice(net: Wired, x: Tensor) -> Tensor:
    hidden = torch.relu(net["conv1"](x))
    hidden = torch.relu(net["conv2"](hidden))
    return torch.relu(net["conv3" if "conv3" in net else "conv2"](hidden))


COMPOSITES = {
    "plus": EpsilonPlus,
    "flat": EpsilonPlusFlat,
    "alpha beta": EpsilonAlpha2Beta1,
    "gamma": lambda: EpsilonGammaBox(low=0.0, high=1.0),
}


@pytest.mark.parametrize("make", COMPOSITES.values(), ids=COMPOSITES)
def test_a_layer_that_runs_twice_is_explained_like_two_layers(make: Callable[[], EpsilonPlus]) -> None:
    layers = {"conv1": conv(), "conv2": conv(N_CHANNELS)}
    twin = {**copy.deepcopy(layers), "conv3": copy.deepcopy(layers["conv2"])}
    pair = Wired(twice, layers), Wired(twice, twin)
    torch.testing.assert_close(*(maps(net, make()) for net in pair), **CLOSE)


def test_a_composite_that_changes_the_network_is_refused_with_the_layer() -> None:
    net = Wired(lambda net, x: net["norm1"](torch.relu(net["conv1"](x))), {"conv1": conv(), "norm1": norm()})
    message = r"composite of propagate must be such that the network computes .* differ: 'conv1'"
    with pytest.raises(InvalidValueError, match=message):
        maps(net, EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]))
    merged_rightly = Wired(layer_and_norm, {"conv1": conv(), "norm1": norm()})
    maps(merged_rightly, EpsilonPlus(canonizers=[SequentialMergeBatchNorm()]))


@pytest.mark.parametrize("same", [True, False])
def test_a_composite_that_is_in_use_stays_registered(same: bool) -> None:
    net = Wired(layer_and_norm, {"conv1": conv(), "norm1": norm()})
    ours = named_composite("epsilon_plus", net, zero_params="bias")
    expected = maps(net, ours)
    users = ours if same else named_composite("epsilon_alpha2_beta1", net)

    def in_use() -> Tensor:
        point = X.clone().requires_grad_()
        (relevance,) = torch.autograd.grad(net(point).sum(), point)
        return relevance

    bare = in_use()
    with users.context(net):
        before = in_use()
        torch.testing.assert_close(maps(net, ours), expected, **CLOSE)
        torch.testing.assert_close(in_use(), before, **CLOSE)
        assert not torch.allclose(before, bare)
    torch.testing.assert_close(in_use(), bare)


def test_inputs_that_are_not_floating_are_refused() -> None:
    net = Wired(layer_and_norm, {"conv1": conv(), "norm1": norm()})
    with pytest.raises(InvalidTypeError, match=r"inputs of propagate must be floating to be differentiated"):
        maps(net, x=X.to(torch.int64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_half_precision_changes_no_function(dtype: torch.dtype) -> None:
    """The rules of functions add a bias to a product that is rounded before."""
    torch.manual_seed(0)
    layers = (nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    model, data = nn.Sequential(*layers).to(dtype), TensorDataset(torch.randn(30, 6), torch.arange(30) % 3)
    method = DualView(model, "4", data, C=1.0, show_progress=False)
    composite = named_composite("epsilon_plus", model, canonizers=[FunctionRules()])
    assert SurrogateRelevance(method, composite).attribute(data[:][0]).isfinite().all()
