"""One of several processes that add up together, ``python -m tests.engines.summing METHOD FOLDER``; prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dualview_plugin import InfluenceFunctions, RepresenterPoints
from dualview_plugin.engines import SumWork
from dualview_plugin.storage import Storage
from tests.storage.worlds import TEST, Decoded, network

N = 200
MADE: dict[str, Any] = {
    "exact": lambda **options: InfluenceFunctions(network(), "2", Decoded(N), solver="exact", **options),
    "cg": lambda **options: InfluenceFunctions(network(), "2", Decoded(N), solver="cg", tol=1e-12, **options),
    "newton": lambda **options: RepresenterPoints(network(), "2", Decoded(N), tol=1e-9, **options),
}


def method_of(name: str, storage: Storage | None) -> Any:
    return MADE[name](cache_dir=storage, show_progress=False)


def meeting(folder: Path, n_processes: int) -> None:
    """Wait until all processes are here: those that come late find everything done."""
    (folder / f"here-{time.monotonic_ns()}").touch()
    patience = time.monotonic() + 120
    while len(list(folder.glob("here-*"))) < n_processes and time.monotonic() < patience:
        time.sleep(0.01)


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    parts: list[tuple[str, int, int]] = []
    part = SumWork.part

    def noted(work: SumWork, rows: range, method: str, inputs: Any) -> Any:
        parts.append((method, rows.start, rows.stop))
        time.sleep(0.5 if name == "exact" else 0.02)  # a part that takes some time is shared
        return part(work, rows, method, inputs)

    SumWork.part = noted  # type: ignore[method-assign]
    method = method_of(name, Storage(folder / "store", shard_size=8, engine="ranks"))
    meeting(folder, int(sys.argv[3]))
    values = method.attribute(TEST)
    print(json.dumps({"parts": parts, "values": values.tolist()}))
