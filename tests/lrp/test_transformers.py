"""Transformers and networks with other norms: relevance is conserved, and goes to what the network looks at."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import ConvNeXt, ResNet, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import BasicBlock
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from dualview_plugin.attribution import RepresenterPoints
from dualview_plugin.errors import ConservationWarning
from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp import PairwiseRelevance, named_composite
from dualview_plugin.lrp.function_shares import _Softmax
from dualview_plugin.lrp.propagation import Propagation
from tests.lrp.kernel_world import DrawnKernel

N_CLASSES, N_INPUTS = 5, 3


class Encoder(nn.Module):
    """A transformer encoder over a sequence, with the mean over positions and a final layer."""

    def __init__(self, n_layers: int = 2, n_in: int = 6, width: int = 8, n_classes: int = N_CLASSES, **options: Any):
        super().__init__()
        self.embed = nn.Linear(n_in, width)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True, dropout=0.0, **options)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.fc = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(x)).mean(1))


def vision_transformer() -> nn.Module:
    """torchvision's; its class token starts at zero, so that it absorbs no relevance."""
    net = VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=N_CLASSES)
    nn.init.zeros_(net.encoder.pos_embedding)
    return net


def swin(**options: Any) -> nn.Module:
    return SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=N_CLASSES, **options)


Make = Callable[[], nn.Module]
NETWORKS: dict[str, tuple[Make, str, tuple[int, ...]]] = {
    "vit": (vision_transformer, "heads.head", (3, 16, 16)),
    "encoder": (Encoder, "fc", (7, 6)),
    "encoder with gelu and norms first": (lambda: Encoder(activation="gelu", norm_first=True), "fc", (7, 6)),
    "swin": (swin, "head", (3, 16, 16)),
    "swin 2": (
        lambda: swin(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2),
        "head",
        (3, 16, 16),
    ),
    "convnext": (
        lambda: ConvNeXt([CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 1)], layer_scale=0.5, num_classes=N_CLASSES),
        "classifier.2",
        (3, 16, 16),
    ),
    "group norm resnet": (
        lambda: ResNet(BasicBlock, [1, 1, 1, 1], N_CLASSES, norm_layer=lambda channels: nn.GroupNorm(8, channels)),
        "fc",
        (3, 16, 16),
    ),
}


@cache
def network(name: str) -> nn.Module:
    """The network with random weights, and norms as after training."""
    torch.manual_seed(0)
    net = NETWORKS[name][0]()
    for module in net.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return net.double().eval()


def inputs(name: str, n: int = N_INPUTS, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *NETWORKS[name][2], generator=generator, dtype=torch.float64)


def composite(net: nn.Module, softmax: str) -> Any:
    return named_composite("epsilon_plus", net, softmax, zero_params="bias")


def start_and_arrival(net: nn.Module, layer: str, x: Tensor, softmax: str) -> tuple[Tensor, Tensor]:
    """Σ of the relevance that starts, |φ_m| for each feature, and of what arrives, each (n,)."""
    started: list[Tensor] = []

    def start(features: Tensor) -> Tensor:
        started.append(features.abs().sum(1))
        return features.abs()

    arrived = Propagation(FeatureExtractor(net, layer), composite(net, softmax), "test")(x, start)
    return started[0], arrived.flatten(1).sum(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_conserved_where_attention_weights_are_constants(name: str) -> None:
    start, arrived = start_and_arrival(network(name), NETWORKS[name][1], inputs(name), "constant")
    torch.testing.assert_close(arrived, start, rtol=0.05, atol=0)


@pytest.mark.parametrize("name", ["vit", "encoder", "encoder with gelu and norms first", "swin 2"])
def test_what_does_not_arrive_is_what_the_constants_of_softmax_absorb(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    absorbed: list[Tensor] = []
    backward = _Softmax.backward

    def recorded(ctx: Any, relevance: Tensor) -> Any:
        shares, rest = backward(ctx, relevance)
        absorbed.append(relevance.sum() - shares.sum())
        return shares, rest

    monkeypatch.setattr(_Softmax, "backward", staticmethod(recorded))
    start, arrived = start_and_arrival(network(name), NETWORKS[name][1], inputs(name), "taylor")
    lost = torch.stack(absorbed).sum()
    torch.testing.assert_close(arrived.sum() + lost, start.sum(), rtol=0.05, atol=0)
    assert abs(lost) > 0.01 * start.sum()


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_one_line_explains_pairs_without_a_warning(name: str) -> None:
    net, layer = network(name), NETWORKS[name][1]
    train = TensorDataset(inputs(name, 7, seed=2), torch.arange(7) % N_CLASSES)
    method = DrawnKernel(net, layer, train, standardize=False)
    pairs = PairwiseRelevance(method, named_composite("epsilon_plus", net, zero_params="bias")).attribute(
        inputs(name), k=1
    )
    assert pairs.test_relevance.isfinite().all()
    if name == "convnext":
        torch.testing.assert_close(pairs.conservation, torch.ones_like(pairs.conservation), rtol=0, atol=0.05)


N_POSITIONS, N_IN = 6, 8


def planted(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with the pattern of its class at one position, drawn anew for each sequence: inputs, classes, positions."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.5 * torch.randn(n, N_POSITIONS, N_IN, generator=generator)
    labels = torch.randint(3, (n,), generator=generator)
    positions = torch.randint(N_POSITIONS, (n,), generator=generator)
    x[torch.arange(n), positions] += 3 * torch.eye(N_IN)[labels]
    return x, labels, positions


@cache
def trained() -> Encoder:
    torch.manual_seed(0)
    net = Encoder(1, N_IN, 16, 3, activation="gelu")
    x, labels, _ = planted(128, seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels).backward()
        optimizer.step()
    return net.eval()


def shares_of_positions(softmax: str, x: Tensor, labels: Tensor) -> Tensor:
    """Relevance of each position for the logit of the label, (n, positions)."""
    net = trained()
    propagation = Propagation(FeatureExtractor(net, "fc"), composite(net, softmax), "test")
    with torch.no_grad():
        return propagation(x, lambda features: net.fc.weight.detach()[labels] * features).sum(2)


@pytest.mark.parametrize("softmax", ["taylor", "constant"])
def test_the_planted_position_gets_the_relevance_and_its_deletion_the_logit(softmax: str) -> None:
    x, labels, positions = planted(64, seed=1)
    net, rows = trained(), torch.arange(64)
    with torch.no_grad():
        assert (net(x).argmax(1) == labels).float().mean() > 0.95
    shares = shares_of_positions(softmax, x, labels)
    assert (shares.argmax(1) == positions).float().mean() > 0.9

    def logit_without(which: Tensor) -> Tensor:
        deleted = x.clone()
        deleted[rows, which] = 0
        with torch.no_grad():
            return net(deleted)[rows, labels].mean()

    order = shares.argsort(1, descending=True)
    others = torch.stack([logit_without(order[:, k]) for k in range(1, N_POSITIONS)])
    assert logit_without(order[:, 0]) < others.min() - 1


def test_what_a_class_token_absorbs_is_told() -> None:
    """A class token of its own value is no part of the input, and takes its share of every residual sum."""
    torch.manual_seed(0)
    net = VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=3).double().eval()
    nn.init.normal_(net.class_token)
    nn.init.normal_(net.heads.head.weight)
    train = TensorDataset(torch.rand(12, 3, 16, 16, dtype=torch.float64), torch.arange(12) % 3)
    method = RepresenterPoints(net, "heads.head", train, show_progress=False)
    with pytest.warns(ConservationWarning, match="such as a class token, .* absorb relevance in .* of 8 heatmaps"):
        pairs = PairwiseRelevance(method, composite(net, "constant")).attribute(train.tensors[0][:2], k=2)
    assert float((pairs.conservation - 1).abs().max()) > 0.05
