"""Networks wired by a function, for LRP beside that of a twin that computes the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from zennit.composites import EpsilonPlus
from zennit.core import Composite

from dualview_plugin.features import FeatureExtractor
from dualview_plugin.lrp import named_composite
from dualview_plugin.lrp.propagation import propagate

CLOSE = {"rtol": 1e-6, "atol": 1e-9}
N_CHANNELS, N_CLASSES = 4, 3
X = torch.rand(5, 1, 11, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Wired(nn.ModuleDict):
    """Layers and the function that runs them, in double precision; the last layer is ``fc``."""

    def __init__(self, wiring: Callable[[Wired, Tensor], Tensor], layers: dict[str, nn.Module]) -> None:
        super().__init__({**layers, "fc": nn.Linear(N_CHANNELS, N_CLASSES)})
        self.wiring = wiring
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        """The wiring, the mean over positions, and the last layer."""
        return self["fc"](self.wiring(self, x).mean((2, 3)))


def conv(n_in: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, N_CHANNELS, 3, padding=1)


def norm(eps: float = 1e-5, affine: bool = True) -> nn.BatchNorm2d:
    """A batch norm as after training."""
    layer = nn.BatchNorm2d(N_CHANNELS, eps=eps, affine=affine)
    layer.running_mean.normal_(std=0.1)
    layer.running_var.uniform_(0.3, 3.0)
    if affine:
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias, std=0.1)
    return layer


def maps(net: nn.Module, composite: Composite | None = None, layer: str = "fc", x: Tensor = X) -> Tensor:
    """Relevance of the features themselves in the input."""
    composite = composite or named_composite("epsilon_plus", net, zero_params="bias")
    return propagate(FeatureExtractor(net, layer), x, lambda features: features, composite)


def plain_rules() -> Composite:
    """The rules without a canonizer, for networks that have nothing to canonize."""
    return EpsilonPlus(zero_params="bias")
