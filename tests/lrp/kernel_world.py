"""A feature kernel with coefficients drawn at random, on small networks: LRP is tested apart from any fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import FeatureKernelAttribution
from dualview_plugin.features import Standardizer

N_TRAIN, N_TEST, N_FEATURES, N_CLASSES, K = 13, 3, 11, 5, 2
SHAPE = (2, 7, 5)


class DrawnKernel(FeatureKernelAttribution):
    """All but two of the training points are support points, with normal coefficients."""

    def __init__(self, *args: Any, standardize: bool = True, offset: float = 0.0, **common: Any) -> None:
        super().__init__(*args, show_progress=False, **common)
        self.standardize, self.kernel_offset_ = standardize, offset

    def _fit(self) -> None:
        raw = self._training_features().features
        self._standardizer = (Standardizer.from_features if self.standardize else Standardizer.identity)(raw)
        features = self.transform_features(raw)
        generator = torch.Generator().manual_seed(7)
        support = torch.randperm(len(raw), generator=generator)[2:].sort().values
        coefficients = torch.randn(len(support), self.n_classes_, generator=generator, dtype=raw.dtype)
        self._set_support(support, features, coefficients)
        self.surrogate_weight_ = self.dual_coef_.T @ self.support_features_
        self.surrogate_bias_ = self.kernel_offset_ * self.dual_coef_.sum(dim=0)


def cnn(bias: bool = False) -> nn.Sequential:
    """Convolutions, a pooling, and two linear layers, the last one called ``fc``."""
    torch.manual_seed(3)
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(SHAPE[0], 17, 3, padding=1, bias=bias))
    model.add_module("relu1", nn.ReLU())
    model.add_module("conv2", nn.Conv2d(17, 19, 3, bias=bias))
    model.add_module("relu2", nn.ReLU())
    model.add_module("pool", nn.MaxPool2d((2, 1)))
    model.add_module("flatten", nn.Flatten())
    model.add_module("hidden", nn.Linear(19 * 2 * 3, N_FEATURES, bias=bias))
    model.add_module("relu3", nn.ReLU())
    model.add_module("fc", nn.Linear(N_FEATURES, N_CLASSES, bias=bias))
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)  # activations of order 1, far above the rules' stabilizers of 1e-6
    return model.double()


def images(n: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    """Random images with values in [0, 1], in double precision like the network."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(model: nn.Module | None = None, layer: str = "fc", **options: Any) -> DrawnKernel:
    """The kernel on the CNN without biases, or on another network."""
    train = TensorDataset(images(N_TRAIN), torch.arange(N_TRAIN) % N_CLASSES)
    return DrawnKernel(cnn() if model is None else model, layer, train, **options)
