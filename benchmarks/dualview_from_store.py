"""DualView on features that stay on disk: time and memory of the public class, from a store of shards.

    python -m benchmarks.dualview_from_store                      # 1,280,000 points, 512 features, 1,000 classes
    python -m benchmarks.dualview_from_store --n-train 160000

The data are overlapping Gaussian classes in 64 dimensions, as in ``benchmarks.solver_memory_map``, and lie in a mapped
file; the network is one layer of random ReLU features and a head. Memory is what the process allocates beside mapped
files, whose pages can be dropped at any time. The disk needs three times the features at the peak: the shards, their
standardised copy, and the support points.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.record import environment
from benchmarks.solver_memory_map import LATENT, AnonymousMemory
from dualview_plugin import DualView

N_TEST, K = 1000, 10
ROWS_PER_BLOCK = 20_000


def points(n: int, n_classes: int, folder: Path | None, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, 64), in a mapped file if there is a folder, and labels (n,)."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(n_classes, LATENT, generator=generator)
    generator.manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    inputs = (
        torch.empty(n, LATENT)
        if folder is None
        else torch.from_file(str(folder / "inputs"), shared=True, size=n * LATENT).view(n, LATENT)
    )
    for start in range(0, n, ROWS_PER_BLOCK):
        own = labels[start : start + ROWS_PER_BLOCK]
        inputs[start : start + len(own)] = centres[own] + torch.randn(len(own), LATENT, generator=generator)
    return inputs, labels


def network(n_features: int, n_classes: int) -> nn.Module:
    """Random ReLU features and a head."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(LATENT, n_features, bias=False), nn.ReLU(), nn.Linear(n_features, n_classes))


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The row of one run: building the store, the fit from it, and the strongest points of 1,000 test points."""
    (folder / "store").mkdir(exist_ok=True)
    train = TensorDataset(*points(args.n_train, args.n_classes, folder, seed=1))
    test, _ = points(N_TEST, args.n_classes, None, seed=2)
    make = lambda: DualView(  # noqa: E731
        network(args.n_features, args.n_classes),
        "2",
        train,
        C=args.C,
        tol=args.tol,
        time_limit=args.limit,
        cache_dir=folder / "store",
        batch_size=2048,
        show_progress=args.progress,
    )
    row: dict[str, Any] = {"shape": [args.n_train, args.n_features, args.n_classes], "C": args.C}
    steps = ("build", "fit", "top10")
    method = make()
    for step in steps:
        if step == "fit":
            method = make()
        with AnonymousMemory() as memory:
            started = time.perf_counter()
            if step == "build":
                with method.visit():
                    method._training_features(n_logits=0)
            elif step == "fit":
                method.fit()
            else:
                method.influence(test, k=K)
            row[f"{step}_s"] = round(time.perf_counter() - started, 2)
        row[f"{step}_mib"] = round(memory.added)
        print(json.dumps(row), flush=True)
    assert method.store_ is not None
    assert method.store_.n_computed == 0  # the fit read the store
    return {
        **row,
        "gap": method.solution_.duality_gap,
        "support": method.solution_.n_support,
        "features_mib": round(4 * args.n_train * args.n_features / 2**20),
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
    parser.add_argument("--folder", type=Path, help="an existing folder; a temporary one by default")
    parser.add_argument("--progress", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # a stop before the tolerance is in the output
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(json.dumps(measure(args, Path(folder))))


if __name__ == "__main__":
    main()
