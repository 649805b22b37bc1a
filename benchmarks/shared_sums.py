"""What two ranks gain where a fit or a solver adds up over the training points: Hessian, its products, Newton's method.

    python -m benchmarks.shared_sums                 # three sums, three repeats: a quarter of an hour
    python -m benchmarks.shared_sums --sums hessian

Each rank is a process with one thread, as if on a node of its own; one rank is ``engine="local"``. The features are in
a store before the clock starts. A measurement is the time of the slower rank: of the fit, and for ``products`` of
attributions to test points by conjugate gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from benchmarks.dualview_from_store import network, points
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows
from dualview_plugin import FeatureSimilarity, InfluenceFunctions, RepresenterPoints, Storage
from dualview_plugin.attribution import DataAttribution

# Training points, features and classes, and test points.
SIZES = {"hessian": (50_000, 256, 10, 0), "products": (20_000, 512, 100, 10), "newton": (100_000, 512, 100, 0)}
LABELS = {
    "hessian": "Hessian, influence functions' exact solver",
    "products": "its products, by conjugate gradients for 10 test points",
    "newton": "Newton's method, representer points",
}
RANKS = (1, 2)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sums", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--n-train", type=int, help="fewer points, for a trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    if chosen.rank:
        print(json.dumps(rank_seconds(json.loads(chosen.rank[0]), Path(chosen.rank[1]))))
        return
    jobs = [
        {"sum": name, "n_train": chosen.n_train or SIZES[name][0], "repeat": repeat, "ranks": ranks}
        for name in chosen.sums
        for repeat in range(chosen.repeats)
        for ranks in RANKS
    ]
    Rows("shared_sums", "all", chosen.results).run(jobs, measured)


def measured(row: Row) -> dict[str, Any]:
    """Seconds of the slower rank, on a store that is there."""
    with tempfile.TemporaryDirectory() as folder:
        method(row, Path(folder), stored=True).fit()
        ranks = []
        for rank in range(row["ranks"]):
            own = {"RANK": str(rank), "WORLD_SIZE": str(row["ranks"]), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            command = [sys.executable, "-m", "benchmarks.shared_sums", "--rank", json.dumps(row), folder]
            ranks.append(subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, text=True))
        outputs = [rank.communicate()[0] for rank in ranks]
        assert all(rank.returncode == 0 for rank in ranks)
    return {"seconds": max(map(float, outputs)), "load": os.getloadavg()[0]}


def rank_seconds(row: Row, folder: Path) -> float:
    """Seconds of one rank's fit, or of its attributions."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a stop before the tolerance does not matter here
    own = method(row, folder)
    _, _, n_classes, n_test = SIZES[row["sum"]]
    if n_test:
        own.fit()
    (folder / f"here-{os.environ['RANK']}").touch()
    while len(list(folder.glob("here-*"))) < row["ranks"]:
        time.sleep(0.01)
    started = time.perf_counter()
    if n_test:
        own.influence(points(n_test, n_classes, None, seed=1)[0], k=10)
    else:
        own.fit()
    return time.perf_counter() - started


def method(row: Row, folder: Path, *, stored: bool = False) -> DataAttribution:
    """The method that adds up, or one that stores the features for it and does nothing else."""
    _, n_features, n_classes, _ = SIZES[row["sum"]]
    train = TensorDataset(*points(row["n_train"], n_classes, None, seed=0))
    engine = "ranks" if row["ranks"] > 1 and not stored else "local"
    body = network(n_features, n_classes)
    options: Any = {"cache_dir": Storage(folder, engine=engine), "show_progress": False, "batch_size": 2048}
    if stored:
        return FeatureSimilarity(body, "2", train, **options)
    if row["sum"] == "newton":
        return RepresenterPoints(body, "2", train, **options)
    return InfluenceFunctions(body, "2", train, solver="exact" if row["sum"] == "hessian" else "cg", **options)


def summary(rows: list[Row]) -> list[Row]:
    """The medians of each sum, with one rank and with two, and their ratio."""
    table = []
    for name, (n_train, n_features, n_classes, _) in SIZES.items():
        own = [row for row in rows if row["sum"] == name and row["n_train"] == n_train]
        seconds = {ranks: [row["seconds"] for row in own if row["ranks"] == ranks] for ranks in RANKS}
        if all(seconds.values()):
            one, two = (statistics.median(seconds[ranks]) for ranks in RANKS)
            size = f"{n_train:,} × {n_features} × {n_classes}"
            table.append({"sum": name, "size": size, "one": one, "two": two, "ratio": two / one})
    return table


if __name__ == "__main__":
    main()
