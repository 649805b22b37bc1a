"""Time and memory of attributions by a feature kernel: class by class, the plain product, and dualxda's ``attribute``.

    python -m benchmarks.attribute                                      # 10, 100, 1,000 classes and 100,000 points
    python -m benchmarks.attribute --n-train 1000000 --ways dense sparse top-10

Features come from a memory map; labels are random. Each training point has two coefficients, for its own class and for
a rival, as solutions of the Crammer–Singer dual have. The forward pass is not part of it. The ways alternate, each
measured ``--repeats`` times; a ratio is one of medians. The plain product is what this package did at commit bc87001:
all test points times all support points, all coefficients gathered, a dense result. dualxda holds n_test x n_support x
n_classes numbers, so that it gets one test point; its time is stated for as many as the others have.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from benchmarks.measuring import Meter
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows
from dualview_plugin.attribution.common.class_blocks import ClassKernel
from dualview_plugin.attribution.common.coefficients import SparseCoefficients

STRONGEST = 10
WAYS = ("dense", "sparse", "top-10", "plain", "plain top-10", "dualxda")
Work = Callable[[], object]


def made_kernel(folder: Path, n_train: int, n_features: int, n_classes: int, seed: int) -> ClassKernel:
    """The kernel of ``n_train`` support points, whose features lie in ``folder``."""
    rng = np.random.default_rng(seed)
    features = np.memmap(folder / f"{n_train}.float32", np.float32, "w+", shape=(n_train, n_features))
    for start in range(0, n_train, 20_000):
        features[start : start + 20_000] = rng.normal(size=features[start : start + 20_000].shape)
    own = rng.integers(n_classes, size=n_train)
    rival = (own + rng.integers(1, n_classes, size=n_train)) % n_classes
    sizes = rng.uniform(0.1, 1.0, size=n_train)
    entries = (
        np.stack([sizes, -sizes], axis=1).ravel(),
        (
            np.repeat(np.arange(n_train), 2),
            np.stack([own, rival], axis=1).ravel(),
        ),
    )
    support = torch.from_numpy(features)
    alpha = SparseCoefficients.from_csr(csr_array(entries, shape=(n_train, n_classes)), support)
    return ClassKernel(alpha, support, torch.arange(n_train), 0.0, n_train)


def plain_product(kernel: ClassKernel, alpha: Tensor, features: Tensor, target: Tensor) -> Tensor:
    """The attributions as at commit bc87001."""
    values = (features @ kernel.features.T + kernel.offset) * alpha.T[target]
    return values.new_zeros(len(features), kernel.n_train).index_copy_(1, kernel.indices, values)


def dualxda_of(kernel: ClassKernel, alpha: Tensor) -> Any:
    """An object of dualxda with these coefficients in place of a fit, around a network that gives its input."""
    from dualxda import DualDA

    method = DualDA.__new__(DualDA)
    method.device, method.classifier, method.model = "cpu", "fc", nn.Identity()
    method.samples, method.coefficients, method.dataset = kernel.features, alpha, range(kernel.n_train)
    method._active_indices = kernel.indices
    method.hook_out = {}
    return method


def work_of(kernel: ClassKernel, features: Tensor, target: Tensor, ways: list[str], most_mib: int) -> dict[str, Work]:
    """What each way computes; ways whose coefficients take more memory than ``most_mib`` are left out."""

    def dense() -> Tensor:
        result = features.new_zeros(len(features), kernel.n_train)
        kernel.fill(result, features, target)
        return result

    work: dict[str, Work] = {
        "dense": dense,
        "sparse": lambda: kernel.sparse(features, target),
        "top-10": lambda: kernel.strongest(features, target, STRONGEST, True),
    }
    n_classes = len(kernel.coefficients.starts) - 1  # type: ignore[attr-defined]
    if 2 * 4 * kernel.n_train * n_classes / 2**20 <= most_mib:
        alpha = kernel.coefficients.dense()
        work["plain"] = lambda: plain_product(kernel, alpha, features, target)
        work["plain top-10"] = lambda: plain_product(kernel, alpha, features, target).topk(STRONGEST)
        if find_spec("dualxda") is not None:
            method = dualxda_of(kernel, alpha)

            def explain() -> Tensor:
                method.hook_out["fc"] = features[:1]
                attributions: Tensor = method.attribute(features[:1], target[:1])
                return attributions

            work["dualxda"] = explain
    return {way: work[way] for way in ways if way in work}


def check(kernel: ClassKernel, features: Tensor, target: Tensor, work: dict[str, Work]) -> float | None:
    """The largest difference between values of the top ten and those of the plain product, relative to the largest.

    None without the plain product.
    """
    if "plain top-10" not in work:
        return None
    expected: Any = work["plain top-10"]()
    found = kernel.strongest(features, target, STRONGEST, True)[1]
    return float((found - expected.values).abs().max() / expected.values.abs().max())


def measure(work: dict[str, Work], repeats: int, n_test: int) -> dict[str, dict[str, float]]:
    """Median seconds and peak memory of each way, all of them in turn, ``repeats`` times."""
    seconds: dict[str, list[float]] = {way: [] for way in work}
    peaks = dict.fromkeys(work, 0.0)
    for run in work.values():
        run()  # the pages of the map, and torch's buffers
    meter = Meter("cpu")
    for _ in range(repeats):
        for way, run in work.items():
            before = meter.now()
            taken, peak = meter(run)
            seconds[way].append(taken)
            peaks[way] = max(peaks[way], peak - before)
    factor = {way: n_test if way == "dualxda" else 1 for way in work}
    return {
        way: {"seconds": statistics.median(seconds[way]) * factor[way], "peak_mib": round(peaks[way], 1)}
        for way in work
    }


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, nargs="+", default=[100_000])
    parser.add_argument("--n-classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--n-features", type=int, default=512)
    parser.add_argument("--n-test", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--most-mib", type=int, default=2000, help="for the matrix of coefficients of the plain product"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(chosen.threads)
    common = {key: getattr(chosen, key) for key in ("n_features", "n_test", "repeats", "ways", "threads", "most_mib")}
    jobs = [
        {"n_train": n_train, "n_classes": n_classes, **common, "seed": chosen.seed}
        for n_train in chosen.n_train
        for n_classes in chosen.n_classes
    ]
    for row in Rows("attribute", "all", chosen.results).run(jobs, measured):
        print(row["result"])


def measured(job: Row) -> Row:
    """Seconds and memory of each way, and how far the values differ from those of the plain product."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = made_kernel(Path(folder), job["n_train"], job["n_features"], job["n_classes"], job["seed"])
        generator = torch.Generator().manual_seed(job["seed"])
        features = torch.randn(job["n_test"], job["n_features"], generator=generator)
        target = torch.randint(job["n_classes"], (job["n_test"],), generator=generator)
        work = work_of(kernel, features, target, job["ways"], job["most_mib"])
        difference = check(kernel, features, target, work)
        found = measure(work, job["repeats"], job["n_test"])
    return {"difference": difference, "measured": found, "load": os.getloadavg()[0]}


if __name__ == "__main__":
    main()
