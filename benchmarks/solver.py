"""Our solver against liblinear's Crammer-Singer: time, gap and support, alternating in one run.

    python -m benchmarks.solver --cases mnist relu  # resumable: finished rows are kept
    pip install dualxda-skl                         # liblinear with its dual variables; without it: ours alone

Each row: the median time of ``--repeats`` runs of both, one after the other (a single run where one takes over a
minute), and the gap of both, computed by the same float64 formula from α alone. Ours runs to 1e-6, or to the gap that
liblinear reached just before where that is smaller. Memory: the peak of a fresh process
while it solves, beyond what it held with the features loaded, as a multiple of the features.

``benchmarks.report`` writes the table and the CSV file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import datasets
from benchmarks.memory import forget_peak, peak_mib
from benchmarks.networks import PaperCNN
from benchmarks.record import RESULTS, environment
from benchmarks.rows import Rows
from benchmarks.training import Recipe, trained
from dualview_plugin.solver import solve_crammer_singer
from dualview_plugin.solver.problem import make_problem
from dualview_plugin.solver.screening import active_set
from dualview_plugin.solver.solution import certify

CACHE = Path(tempfile.gettempdir()) / "dualview_solver_benchmark"
DATA = datasets.DEFAULT_ROOT
GROWTH = (7_500, 15_000, 30_000)  # training points; "mnist" has 60,000
CONSTANTS = {
    "mnist": [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0],
    "mnist-2-epochs": [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0],
    **{f"mnist-{n}": [1e-3, 1.0] for n in GROWTH},
    "relu": [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0],
    "relu97": [1e-5, 1e-3, 0.1],
    "classes200": [1e-3],
    "classes1000": [1e-5, 1e-4, 1e-3],
}
SEED, TOL = 0, 1e-6


def mnist_features(epochs: int, n_train: int = 60_000) -> tuple[np.ndarray, np.ndarray]:
    """Standardised penultimate features of the paper's CNN on the first digits, without its dead units."""
    import torch

    data = datasets.load("mnist", DATA)
    model = trained(PaperCNN, data.train, Recipe(epochs=epochs), name="mnist-standard", seed=SEED)
    body = torch.nn.Sequential(*list(model)[:-1])
    images, labels = (tensor[:n_train] for tensor in data.train.tensors)
    with torch.no_grad():
        features = torch.cat([body(block) for block in images.split(1000)]).numpy()
    return standardised(features), labels.numpy()


def mnist_images() -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import MNIST

    dataset = MNIST(DATA, train=True)
    return (dataset.data.reshape(-1, 784).float() / 255).numpy(), dataset.targets.numpy()


def relu_features(n_features: int, n_train: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ReLU features of the first MNIST images."""
    images, labels = mnist_images()
    directions = np.random.default_rng(seed).normal(size=(784, n_features)).astype(np.float32) / 28
    return standardised(np.maximum(images[:n_train] @ directions, 0)), labels[:n_train]


def many_classes(n_classes: int, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """100,000 points of overlapping Gaussian classes in 64 dimensions, through random ReLU features."""
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, n_classes, 100_000)
    points = rng.normal(size=(n_classes, 64))[labels] + rng.normal(size=(100_000, 64))
    return standardised(np.maximum(points @ rng.normal(size=(64, n_features)), 0)), labels


def standardised(features: np.ndarray) -> np.ndarray:
    spread = features.std(axis=0)
    alive = spread > 0
    return np.ascontiguousarray(((features - features.mean(axis=0))[:, alive] / spread[alive]).astype(np.float32))


MAKERS = {
    "mnist": partial(mnist_features, 12),
    "mnist-2-epochs": partial(mnist_features, 2),
    **{f"mnist-{n}": partial(mnist_features, 12, n) for n in GROWTH},
    "relu": partial(relu_features, 512, 50_000, SEED),
    "relu97": partial(relu_features, 97, 60_000, 7),  # a case on which nothing was tuned
    "classes200": lambda: many_classes(200, 256),
    "classes1000": lambda: many_classes(1000, 512),
}


KEYS = ("seed", "case", "C", "shape")  # what identifies a row


def path_of(case: str) -> Path:
    """Where the features of a case are kept."""
    return CACHE / f"{case}-{_recipe()}.npz"


def load(case: str) -> tuple[np.ndarray, np.ndarray]:
    path = path_of(case)
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        features, labels = MAKERS[case]()
        np.savez(path, features=features, labels=labels)
    stored = np.load(path)
    return stored["features"], stored["labels"]


def _recipe() -> str:
    """What the features depend on: the code that makes them, and the packages it calls; other recipes, other files."""
    sources = [Path(__file__).with_name(name).read_bytes() for name in ("solver.py", "networks.py", "training.py")]
    versions = f"{np.__version__} {metadata.version('torch')}".encode()
    return hashlib.sha256(b"".join([*sources, versions])).hexdigest()[:12]


def run_ours(features: np.ndarray, labels: np.ndarray, C: float, limit: float, tol: float = TOL) -> dict[str, float]:
    started = time.perf_counter()
    solution = solve_crammer_singer(features, labels, C, tol=tol, time_limit=limit, seed=SEED)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "gap": solution.duality_gap, "support": solution.n_support}


def run_liblinear(features: np.ndarray, labels: np.ndarray, C: float) -> dict[str, float] | None:
    """Liblinear at its defaults (tol 1e-4, 1,000 iterations); its α certified like ours. The cast is not timed."""
    try:
        from sklearn_dual.svm import LinearSVC
    except ImportError:
        return None
    from scipy.sparse import csr_array

    double = features.astype(np.float64)
    model = LinearSVC(multi_class="crammer_singer", C=C, fit_intercept=False, random_state=SEED)
    started = time.perf_counter()
    model.fit(double, labels)
    seconds = time.perf_counter() - started
    support = np.flatnonzero(np.abs(model.alpha_).max(axis=0) > 0)
    solution = certify(
        make_problem(features, labels, C), support, csr_array(model.alpha_.T[support]), tol=1e-6, n_iter=0
    )
    return {"seconds": seconds, "gap": solution.duality_gap, "support": len(support)}


def profile(case: str, C: float, limit: float) -> tuple[float, float]:
    """In a fresh process: (peak while solving − peak with the features loaded) / size of the features; screens' share.

    The share of the time that the screens take is what running them elsewhere, on a GPU, could save at most.
    """
    features, labels = load(case)
    warnings.simplefilter("ignore")
    solve_crammer_singer(features[:2000], labels[:2000], C, n_classes=int(labels.max()) + 1, max_iter=2)  # kernels
    forget_peak()
    before, in_screens, screen = peak_mib(), [], active_set.screen

    def timed_screen(*args: object, **options: object) -> object:
        started = time.perf_counter()
        result = screen(*args, **options)
        in_screens.append(time.perf_counter() - started)
        return result

    active_set.screen = timed_screen
    seconds = run_ours(features, labels, C, limit)["seconds"]
    return (peak_mib() - before) * 2**20 / features.nbytes, sum(in_screens) / seconds


def measure(case: str, C: float, args: argparse.Namespace) -> dict[str, object]:
    features, labels = load(case)
    solve_crammer_singer(features[:2000], labels[:2000], 1e-3, n_classes=int(labels.max()) + 1)  # load the kernels
    ours, theirs = [], []
    for _ in range(args.repeats):
        theirs.append(run_liblinear(features, labels, C) if args.liblinear_up_to >= C else None)
        tol = min(TOL, theirs[-1]["gap"]) if theirs[-1] else TOL
        ours.append(run_ours(features, labels, C, args.limit, tol))
        if max(run["seconds"] for run in (ours[-1], theirs[-1]) if run) > 60:
            break
    row: dict[str, object] = {"case": case, "C": C, "shape": [*features.shape, int(labels.max()) + 1]}
    row |= {"commit": environment()["commit"], "load": os.getloadavg()[0]}
    for name, runs in (("ours", ours), ("liblinear", theirs)):
        row[name] = median_run([run for run in runs if run])
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        row["memory"], row["screens"] = pool.submit(profile, case, C, args.limit).result()
    return row


def median_run(runs: list[dict[str, float]]) -> dict[str, float] | None:
    if not runs:
        return None
    return runs[0] | {"seconds": statistics.median(run["seconds"] for run in runs), "runs": len(runs)}


def summary(rows: list[dict]) -> list[dict]:
    """One row for each solver, case and C, as for a CSV file."""
    return [
        {
            "case": row["case"],
            "C": row["C"],
            "method": name,
            **{key: row[name][key] for key in ("seconds", "gap", "support", "runs")},
            "memory": row["memory"] if name == "ours" else "",
        }
        for row in sorted(rows, key=lambda row: (row["case"], row["C"]))
        for name in ("ours", "liblinear")
        if row[name]
    ]


def draw(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = [case for case in CONSTANTS if sum(row["case"] == case for row in rows) > 2]
    figure, axes = plt.subplots(2, len(cases), figsize=(4 * len(cases), 5), sharex="col", squeeze=False)
    for column, case in enumerate(cases):
        for name, style in (("ours", "o-"), ("liblinear", "s--")):
            chosen = [row for row in rows if row["case"] == case and row[name]]
            for axis, key in zip(axes[:, column], ("seconds", "gap"), strict=True):
                axis.loglog([r["C"] for r in chosen], [max(r[name][key], 1e-16) for r in chosen], style, label=name)
        axes[0, column].set(title=case, ylabel="seconds")
        axes[1, column].set(xlabel="C", ylabel="relative duality gap")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_growth(rows: list[dict], path: Path) -> None:
    """Seconds over the number of training points, at fixed C."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cases = ["mnist", *(f"mnist-{n}" for n in GROWTH)]
    figure, axes = plt.subplots(figsize=(5, 3.5))
    for C, colour in ((1e-3, "tab:blue"), (1.0, "tab:orange")):
        chosen = sorted((r for r in rows if r["case"] in cases and r["C"] == C), key=lambda row: row["shape"][0])
        for name, style in (("ours", "o-"), ("liblinear", "s--")):
            done = [row for row in chosen if row[name]]
            n_train, seconds = [row["shape"][0] for row in done], [row[name]["seconds"] for row in done]
            axes.loglog(n_train, seconds, style, color=colour, label=f"{name}, C = {C:g}")
    axes.set(xlabel="training points", ylabel="seconds", title="features of the paper's CNN on MNIST")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CONSTANTS), default=list(CONSTANTS))
    parser.add_argument("--constants", nargs="+", type=float, help="only these C")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one of our solves")
    parser.add_argument("--liblinear-up-to", type=float, default=1e9, help="largest C at which liblinear runs")
    parser.add_argument("--force", action="store_true", help="measure finished rows again")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # stops before the tolerance are in the table
    RESULTS.mkdir(exist_ok=True)
    store = Rows("solver", "all")
    rows = store.flat()
    for case in args.cases:
        for C in args.constants or CONSTANTS[case]:
            done = [row for row in rows if (row["case"], row["C"]) == (case, C)]
            if done and not args.force:
                continue
            row = measure(case, C, args)
            rows = sorted([r for r in rows if r not in done] + [row], key=lambda r: (r["case"], r["C"]))
            store.store({"seed": SEED, **row}, KEYS)
            print(json.dumps(row), flush=True)
    draw(rows, RESULTS / "solver.png")
    draw_growth(rows, RESULTS / "solver_growth.png")


if __name__ == "__main__":
    main()
