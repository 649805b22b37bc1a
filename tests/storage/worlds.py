"""A world whose samples and passes are counted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from dualview_plugin import DualView
from dualview_plugin.storage import Storage

N, WIDTH, CLASSES = 43, 6, 4


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, 11), nn.ReLU(), nn.Linear(11, CLASSES))


def tensors(n: int = N) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(n, WIDTH, generator=generator), torch.arange(n) % CLASSES)


TEST = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))


class Decoded(Dataset[Any]):
    """Samples that are made one by one; knows nothing without making them."""

    def __init__(self, n: int = N) -> None:
        source = tensors(n)
        reads: list[int] = []
        self.reads_of, self.length = lambda: reads, n
        self.read = lambda index: (reads.append(index), source[index])[1]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        x, y = self.read(index)
        return x, int(y)


def dualview(folder: Path | None, data: Any = None, model: nn.Module | None = None, **options: Any) -> DualView:
    """A method with shards of eight rows in the folder."""
    of_storage = {name: options.pop(name) for name in ("dtype", "verify", "engine") if name in options}
    storage = None if folder is None else Storage(folder, shard_size=8, **of_storage)
    data = tensors() if data is None else data
    return DualView(model or network(), "2", data, C=0.05, cache_dir=storage, show_progress=False, **options)


N_SHARDS = math.ceil(N / 8)
