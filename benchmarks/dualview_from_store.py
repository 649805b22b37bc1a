"""DualView on features that stay on disk: time and memory of the public class, from a store of shards.

    python -m benchmarks.dualview_from_store                      # 1,280,000 points, 512 features, 1,000 classes
    python -m benchmarks.dualview_from_store --n-train 160000

The data are overlapping Gaussian classes in 64 dimensions, as in ``benchmarks.solver_memory_map``, and lie in a mapped
file; the network is one layer of random ReLU features and a head. Memory is what the process allocates beside mapped
files, whose pages can be dropped at any time. The disk needs three times the features at the peak: the shards, their
standardised copy, and the support points.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.arguments import large_problem, large_problem_parser
from benchmarks.memory import AnonymousMemory
from benchmarks.rows import Row, Rows
from benchmarks.solver_memory_map import LATENT
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


def main(arguments: Iterable[str] | None = None) -> None:
    parser = large_problem_parser(__doc__)
    parser.add_argument("--progress", action="store_true")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    warnings.simplefilter("ignore")  # a stop before the tolerance is in the output
    for row in Rows("dualview_from_store", "all", chosen.results).run(
        [large_problem(chosen)], lambda row: measured(row, chosen.folder, chosen.progress)
    ):
        print(json.dumps(row["result"]))


def measured(row: Row, folder: Path | None, show_progress: bool) -> dict[str, Any]:
    """Seconds and memory of building the store, of the fit from it, and of the strongest points for test points."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "store").mkdir()
        train = TensorDataset(*points(row["n_train"], row["n_classes"], Path(place), seed=row["seed"] + 1))
        test, _ = points(N_TEST, row["n_classes"], None, seed=row["seed"] + 2)
        body = network(row["n_features"], row["n_classes"])
        options = {"C": row["C"], "tol": row["tol"], "time_limit": row["limit"], "batch_size": 2048}
        make = lambda: DualView(  # noqa: E731
            body, "2", train, cache_dir=Path(place) / "store", show_progress=show_progress, **options
        )
        builder, fitted = make(), make()
        found: dict[str, Any] = {}
        steps: dict[str, Callable[[], object]] = {
            "build": lambda: _stored(builder),
            "fit": fitted.fit,
            "top10": lambda: fitted.influence(test, k=K),
        }
        for name, step in steps.items():
            with AnonymousMemory() as memory:
                started = time.perf_counter()
                step()
                found[f"{name}_seconds"] = time.perf_counter() - started
            found[f"{name}_mib"] = memory.added_mib
        assert fitted.store_ is not None
        assert fitted.store_.n_computed == 0  # the fit read the store
        return {
            **found,
            "gap": fitted.solution_.duality_gap,
            "support": fitted.solution_.n_support,
            "features_mib": 4 * row["n_train"] * row["n_features"] / 2**20,
            "load": os.getloadavg()[0],
        }


def _stored(method: DualView) -> None:
    """Builds the store and nothing else."""
    with method.visit():
        method._training_features(n_logits=0)


if __name__ == "__main__":
    main()
