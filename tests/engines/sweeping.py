"""One of several processes that share a pass, ``python -m tests.engines.sweeping METHOD ENGINE FOLDER``; gives JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from dualview_plugin import attribution
from dualview_plugin.storage import Storage
from tests.storage.worlds import TEST, Decoded, network

N, SIZE, K = 200, 8, 11


class Slow(Decoded):
    """Five milliseconds for each sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)
        return super().__getitem__(index)


def method_of(name: str, data: Any, storage: Storage | None) -> Any:
    """A method of this name; TracIn has two checkpoints."""
    options = {"checkpoints": [network(seed).state_dict() for seed in (1, 2)]} if name == "TracIn" else {}
    return getattr(attribution, name)(network(), "2", data, cache_dir=storage, show_progress=False, **options)


class SlowScores:
    """Makes a pass over features in memory slow enough to be shared."""

    def __init__(self, method: Any) -> None:
        self.products = method._products
        method._products = self

    def __call__(self, vectors: Any, rows: range) -> Any:
        time.sleep(0.02)
        return self.products(vectors, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    method = method_of(sys.argv[1], Slow(N), Storage(sys.argv[3], shard_size=SIZE, engine=sys.argv[2])).fit()
    if hasattr(method, "_products"):
        SlowScores(method)
    found = method.influence(TEST, k=K)
    assert method.sweep_ is not None
    print(
        json.dumps(
            {
                "computed": method.sweep_.n_computed,
                "shards": method.sweep_.n_shards,
                "indices": found.indices.tolist(),
                "values": found.influence_scores.tolist(),
            }
        )
    )
