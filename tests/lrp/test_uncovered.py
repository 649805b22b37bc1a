"""What no rule of LRP sees is refused or named; what hands relevance on as it is gives no warning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from zennit.composites import EpsilonPlus
from zennit.core import Composite

from dualview_plugin.attribution import RepresenterPoints
from dualview_plugin.errors import ConservationWarning, InvalidValueError
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp import FunctionRules, PairwiseRelevance
from dualview_plugin.lrp.propagation import propagate
from tests.lrp.wired_nets import CLOSE, N_CHANNELS, Wired, X, conv, maps, norm, plain_rules

Wiring = Callable[[Wired, Tensor], Tensor]
NAMED: dict[str, tuple[Wiring, str]] = {
    "product": (lambda net, x: net["conv1"](x) * net["conv2"](x), r"multiplies branches in 1 place.* \(Mul\)"),
    "quotient": (lambda net, x: net["conv1"](x) / (9 + net["conv2"](x)), r"multiplies branches in 1 place.* \(Div\)"),
    "square": (lambda net, x: net["conv1"](x) ** 2, "computes Pow"),
    "addcmul": (
        lambda net, x: torch.addcmul(net["conv1"](x), net["conv2"](x), torch.ones(1, dtype=x.dtype)),
        r"multiplies branches .*\(Addcmul\)",
    ),
    "matmul": (lambda net, x: net["conv1"](x) @ net["conv2"](x).mT, r"multiplies branches .*\(Bmm\)"),
    "softmax": (lambda net, x: net["conv1"](x).softmax(dim=1), "computes Softmax"),
    "attention": (lambda net, x: F.scaled_dot_product_attention(*[net["conv1"](x)] * 3), "multiplies branches"),
    "gelu": (lambda net, x: F.gelu(net["conv1"](x)), "computes Gelu"),
    "leaky relu": (lambda net, x: F.leaky_relu(net["conv1"](x), 0.2), "computes LeakyRelu"),
    "prelu": (lambda net, x: F.prelu(net["conv1"](x), torch.full((1,), 0.2, dtype=x.dtype)), "computes PreluKernel"),
    "relu6": (lambda net, x: F.relu6(net["conv1"](x)), "computes Hardtanh"),
    "clamp": (lambda net, x: net["conv1"](x).clamp(0, 0.3), "computes Clamp"),
    "clamp in place": (lambda net, x: net["conv1"](x).clone().clamp_(max=0.3), "computes ClampMax|computes Clamp"),
    "clamp at a tensor": (lambda net, x: net["conv1"](x).clamp(min=torch.zeros_like(x)), "computes Clamp"),
    "threshold": (lambda net, x: F.threshold(net["conv1"](x), 0.1, 0.2), "computes Threshold"),
    "group norm": (lambda net, x: net["group"](net["conv1"](x)), "computes NativeGroupNorm .* in 'group'"),
    "layer norm": (lambda net, x: F.layer_norm(net["conv1"](x), (7,)).relu(), "computes NativeLayerNorm"),
    "instance norm": (lambda net, x: net["instance"](net["conv1"](x)), "computes NativeBatchNorm .* in 'instance'"),
    "bare sum": (lambda net, x: net["conv1"](x) + net["conv2"](x), "adds branches in 1 place"),
    "sum of positions": (lambda net, x: net["conv1"](x).sum(dim=2, keepdim=True), "computes Sum"),
    "normalised inputs": (lambda net, x: net["conv1"]((x - 0.5) / 0.2), r"multiplies by constants in 1 place.*\(Div\)"),
    "functional convolution": (lambda net, x: F.conv2d(x, net["conv1"].weight), "computes Convolution"),
    "scaled reflection": (lambda net, x: torch.rsub(net["conv1"](x), 1, alpha=2), "computes Rsub"),
}
HANDED_ON: dict[str, Wiring] = {
    "relu": lambda net, x: torch.relu(net["conv1"](x)),
    "relu by clamp": lambda net, x: net["conv1"](x).clamp(min=0) + 1,
    "relu by clamp_min": lambda net, x: net["conv1"](x).clamp_min(0),
    "relu in place": lambda net, x: torch.relu_(net["conv1"](x)),
    "pooling": lambda net, x: F.max_pool2d(F.avg_pool2d(net["conv1"](x), 2), 2),
    "concatenation": lambda net, x: torch.cat([net["conv1"](x), net["conv2"](x)], dim=2),
    "views": lambda net, x: net["conv1"](x).flatten(2).transpose(1, 2).mT[:, :, None, ::2],
    "shift": lambda net, x: net["conv1"](x - 0.5) + 1,
    "negation": lambda net, x: -net["conv1"](x),
    "reflection": lambda net, x: 1 - net["conv1"](x),
    "reflection at a tensor": lambda net, x: torch.ones_like(x) - net["conv1"](x),
    "dropout": lambda net, x: nn.Dropout(0.5).eval()(net["conv1"](x)),
}


# What FunctionRules have rules for; the rest is named under them too.
FOLLOWED = [
    "product",
    "quotient",
    "square",
    "matmul",
    "softmax",
    "attention",
    "gelu",
    "leaky relu",
    "prelu",
    "relu6",
    "clamp",
    "clamp in place",
    "clamp at a tensor",
    "threshold",
    "group norm",
    "layer norm",
    "bare sum",
]
FOLLOWED += ["sum of positions", "normalised inputs", "scaled reflection"]


def wired(wiring: Wiring) -> Wired:
    layers = {"group": nn.GroupNorm(2, N_CHANNELS), "instance": nn.InstanceNorm2d(N_CHANNELS)}
    return Wired(wiring, {"conv1": conv(), "conv2": conv(), **layers})


@pytest.mark.filterwarnings("ignore:the network:dualview_plugin.errors.ConservationWarning")
@pytest.mark.parametrize(("wiring", "message"), NAMED.values(), ids=NAMED)
def test_places_without_a_rule_are_named(wiring: Wiring, message: str) -> None:
    with pytest.warns(ConservationWarning, match=message):
        maps(wired(wiring), plain_rules())


@pytest.mark.parametrize("name", NAMED)
def test_rules_of_functions_follow_most_of_them(name: str) -> None:
    composite = EpsilonPlus(zero_params="bias", canonizers=[FunctionRules()])
    if name in FOLLOWED:
        maps(wired(NAMED[name][0]), composite)
    else:
        with pytest.warns(ConservationWarning, match=NAMED[name][1]):
            maps(wired(NAMED[name][0]), composite)


@pytest.mark.parametrize("wiring", HANDED_ON.values(), ids=HANDED_ON)
def test_places_that_hand_relevance_on_are_not_named(wiring: Wiring) -> None:
    maps(wired(wiring), plain_rules())


@pytest.mark.parametrize("name", ["negation", "reflection", "reflection at a tensor"])
def test_a_changed_sign_hands_relevance_on(name: str) -> None:
    """The rule of a layer with weight -1: R = (-x / -x) R; autograd alone gives -R."""
    net = wired(HANDED_ON[name])
    twin = Wired(lambda net, x: net["conv1"](x), dict(net.items()))
    start = torch.rand(len(X), N_CHANNELS, dtype=X.dtype)
    found, expected = (
        propagate(FeatureExtractor(each, "fc"), X, lambda _: start, plain_rules()) for each in (net, twin)
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    without_rules = propagate(FeatureExtractor(net, "fc"), X, lambda _: start, Composite())
    gradient = propagate(FeatureExtractor(twin, "fc"), X, lambda _: start, Composite())
    torch.testing.assert_close(without_rules, -gradient, **CLOSE)


def test_warnings_name_the_line_of_the_caller() -> None:
    net = wired(NAMED["gelu"][0])
    with pytest.warns(ConservationWarning) as caught:
        pairs(net).attribute(X[:2], k=1)
    assert {warning.filename for warning in caught} == {__file__}


def test_without_any_rule_it_is_the_gradient_and_nothing_to_warn_of() -> None:
    maps(wired(NAMED["product"][0]), Composite())


def test_attention_without_the_rules_of_functions_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Flatten(2), nn.Linear(7, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    net.extend([nn.Flatten(), nn.Linear(11 * 8, 3)]).double()
    with pytest.raises(
        InvalidValueError, match=r"model of propagate must be without attention.*FunctionRules.* '2.self_attn'"
    ):
        maps(net, plain_rules(), layer="4", x=X[:, 0])


def test_batch_norms_that_take_statistics_of_the_batch_are_refused() -> None:
    layers = {"conv1": conv(), "norm1": nn.BatchNorm2d(N_CHANNELS, track_running_stats=False)}
    net = Wired(lambda net, x: net["norm1"](net["conv1"](x)), layers)
    with pytest.raises(InvalidValueError, match=r"keep running statistics .* got layer 'norm1' \(BatchNorm2d\)"):
        maps(net)


def pairs(net: Wired) -> PairwiseRelevance:
    train = TensorDataset(X, torch.arange(len(X)) % 3)
    return PairwiseRelevance(RepresenterPoints(net, "fc", train, show_progress=False), plain_rules())


def test_relevance_that_vanishes_is_reported_with_figures() -> None:
    net = Wired(
        lambda net, x: torch.relu(net["norm1"](torch.relu(net["conv1"](x)))), {"conv1": conv(), "norm1": norm()}
    )
    nn.init.constant_(net["conv1"].weight, -1.0)  # behind the norm all features come from its shift
    nn.init.constant_(net["norm1"].bias, 3.0)
    with pytest.warns(ConservationWarning, match=r"not conserved in 4 of 4 heatmaps: .* times what started"):
        pairs(net).attribute(X[:2], k=1)


def test_relevance_that_is_conserved_is_not_reported() -> None:
    net = wired(HANDED_ON["relu"])
    nn.init.uniform_(net["conv1"].weight)
    found = pairs(net).attribute(X[:2], k=2)
    torch.testing.assert_close(found.conservation, torch.ones_like(found.conservation), rtol=0, atol=0.05)


def test_a_softmax_that_is_a_constant_is_named_where_nothing_else_leads_to_the_input() -> None:
    net = wired(lambda net, x: net["conv1"](x).softmax(dim=1))
    composite = EpsilonPlus(zero_params="bias", canonizers=[FunctionRules("constant")])
    with pytest.raises(InvalidValueError, match="not by a softmax alone, which this composite takes for a constant"):
        maps(net, composite)
