"""Kills a fit at random moments, and counts: ``python -m tests.storage.killing FOLDER N_KILLS``; prints one JSON line.

The process imports everything once and runs nothing of it; each fit is a fork that is killed with SIGKILL. Every round
of fits has a store of its own, and ends with a fit that is left alone.
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

from dualview_plugin.storage.shards import ShardStore
from tests.storage.worlds import TEST, Decoded, dualview

N, N_SHARDS = 160, 20
KILLS_IN_A_ROUND = 20


class Slow(Decoded):
    """Half a millisecond for each sample."""

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.0005)
        return super().__getitem__(index)


def fit(folder: Path | None, log: Path, result: Path) -> None:
    """Fit, note each shard once it is written, and keep the attributions."""
    torch.set_num_threads(1)
    write = ShardStore.write

    def noted(store: ShardStore, shard: int, *args: Any) -> None:
        write(store, shard, *args)
        with log.open("a") as file:
            file.write(f"{shard}\n")

    ShardStore.write = noted  # type: ignore[method-assign]
    torch.save(dualview(folder, Slow(N)).attribute(TEST), result)


def forked(*args: Any) -> int:
    """The number of a process that fits."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fit(*args)
            status = 0
        finally:
            os._exit(status)
    return child


def finish(*args: Any) -> float:
    """A fit that is left alone; returns its seconds."""
    started = time.perf_counter()
    _, status = os.waitpid(forked(*args), 0)
    assert status == 0, f"a fit failed with {status}"
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
            time.sleep(chance.uniform(0, 0.6 * duration))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            counts["kills"] += 1
            counts["killed"] += os.WIFSIGNALED(status)
        finish(store, log, result)
        shards = Counter(log.read_text().split())
        counts["rounds"] += 1
        counts["wrong"] += not torch.equal(*(torch.load(path) for path in (result, folder / "first result")))
        counts["twice"] += sum(number > 1 for number in shards.values())
        counts["never"] += N_SHARDS - len(shards)  # written, and killed before the note
        counts["leftovers"] += len(list(store.rglob(".tmp*")) + list(store.rglob("*.lock")))
    return dict(counts)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
