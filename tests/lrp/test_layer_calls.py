"""Layers are called and compute as rules assume; what LRP cannot follow is refused with what to write instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from dualview_plugin.errors import InvalidValueError
from tests.lrp.wired_nets import CLOSE, N_CHANNELS, Wired, conv, maps, norm

Weights = Callable[[Tensor], Tensor]


def standardised(weight: Tensor) -> Tensor:
    """Weight standardisation, as timm's StdConv2d does it in its forward pass."""
    axes = (1, 2, 3)
    return (weight - weight.mean(axes, keepdim=True)) / (weight.std(axes, keepdim=True) + 1e-5)


class _Standardised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return standardised(weight)


def transforming(change: Weights) -> nn.Conv2d:
    """A convolution that computes with a transformed weight."""

    class TransformingConv2d(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, change(self.weight), self.bias, padding=self.padding)

    return TransformingConv2d(1, N_CHANNELS, 3, padding=1)


def one_layer(net: Wired, x: Tensor) -> Tensor:
    return torch.relu(net["conv1"](x))


@pytest.mark.parametrize("change", [standardised, torch.abs, F.softplus])
def test_layers_that_transform_their_weight_are_refused_by_name(change: Weights) -> None:
    net = Wired(one_layer, {"conv1": transforming(change)})
    message = r"what torch's layer does .*parametrize\), got layer 'conv1' \(TransformingConv2d\)"
    with pytest.raises(InvalidValueError, match=message):
        maps(net)


def test_the_parametrization_that_the_message_names_works() -> None:
    layer, plain = conv().double(), conv().double()
    parametrize.register_parametrization(layer, "weight", _Standardised())
    plain.weight.data, plain.bias.data = layer.weight.detach(), layer.bias.detach()
    pair = Wired(one_layer, {"conv1": layer}), Wired(one_layer, {"conv1": plain})
    torch.testing.assert_close(*(maps(net) for net in pair), **CLOSE)


class _Plain(nn.Conv2d):
    """A subclass that computes what its parent does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0


@pytest.mark.parametrize(
    "layer",
    [
        _Plain(1, N_CHANNELS, 3, padding=1),
        nn.Conv2d(1, N_CHANNELS, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(1, N_CHANNELS, 3, padding=1),
    ],
    ids=["subclass", "circular", "transposed"],
)
def test_other_layers_are_not_refused(layer: nn.Module) -> None:
    assert maps(Wired(one_layer, {"conv1": layer})).abs().sum() > 0


def test_a_layer_called_by_keyword_is_explained_like_one_called_by_position() -> None:
    layers = {"conv1": conv(), "norm1": norm()}
    net = Wired(lambda net, x: torch.relu(net["norm1"](input=net["conv1"](input=x))), layers)
    twin = Wired(lambda net, x: torch.relu(net["norm1"](net["conv1"](x))), layers)
    torch.testing.assert_close(*(maps(each) for each in (net, twin)), **CLOSE)


def without_graph(net: Wired, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.relu(net["conv1"](x))


OUT_OF_REACH: dict[str, Callable[[Wired, Tensor], Tensor]] = {
    "no_grad": without_graph,
    "part in no_grad": lambda net, x: net["conv2"](x) + without_graph(net, x),
    "detach": lambda net, x: torch.relu(net["conv1"](x)).detach(),
}


@pytest.mark.filterwarnings("ignore:the network adds branches")
@pytest.mark.parametrize("wiring", OUT_OF_REACH.values(), ids=OUT_OF_REACH)
def test_a_network_without_a_graph_is_refused_with_what_to_write(wiring: Callable[[Wired, Tensor], Tensor]) -> None:
    net = Wired(wiring, {"conv1": conv(), "conv2": conv()})
    message = r"must be differentiable in its inputs: requires_grad_\(False\) in place of no_grad"
    with pytest.raises(InvalidValueError, match=message):
        maps(net)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_are_those_without(reentrant: bool) -> None:
    def checkpointed(net: Wired, x: Tensor) -> Tensor:
        return torch.relu(net["norm1"](checkpoint(net["conv1"], x, use_reentrant=reentrant)))

    layers = {"conv1": conv(), "norm1": norm()}
    net, twin = Wired(checkpointed, layers), Wired(lambda net, x: torch.relu(net["norm1"](net["conv1"](x))), layers)
    expected = maps(twin)
    torch.testing.assert_close(maps(net), expected, **CLOSE)
    torch.testing.assert_close(maps(twin.requires_grad_(False)), expected, **CLOSE)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_under_the_rules_of_functions_is_as_without(reentrant: bool) -> None:
    layers = {"block": Block()}
    net = Wired(lambda net, x: F.gelu(checkpoint(net["block"], x, use_reentrant=reentrant)), layers)
    twin = Wired(lambda net, x: F.gelu(net["block"](x)), layers)
    torch.testing.assert_close(maps(net), maps(twin), **CLOSE)


class Block(nn.Module):
    """A group norm and a product behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), nn.GroupNorm(2, N_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.conv(x))
        return hidden * F.gelu(hidden)


def taken_and_changed(change: Callable[[Tensor], Tensor], first: Callable[[Tensor], Tensor]) -> Wired:
    """A convolution whose input and output are changed once they are taken."""

    def wiring(net: Wired, x: Tensor) -> Tensor:
        hidden = first(net["conv1"](x))
        result = change(net["conv2"](hidden))
        return torch.cat([result, change(hidden)], dim=2)

    torch.manual_seed(0)
    return Wired(wiring, {"conv1": conv(), "conv2": conv(N_CHANNELS)})


def test_operations_in_place_on_what_layers_take_and_give_are_followed() -> None:
    in_place, out_of_place = (
        taken_and_changed(change, torch.clone) for change in (lambda z: z.add_(1), lambda z: z + 1)
    )
    torch.testing.assert_close(maps(in_place), maps(out_of_place), **CLOSE)


def test_operations_in_place_on_what_autograd_keeps_are_refused_with_what_to_write() -> None:
    net = taken_and_changed(lambda z: z.add_(1), torch.relu)
    with pytest.raises(InvalidValueError, match=r"without operations in place .*\(x = x \+ y in place of x \+= y\)"):
        maps(net)
