"""Features computed by Ray actors, and the same attributions as from this process; needs the extra ``ray``.

    python -m examples.on_ray

On a cluster, call ``ray.init(address="auto")`` first; the rest is the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from dualview_plugin import DualView, RayEngine, Storage
from examples.larger_than_memory import N_CLASSES, N_FEATURES, WIDTH, Numbered


def main() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, N_FEATURES), torch.nn.ReLU(), torch.nn.Linear(N_FEATURES, N_CLASSES)
    )
    data, test = Numbered(5000), torch.randn(3, WIDTH)
    values = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in (RayEngine(n_workers=2), "local"):
            storage = Storage(Path(folder) / type(engine).__name__, shard_size=500, engine=engine)
            method = DualView(network, "2", data, cache_dir=storage, show_progress=False)
            values.append(method.attribute(test))
            assert method.store_ is not None
            print(f"{type(engine).__name__}: {method.store_.n_computed} shards computed")
    print("largest difference:", float((values[0] - values[1]).abs().max()))


if __name__ == "__main__":
    main()
