"""Our solver on features that stay on disk: makes a memory-mapped problem of any size and measures time and memory.

    python -m benchmarks.solver_memory_map                     # 1,280,000 points, 512 features, 1,000 classes: 2.6 GB
    python -m benchmarks.solver_memory_map --n-train 20000     # seconds

The data are those of ``classes1000`` in ``benchmarks.solver``: overlapping Gaussian classes in 64 dimensions, through
random ReLU features, standardised. They are made block by block, so that memory holds one block at a time. The
measured memory is what the process itself allocates: pages of the map can be dropped at any time and do not count.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arguments import large_problem, large_problem_parser
from benchmarks.memory import AnonymousMemory
from benchmarks.rows import Row, Rows
from dualview_plugin.solver import SolverProgress, solve_crammer_singer

LATENT = 64
ROWS_PER_BLOCK = 20_000


def make_problem(
    folder: Path, n_train: int, n_features: int, n_classes: int, seed: int
) -> tuple[np.memmap, NDArray[np.int64]]:
    """The features as a float32 memory map in ``folder``, and the labels."""
    rng = np.random.default_rng(seed)
    centres, directions = rng.normal(size=(n_classes, LATENT)), rng.normal(size=(LATENT, n_features))
    labels = rng.integers(0, n_classes, n_train)
    path = folder / "features.float32"
    features = np.memmap(path, np.float32, "w+", shape=(n_train, n_features))
    mean = spread = None
    for start in range(0, n_train, ROWS_PER_BLOCK):
        own = labels[start : start + ROWS_PER_BLOCK]
        block = np.maximum((centres[own] + rng.normal(size=(len(own), LATENT))) @ directions, 0)
        if mean is None:  # the first block stands for all
            mean, spread = block.mean(axis=0), block.std(axis=0)
        features[start : start + len(own)] = (block - mean) / spread
    features.flush()
    return np.memmap(path, np.float32, "r", shape=(n_train, n_features)), labels


def main(arguments: Iterable[str] | None = None) -> None:
    chosen = large_problem_parser(__doc__).parse_args(None if arguments is None else list(arguments))
    warnings.simplefilter("ignore")  # a stop before the tolerance is in the output
    for row in Rows("solver_memory_map", "all", chosen.results).run(
        [large_problem(chosen)], lambda row: measured(row, chosen.folder)
    ):
        print(json.dumps(row["result"]))


def measured(row: Row, folder: Path | None) -> dict[str, Any]:
    """Seconds, memory and gap of one solve."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        features, labels = make_problem(Path(place), row["n_train"], row["n_features"], row["n_classes"], row["seed"])
        solve_crammer_singer(np.asarray(features[:2000]), labels[:2000], row["C"], max_iter=2)  # loads the kernels
        screens: list[SolverProgress] = []
        started, processor = time.perf_counter(), time.process_time()
        with AnonymousMemory() as memory:
            solution = solve_crammer_singer(
                features,
                labels,
                row["C"],
                n_classes=row["n_classes"],
                tol=row["tol"],
                time_limit=row["limit"],
                callback=screens.append,
                seed=row["seed"],
            )
        return {
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - processor,
            "gap": solution.duality_gap,
            "support": solution.n_support,
            "screens": [[screen.seconds, screen.duality_gap] for screen in screens],
            "memory_mib": memory.added_mib,
            "features_mib": features.nbytes / 2**20,
            "load": os.getloadavg()[0],
        }


if __name__ == "__main__":
    main()
