"""A problem to try things on: scikit-learn's digits as images, and a small network that learns them in seconds.

It needs no download. The examples, the command ``dualview demo`` and the documentation start from it.

Example:
    >>> from dualview_plugin.demo import load_digits
    >>> digits = load_digits()
    >>> digits.x_test.shape, len(digits.train)
    (torch.Size([500, 1, 24, 24]), 1297)
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits as sklearn_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm


@dataclass(frozen=True)
class Digits:
    """1,297 training and 500 test images, one channel, values from 0 to 1, with their labels from 0 to 9."""

    train: TensorDataset
    test: TensorDataset

    @property
    def x_test(self) -> Tensor:
        """Test images, (n_test, 1, size, size)."""
        return self.test.tensors[0]

    @property
    def y_test(self) -> Tensor:
        """Test labels, (n_test,)."""
        return self.test.tensors[1]


def load_digits(size: int = 24, n_test: int = 500, seed: int = 0) -> Digits:
    """The digits, enlarged from 8 × 8 to ``size`` × ``size`` pixels and split at random; needs no download.

    Example:
        >>> from dualview_plugin.demo import load_digits
        >>> load_digits(size=8, n_test=100).x_test.shape
        torch.Size([100, 1, 8, 8])
    """
    images, labels = sklearn_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    x = interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    y = torch.tensor(labels, dtype=torch.int64)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    test, train = order[:n_test], order[n_test:]
    return Digits(TensorDataset(x[train], y[train]), TensorDataset(x[test], y[test]))


def small_cnn(n_classes: int = 10, size: int = 24, n_features: int = 64, n_channels: int = 1) -> nn.Sequential:
    """Two convolutions and two linear layers. DualView explains from the input of the last one, ``fc``.

    Example:
        >>> import torch
        >>> from dualview_plugin.demo import small_cnn
        >>> small_cnn()(torch.zeros(2, 1, 24, 24)).shape
        torch.Size([2, 10])
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(n_channels, 16, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(32 * (size // 4) ** 2, n_features),
            relu3=nn.ReLU(),
            fc=nn.Linear(n_features, n_classes),
        )
    )


def train(
    model: nn.Module, dataset: Dataset[Any], epochs: int = 12, seed: int = 0, show_progress: bool = True
) -> nn.Module:
    """Train in place with Adam, return in eval mode; the same seed gives the same order of batches.

    Example:
        >>> from dualview_plugin.demo import accuracy, load_digits, small_cnn, train
        >>> digits = load_digits(size=8)
        >>> model = train(small_cnn(size=8), digits.train, epochs=1, show_progress=False)
        >>> model.training, accuracy(model, digits.test) > 0.2
        (False, True)
    """
    loader = DataLoader(dataset, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for _ in tqdm(range(epochs), desc="training the network", disable=not show_progress):
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, dataset: TensorDataset) -> float:
    """Share of the images whose strongest output is their label.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from dualview_plugin.demo import accuracy
        >>> data = torch.utils.data.TensorDataset(torch.eye(4), torch.tensor([0, 1, 2, 0]))
        >>> accuracy(nn.Flatten(), data)
        0.75
    """
    x, y = dataset.tensors
    return float((model(x).argmax(dim=1) == y).float().mean())
