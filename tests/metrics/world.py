"""A small world for the metrics: a linear network on images, a training set, and an explainer with a known matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from dualview_plugin.attribution import DataAttribution

N_TEST, N_TRAIN, N_CLASSES, N_CHANNELS, HEIGHT, WIDTH = 11, 17, 3, 2, 5, 7

generator = torch.Generator().manual_seed(0)
TRAIN_LABELS = torch.arange(N_TRAIN) % N_CLASSES
TRAIN_DATASET = TensorDataset(torch.randn(N_TRAIN, N_CHANNELS, HEIGHT, WIDTH, generator=generator), TRAIN_LABELS)
X_TEST = torch.randn(N_TEST, N_CHANNELS, HEIGHT, WIDTH, generator=generator).numpy()
MATRIX = torch.randn(N_TEST, N_CLASSES, N_TRAIN, generator=generator)


class Network(nn.Module):
    """Flatten, a hidden layer with dropout, a final layer."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(N_CHANNELS * HEIGHT * WIDTH, 13)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(13, N_CLASSES, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.dropout(torch.relu(self.hidden(images.flatten(1)))))


def network() -> Network:
    torch.manual_seed(1)
    return Network()


@torch.no_grad()
def decisions(model: nn.Module) -> np.ndarray:
    """What the network takes the test points for, (n_test,)."""
    model.eval()
    return model(torch.from_numpy(X_TEST)).argmax(dim=1).numpy()


class TableAttribution(DataAttribution):
    """Looks its attributions up in a table, (n_test, n_classes, n_train), by the nearest test point."""

    def __init__(self, model: nn.Module, table: Tensor = MATRIX, *, block_size: int = 4, **common: Any) -> None:
        super().__init__(model, "fc", TRAIN_DATASET, show_progress=False, **common)
        self.table, self._block_size, self.largest_block, self.explained = table, block_size, 0, []

    @property
    def block_size(self) -> int:
        return self._block_size

    def _fit(self) -> None:
        self._training_labels()

    def _attribute_block(self, inputs: Tensor, target: Tensor) -> Tensor:
        self.largest_block = max(self.largest_block, len(inputs))
        self.explained += target.tolist()
        rows = torch.cdist(inputs.flatten(1).double(), torch.from_numpy(X_TEST).flatten(1).double()).argmin(dim=1)
        return self.table[rows, target]

    def _pair_attribution(self, inputs: Tensor, target: Tensor, train_indices: Tensor) -> Tensor:
        return inputs.flatten(1).square().sum(dim=1, keepdim=True).expand(-1, train_indices.shape[1])

    def _self_influence(self) -> Tensor:
        return torch.arange(N_TRAIN, dtype=torch.float32)
