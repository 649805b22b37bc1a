"""Kills work at random moments, and counts: ``python -m tests.storage.killing FOLDER N_KILLS``; prints one JSON line.

The work is a fit of DualView, one of projected gradients, and a pass over exact gradients. The process imports
everything once and runs nothing of it; each piece of work is a fork that is killed with SIGKILL. Every round has a
store of its own, and ends with work that is left alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from dualview_plugin import GradientSimilarity, ProjectedGradientSimilarity, Storage
from dualview_plugin.storage.shards import ShardStore
from tests.storage.worlds import TEST, Decoded, dualview, network

N = 80
# Of features; of labels for each of two methods, in one store; of projected gradients; of attributions, all and top 3.
N_SHARDS = 10 * (1 + 1 + 1 + 2)
KILLS_IN_A_ROUND = 20


class Slow(Decoded):
    """A fifth of a millisecond for each sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.0002)
        return super().__getitem__(index)


def work(folder: Path | None, log: Path, result: Path) -> None:
    """Fit and attribute, note each shard once it is written, and keep the attributions."""
    torch.set_num_threads(1)
    write = ShardStore.write

    def noted(store: ShardStore, shard: int, *args: Any) -> None:
        write(store, shard, *args)
        with log.open("a") as file:
            file.write(f"{store.folder.name}/{shard}\n")

    ShardStore.write = noted  # type: ignore[method-assign]
    data = Slow(N)
    options: dict[str, Any] = {
        "cache_dir": None if folder is None else Storage(folder, shard_size=8),
        "show_progress": False,
        "batch_size": 8,
    }
    projected = ProjectedGradientSimilarity(network(), "2", data, n_components=5, **options)
    exact = GradientSimilarity(network(), "2", data, **options)
    values = [dualview(folder, data).attribute(TEST), projected.attribute(TEST), exact.attribute(TEST)]
    torch.save([*values, *exact.influence(TEST, k=3)], result)


def forked(*args: Any) -> int:
    """The number of a process that works."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*args)
            status = 0
        finally:
            os._exit(status)
    return child


def finish(*args: Any) -> float:
    """Work that is left alone; returns its seconds."""
    started = time.perf_counter()
    _, status = os.waitpid(forked(*args), 0)
    assert status == 0, f"work failed with {status}"
    return time.perf_counter() - started


def main(folder: Path, n_kills: int) -> dict[str, int]:
    """The counts."""
    chance = random.Random(0)
    finish(None, folder / "log", folder / "expected")
    duration = finish(folder / "first", folder / "log", folder / "first result")
    counts: Counter[str] = Counter(kills=0, killed=0, rounds=0, wrong=0, twice=0, never=0, leftovers=0)
    while counts["kills"] < n_kills:
        number = counts["rounds"]
        store, log, result = (folder / f"{name} {number}" for name in ("store", "log", "result"))
        for _ in range(min(KILLS_IN_A_ROUND, n_kills - counts["kills"])):
            child = forked(store, log, result)
            time.sleep(chance.uniform(0, 0.5 * duration))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            counts["kills"] += 1
            counts["killed"] += os.WIFSIGNALED(status)
        finish(store, log, result)
        shards = Counter(log.read_text().split())
        counts["rounds"] += 1
        found, expected = (torch.load(path) for path in (result, folder / "first result"))
        counts["wrong"] += not all(map(torch.equal, found, expected))
        counts["twice"] += sum(number > 1 for number in shards.values())
        counts["never"] += N_SHARDS - len(shards)  # written, and killed before the note
        counts["leftovers"] += len(list(store.rglob(".tmp*")) + list(store.rglob("*.lock")))
    return dict(counts)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
