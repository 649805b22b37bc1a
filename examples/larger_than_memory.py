"""A store that is built in two interrupted runs, then fitted from and explained with, and the memory that it took.

python -m examples.larger_than_memory                    # 40,000 points, half a minute
python -m examples.larger_than_memory --n-train 1280000  # ImageNet's size
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualview_plugin import DualView

WIDTH, N_FEATURES, N_CLASSES = 32, 128, 10


class Numbered(Dataset[Any]):
    """Sample i is a function of i: nothing is held in memory.

    Args:
        n: samples.
        stop: sample at which reading is interrupted, as by Ctrl-C; None: nowhere.
    """

    def __init__(self, n: int, stop: int | None = None) -> None:
        self.n, self.stop = n, stop
        self.centres = torch.randn(N_CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.stop:
            raise KeyboardInterrupt
        noise = torch.randn(WIDTH, generator=torch.Generator().manual_seed(index))
        return self.centres[index % N_CLASSES] + noise, index % N_CLASSES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-train", type=int, default=40_000)
    parser.add_argument("--folder", type=Path, help="for the store; a temporary one by default")
    args = parser.parse_args()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(WIDTH, N_FEATURES), nn.ReLU(), nn.Linear(N_FEATURES, N_CLASSES))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for stop in (args.n_train // 3, 2 * args.n_train // 3):
            try:
                DualView(network, "2", Numbered(args.n_train, stop), cache_dir=folder, show_progress=False).fit()
            except KeyboardInterrupt as interruption:
                print(*interruption.__notes__)
        method = DualView(network, "2", Numbered(args.n_train), cache_dir=folder, time_limit=300, show_progress=False)
        method.fit()
        assert method.store_ is not None
        print(f"this run computed {method.store_.n_computed} of {method.store_.n_shards} shards")
        test = torch.stack([Numbered(args.n_train + 5)[args.n_train + i][0] for i in range(5)])
        found = method.influence(test, k=3)
        for indices, scores in zip(found.indices.tolist(), found.influence_scores.tolist(), strict=True):
            print("  ".join(f"point {index}: {score:+.4f}" for index, score in zip(indices, scores, strict=True)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"peak memory {peak:.0f} MiB, mapped features ({4 * args.n_train * N_FEATURES / 2**20:.0f} MiB) included")


if __name__ == "__main__":
    main()
