"""SIM-rp's two projections beside exact SIM: what a number of components costs, and how near it comes.

    python -m benchmarks.projections --data mnist

The paper's CNN after 150 steps of Adam, 1,000 training and 64 test images, three seeds, one thread. The error is that
of all attributions relative to their norm. The agreement is the share of the ten strongest training points.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import datasets
from benchmarks.arguments import common_parser
from benchmarks.networks import PaperCNN
from benchmarks.rows import Row, Rows
from dualview_plugin import GradientSimilarity, ProjectedGradientSimilarity

N_TRAIN, N_TEST, STEPS, STRONGEST = 1000, 64, 150, 10
RESULTS_OF = ("fit_seconds", "error", "correlation", "top_10")
JOBS = [("gaussian", 32), ("gaussian", 128), ("gaussian", 512), *(("factored", k) for k in (32, 128, 512, 2048))]


def main(arguments: Iterable[str] | None = None) -> None:
    parser = common_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(1)
    worlds: dict[int, World] = {}

    def measure(row: Row) -> dict[str, Any]:
        seed = row["seed"]
        if seed not in worlds:
            worlds[seed] = World(chosen, seed)
        return worlds[seed].measured(row["projection"], row["n_components"])

    jobs = [
        {"seed": seed, "projection": projection, "n_components": k} for seed in chosen.seeds for projection, k in JOBS
    ]
    Rows("projections", chosen.data, chosen.results).run(jobs, measure)


class World:
    """A network trained with a seed, its images, and exact SIM's attributions of the test images."""

    def __init__(self, chosen: argparse.Namespace, seed: int) -> None:
        data = datasets.load(chosen.data, chosen.root, download=chosen.download)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(data.train), generator=generator)[:N_TRAIN]
        self.train = TensorDataset(*data.train[order])
        self.test = data.test[torch.randperm(len(data.test), generator=generator)[:N_TEST]][0]
        torch.manual_seed(seed)
        self.network = trained(PaperCNN(), self.train.tensors, generator)
        self.seed = seed
        self.layer = [name for name, module in self.network.named_modules() if isinstance(module, nn.Linear)][-1]
        exact = GradientSimilarity(self.network, self.layer, self.train, show_progress=False)
        self.target = exact.decisions(self.test)
        self.exact = exact.attribute(self.test, self.target)

    def measured(self, projection: Any, n_components: int) -> dict[str, Any]:
        """Seconds of a fit, and how near its attributions come to the exact ones."""
        method = ProjectedGradientSimilarity(
            self.network,
            self.layer,
            self.train,
            n_components=n_components,
            projection=projection,
            seed=self.seed,
            show_progress=False,
        )
        start = time.perf_counter()
        method.fit()
        seconds = time.perf_counter() - start
        found = method.attribute(self.test, self.target)
        return {
            "fit_seconds": seconds,
            "error": float((found - self.exact).norm() / self.exact.norm()),
            "correlation": float(np.corrcoef(found.flatten(), self.exact.flatten())[0, 1]),
            "top_10": agreement(found, self.exact),
        }


def trained(network: nn.Module, tensors: tuple[Tensor, ...], generator: torch.Generator) -> nn.Module:
    """The network after some steps of Adam on batches of 64."""
    images, labels = tensors
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        batch = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    return network.eval()


def agreement(found: Tensor, expected: Tensor) -> float:
    """The mean share of the strongest training points that two attributions have in common."""
    pairs = zip(found.topk(STRONGEST).indices.tolist(), expected.topk(STRONGEST).indices.tolist(), strict=True)
    return statistics.fmean(len({*one} & {*other}) / STRONGEST for one, other in pairs)


def summary(rows: list[Row]) -> list[Row]:
    """Means over the seeds, a row for each projection and number of components."""
    found = []
    for projection, k in JOBS:
        group = [row for row in rows if (row["projection"], row["n_components"]) == (projection, k)]
        if group:
            means = {name: statistics.fmean(row[name] for row in group) for name in RESULTS_OF}
            found.append({"projection": projection, "n_components": k, **means})
    return found


if __name__ == "__main__":
    main()
