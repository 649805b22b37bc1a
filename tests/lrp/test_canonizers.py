"""A batch norm is merged into the layer whose output it takes, and the network stays the user's."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from zennit.composites import NameMapComposite
from zennit.rules import ZPlus

from dualview_plugin.errors import ConservationWarning
from dualview_plugin.lrp import named_composite
from dualview_plugin.lrp.canonizers import MergeBatchNorms, merged
from tests.lrp.wired_nets import CLOSE, N_CHANNELS, Wired, X, conv, maps, norm, plain_rules


def merged_by_hand(layer: nn.Conv2d, batch_norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that computes both."""
    result = copy.deepcopy(layer)
    ones, zeros = torch.ones(N_CHANNELS), torch.zeros(N_CHANNELS)
    gamma = ones if batch_norm.weight is None else batch_norm.weight.data
    beta = zeros if batch_norm.bias is None else batch_norm.bias.data
    factor = gamma / torch.sqrt(batch_norm.running_var + batch_norm.eps)
    result.weight.data = torch.einsum("o...,o->o...", layer.weight.data, factor)
    bias = zeros if layer.bias is None else layer.bias.data
    result.bias = nn.Parameter((bias - batch_norm.running_mean) * factor + beta)
    return result


def two_layers(net: Wired, x: Tensor) -> Tensor:
    hidden = torch.relu(net["norm1"](net["conv1"](x)))
    return torch.relu(net["norm2"](net["conv2"](hidden)))


def two_convs(net: Wired, x: Tensor) -> Tensor:
    return torch.relu(net["conv2"](torch.relu(net["conv1"](x))))


@pytest.mark.parametrize("order", [("conv1", "norm1", "conv2", "norm2"), ("conv1", "conv2", "norm1", "norm2")], ids=str)
@pytest.mark.parametrize("options", [{}, {"eps": 0.5}, {"affine": False}], ids=str)
def test_merging_goes_by_the_graph_and_not_by_the_order_of_assignment(order: tuple[str, ...], options: dict) -> None:
    layers = {"conv1": conv(), "conv2": conv(N_CHANNELS), "norm1": norm(**options), "norm2": norm(**options)}
    net = Wired(two_layers, {name: layers[name] for name in order})
    by_hand = {f"conv{i}": merged_by_hand(layers[f"conv{i}"].float(), layers[f"norm{i}"].float()) for i in (1, 2)}
    twin = Wired(two_convs, by_hand)
    net.double()
    torch.testing.assert_close(maps(net), maps(twin, plain_rules()), rtol=1e-5, atol=1e-7)


def test_no_bias_and_rules_by_name() -> None:
    layers = {"conv1": nn.Conv2d(1, N_CHANNELS, 3, bias=False), "norm1": norm()}
    net = Wired(lambda net, x: torch.relu(net["norm1"](net["conv1"](x))), layers)
    double = {name: copy.deepcopy(layer) for name, layer in net.items()}
    twin = Wired(lambda net, x: torch.relu(net["conv1"](x)), {"conv1": net["conv1"]})
    twin["conv1"] = merged_by_hand(double["conv1"].float(), double["norm1"].float()).double()
    rules = [(["conv1"], ZPlus(zero_params="bias"))]
    found = maps(net, NameMapComposite(rules, [MergeBatchNorms()]))
    torch.testing.assert_close(found, maps(twin, NameMapComposite(rules)), rtol=1e-5, atol=1e-7)
    assert net["conv1"].bias is None


def shared_conv(net: Wired, x: Tensor) -> Tensor:
    hidden = torch.relu(net["first"](x))
    hidden = torch.relu(net["norm1"](net["conv1"](hidden)))
    return torch.relu(net["norm2"](net["conv2" if "conv2" in net else "conv1"](hidden)))


def test_a_convolution_shared_by_two_batch_norms_is_merged_with_each() -> None:
    layers = {"first": conv(), "conv1": conv(N_CHANNELS), "norm1": norm(), "norm2": norm()}
    twin = {**copy.deepcopy(layers), "conv2": copy.deepcopy(layers["conv1"])}
    pair = Wired(shared_conv, layers), Wired(shared_conv, twin)
    torch.testing.assert_close(*(maps(net) for net in pair), **CLOSE)


def shared_norm(net: Wired, x: Tensor) -> Tensor:
    hidden = torch.relu(net["norm1"](net["conv1"](x)))
    return torch.relu(net["norm2" if "norm2" in net else "norm1"](net["conv2"](hidden)))


def test_a_batch_norm_shared_by_two_convolutions_is_merged_into_each() -> None:
    layers = {"conv1": conv(), "conv2": conv(N_CHANNELS), "norm1": norm()}
    twin = {**copy.deepcopy(layers), "norm2": copy.deepcopy(layers["norm1"])}
    pair = Wired(shared_norm, layers), Wired(shared_norm, twin)
    torch.testing.assert_close(*(maps(net) for net in pair), **CLOSE)


def fan_out(net: Wired, x: Tensor) -> Tensor:
    hidden = net["conv1"](x)
    return torch.cat([net["norm1"](hidden), hidden], dim=2).relu()


def test_a_layer_whose_output_something_else_takes_too_is_not_merged() -> None:
    net = Wired(fan_out, {"conv1": conv(), "norm1": norm()})
    torch.testing.assert_close(maps(net), maps(net, plain_rules()), **CLOSE)


def norm_behind_relu(net: Wired, x: Tensor) -> Tensor:
    return net["norm1"](torch.relu(net["conv1"](x)))


@pytest.mark.parametrize("wiring", [two_layers, shared_conv, fan_out, norm_behind_relu])
def test_the_network_computes_the_same_under_the_composite(wiring) -> None:
    layers = {"first": conv(), "conv1": conv(1 if wiring is not shared_conv else N_CHANNELS)}
    net = Wired(wiring, {**layers, "conv2": conv(N_CHANNELS), "norm1": norm(0.1), "norm2": norm(0.1)})
    expected = net(X)
    with named_composite("epsilon_plus", net).context(net):
        for _ in range(2):
            point = X.clone().requires_grad_()
            found = net(point)
            found.sum().backward()
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layer", "batch_norm", "shape"),
    [
        (nn.Linear(7, 6), nn.BatchNorm1d(6), (5, 7)),
        (nn.Conv1d(2, 6, 3, groups=2), nn.BatchNorm1d(6), (5, 2, 7)),
        (nn.Conv3d(2, 6, 2), nn.BatchNorm3d(6), (5, 2, 3, 4, 5)),
        (nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (5, 4, 7)),
        (nn.ConvTranspose2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), (5, 4, 3, 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_merged_layer_computes_what_both_compute(layer: nn.Module, batch_norm: nn.Module, shape: tuple) -> None:
    batch_norm.running_mean.normal_()
    batch_norm.running_var.uniform_(0.3, 3.0)
    nn.init.normal_(batch_norm.weight)
    x = torch.randn(shape)
    expected = batch_norm.eval()(layer(x))
    weight, bias = merged(layer, batch_norm)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_linear_layer_over_positions_is_not_merged_with_a_norm_over_them() -> None:
    torch.manual_seed(0)
    batch_norm = nn.BatchNorm1d(3).eval()
    nn.init.uniform_(batch_norm.weight, -1.0, 1.0)
    net = nn.Sequential(nn.Linear(7, 3), batch_norm, nn.Flatten(), nn.Linear(9, 2)).double()
    x = torch.rand(5, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(maps(net, layer="3", x=x), maps(net, plain_rules(), layer="3", x=x), **CLOSE)


COPIES = {
    "clone": torch.clone,
    "channels last": lambda z: z.contiguous(memory_format=torch.channels_last),
    "no padding": lambda z: F.pad(z, (0, 0, 0, 0)),
    "there and back": lambda z: z.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "two copies": lambda z: z.clone()[:, :, :].unsqueeze(1).squeeze(1),
}


def norm_with_both_signs() -> nn.BatchNorm2d:
    """Rules for positive contributions see another layer where a channel's factor is negative."""
    layer = norm()
    nn.init.uniform_(layer.weight, -1.5, 1.5)
    return layer


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_batch_norm_behind_a_copy_is_merged(copied) -> None:
    layers = {"conv1": conv(), "norm1": norm_with_both_signs()}
    net = Wired(lambda net, x: torch.relu(net["norm1"](copied(net["conv1"](x)))), layers)
    twin = Wired(lambda net, x: torch.relu(net["norm1"](net["conv1"](x))), layers)
    torch.testing.assert_close(maps(net), maps(twin), **CLOSE)
    assert not torch.allclose(maps(net), maps(twin, plain_rules()))


def test_a_copy_that_something_else_takes_too_is_not_merged() -> None:
    def wiring(net: Wired, x: Tensor) -> Tensor:
        copied = net["conv1"](x).clone()
        return torch.cat([net["norm1"](copied), copied], dim=2).relu()

    net = Wired(wiring, {"conv1": conv(), "norm1": norm()})
    torch.testing.assert_close(maps(net), maps(net, plain_rules()), **CLOSE)


@pytest.mark.parametrize("as_rows", [False, True], ids=["transposed", "as rows"])
def test_a_batch_norm_over_the_channels_of_a_linear_layer_over_positions_is_merged(as_rows: bool) -> None:
    def wiring(net: Wired, x: Tensor) -> Tensor:
        hidden = net["linear"](x[:, 0])  # (n, positions, channels)
        if "norm1" not in net:
            return torch.relu(hidden).mT[..., None]
        if as_rows:
            return torch.relu(net["norm1"](hidden.reshape(-1, N_CHANNELS))).reshape(hidden.shape).mT[..., None]
        return torch.relu(net["norm1"](hidden.mT))[..., None]

    torch.manual_seed(0)
    linear, batch_norm = nn.Linear(7, N_CHANNELS), nn.BatchNorm1d(N_CHANNELS)
    batch_norm.running_mean.normal_()
    batch_norm.running_var.uniform_(0.3, 3.0)
    nn.init.uniform_(batch_norm.weight, -1.5, 1.5)
    nn.init.normal_(batch_norm.bias)
    net = Wired(wiring, {"linear": linear, "norm1": batch_norm})
    weight, bias = merged(linear, batch_norm)
    twin = Wired(wiring, {"linear": nn.Linear(7, N_CHANNELS)})
    twin["linear"].weight.data, twin["linear"].bias.data = weight, bias
    found, expected = (maps(each, named_composite("epsilon_plus", each)) for each in (net, twin))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_batch_norm_that_takes_part_of_a_layers_output_is_named() -> None:
    def wiring(net: Wired, x: Tensor) -> Tensor:
        return torch.relu(net["norm1"](net["conv1"](x)[:, :, :-1]))

    net = Wired(wiring, {"conv1": conv(), "norm1": norm_with_both_signs()})
    with pytest.warns(ConservationWarning, match=r"in part or in another order, in 'conv1': they are not merged"):
        maps(net)
