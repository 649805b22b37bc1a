"""Our solver on features that stay on disk: makes a memory-mapped problem of any size and measures time and memory.

    python -m benchmarks.solver_memory_map                     # 1,280,000 points, 512 features, 1,000 classes: 2.6 GB
    python -m benchmarks.solver_memory_map --n-train 20000     # seconds

The data are those of ``classes1000`` in ``benchmarks.solver``: overlapping Gaussian classes in 64 dimensions, through
random ReLU features, standardised. They are made block by block, so that memory holds one block at a time. The
measured memory is what the process itself allocates: pages of the map can be dropped at any time and do not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import environment
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


class AnonymousMemory:
    """The peak of the memory that the process has allocated since the start, in MiB, sampled ten times a second.

    Linux only. A context manager.
    """

    def __init__(self) -> None:
        self.before = self.peak = _anonymous_mib()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def added(self) -> float:
        return self.peak - self.before

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, _anonymous_mib())


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    features, labels = make_problem(folder, args.n_train, args.n_features, args.n_classes, args.seed)
    solve_crammer_singer(np.asarray(features[:2000]), labels[:2000], args.C, max_iter=2)  # loads the kernels
    screens: list[SolverProgress] = []
    started = time.perf_counter()
    with AnonymousMemory() as memory:
        solution = solve_crammer_singer(
            features,
            labels,
            args.C,
            n_classes=args.n_classes,
            tol=args.tol,
            time_limit=args.limit,
            callback=screens.append,
            seed=args.seed,
        )
    seconds = time.perf_counter() - started
    return {
        "shape": [args.n_train, args.n_features, args.n_classes],
        "C": args.C,
        "seconds": round(seconds, 2),
        "gap": solution.duality_gap,
        "support": solution.n_support,
        "screens": [[round(screen.seconds, 1), screen.duality_gap] for screen in screens],
        "memory_mib": round(memory.added),
        "features_mib": round(features.nbytes / 2**20),
        "commit": environment()["commit"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-train", type=int, default=1_280_000)
    parser.add_argument("--n-features", type=int, default=512)
    parser.add_argument("--n-classes", type=int, default=1000)
    parser.add_argument("--C", type=float, default=1e-4)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for the solve")
    parser.add_argument("--folder", type=Path, help="where the features are written; a temporary folder by default")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # a stop before the tolerance is in the output
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(args, args.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, Path(folder))))


if __name__ == "__main__":
    main()
