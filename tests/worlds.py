"""Small networks and datasets with distinct primes for sizes, shared by the suites."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

N_TRAIN, N_TEST, N_FEATURES, N_CLASSES = 31, 7, 11, 5
EMPTY_CLASS = 3  # no training point has this label


@dataclass
class World:
    """A network, its training data and test inputs."""

    model: nn.Module
    train: TensorDataset
    x_test: Tensor
    final_fc_layer: str = "fc"


class SmallNet(nn.Module):
    """Convolution, batch norm, dropout and two linear layers with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.hidden = nn.Linear(3 * 3 * 5, N_FEATURES)
        self.fc = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.fc(torch.relu(self.hidden(self.dropout(x))))


def small_world(seed: int = 0, dtype: torch.dtype = torch.float32) -> World:
    """A network with running statistics that are not the default, in train mode as after training."""
    torch.manual_seed(seed)
    model = SmallNet().to(dtype)
    for _ in range(3):
        model(torch.randn(17, 2, 5, 7, dtype=dtype) + 0.3)
    x = torch.randn(N_TRAIN, 2, 5, 7, dtype=dtype)
    labels = torch.arange(N_TRAIN) % (N_CLASSES - 1)
    labels[labels >= EMPTY_CLASS] += 1
    x += labels[:, None, None, None].to(dtype) / 2
    return World(model, TensorDataset(x, labels), torch.randn(N_TEST, 2, 5, 7, dtype=dtype) + 1)
