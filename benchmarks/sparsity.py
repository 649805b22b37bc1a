"""The paper's Table 3, Figures 5 and 6: what the margin constant C does to time, accuracy, sparsity and scores.

    python -m benchmarks.sparsity --data mnist

Resumable: a C that ``results/sparsity/<data>/rows.jsonl`` holds is not solved again.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks import datasets
from benchmarks.arguments import common_parser, setting_name
from benchmarks.explainers import LAYER
from benchmarks.record import write_csv
from benchmarks.rows import Rows
from benchmarks.table2 import evaluated
from benchmarks.worlds import SETTINGS, WORLDS, World, make_world
from dualview_plugin import DualView, solve_crammer_singer, solve_path
from dualview_plugin.errors import ConvergenceWarning

DECADES = tuple(10.0**power for power in range(-5, 4))
Row = dict[str, Any]


def main(arguments: Iterable[str] | None = None) -> list[Row]:
    parser = common_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-test", type=int, default=2000, help="test points that are explained")
    parser.add_argument("--constants", type=float, nargs="+", default=DECADES, help="C to solve for, ascending")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for one fit; the gap is in the table")
    chosen = parser.parse_args(None if arguments is None else list(arguments))

    setting = SETTINGS[setting_name(chosen)]
    name = f"sparsity-{setting_name(chosen)}"
    settings: Row = {"seed": chosen.seed, "n_test": chosen.n_test, "network": setting.label}
    settings |= {"recipe": asdict(setting.recipe), "time_limit": chosen.time_limit}
    store = Rows("sparsity", setting_name(chosen), chosen.results)
    rows = [row for row in store.flat() if settings.items() <= row.items() and "C" in row]
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    options = {"seed": chosen.seed, "n_test": chosen.n_test, "device": chosen.device}
    worlds = {w: make_world(w, data, setting, checkpoints=chosen.checkpoints, **options) for w in WORLDS}
    fit = partial(_fitted, time_limit=chosen.time_limit, cache_dir=chosen.checkpoints / "features")
    missing = [C for C in chosen.constants if all(row["C"] != C for row in rows)]
    for C in tqdm(missing, desc=name):
        row: Row = {**settings, "C": C}
        for world in worlds.values():
            explainer = fit(world, C)
            row |= _surrogate(explainer, world, data) if world.name == "standard" else {}
            row |= {world.metric_name: _score(explainer, world), f"gap_{world.name}": explainer.solution_.duality_gap}
        rows.append(row)
        rows.sort(key=lambda row: row["C"])
        store.store(row, {*settings, "C"})
    path = {**settings, "constants": list(chosen.constants)}
    if store.find(path) is None:
        explainer = fit(worlds["standard"], chosen.constants[0])
        store.append(path, {"path_seconds": _path_seconds(explainer, chosen.constants, chosen.time_limit)})
    write_csv(name, [{key: row[key] for key in row if key not in settings} for row in rows], chosen.results)
    draw(rows).savefig(chosen.results / f"{name}.png", dpi=110)
    return rows


def _surrogate(explainer: DualView, world: World, data: datasets.ImageData) -> Row:
    """Fit time, accuracies and sparsity of the surrogate on the standard world."""
    solution, labels, features = explainer.solution_, explainer.train_labels_.numpy(), _features(explainer)
    x_test, y_test = data.test.tensors
    logits = explainer.surrogate_logits(x_test)
    with torch.no_grad():
        decisions = torch.cat([world.network(part).argmax(dim=1) for part in x_test.split(512)])
    per_class = np.bincount(labels[solution.support], minlength=explainer.n_classes_)
    return {
        "fit_seconds": _solve_seconds(explainer, features),
        "train_accuracy": float(((features @ solution.weight.T).argmax(axis=1) == labels).mean()),
        "test_accuracy": float((logits.argmax(dim=1) == y_test).float().mean()),
        "agreement": float((logits.argmax(dim=1) == decisions).float().mean()),
        "n_support": solution.n_support,
        "support_per_class": per_class.tolist(),
    }


def _solve_seconds(explainer: DualView, features: np.ndarray[Any, Any]) -> float:
    """The time of the surrogate's fit alone, without the forward passes: the same problem solved once more."""
    labels, n_classes = explainer.train_labels_.numpy(), explainer.n_classes_
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the gap stands in the table
        solve_crammer_singer(features, labels, explainer.C, n_classes=n_classes, time_limit=explainer.time_limit)
    return time.perf_counter() - start


def _score(explainer: DualView, world: World) -> float:
    """DualView's score in its world."""
    if not len(world.x_test):
        return float("nan")
    attributions = explainer.attribute(world.x_test, torch.as_tensor(world.decisions)).numpy()
    return evaluated("DV", world, attributions)[0]


def _path_seconds(explainer: DualView, constants: Sequence[float], time_limit: float) -> float:
    """The time of all constants in one path with warm starts."""
    features, labels = _features(explainer), explainer.train_labels_.numpy()
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        solve_path(features, labels, constants, n_classes=explainer.n_classes_, time_limit=time_limit)
    return time.perf_counter() - start


def _features(explainer: DualView) -> np.ndarray[Any, Any]:
    """The training features as the solver sees them."""
    return explainer.transform_features(explainer._training_features().features).numpy()


def _fitted(world: World, C: float, *, time_limit: float, cache_dir: Path) -> DualView:
    """A fitted DualView; the features of each world are computed once and kept in ``cache_dir``."""
    options: Row = {"C": C, "time_limit": time_limit, "cache_dir": cache_dir, "show_progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return DualView(world.network, LAYER, world.train, **options).fit()


def draw(rows: list[Row]) -> Figure:
    """Three panels over C: accuracy, support points of each class with the fit time, and the four scores."""
    C = [row["C"] for row in rows]
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    accuracy, support, scores = figure.subplots(1, 3)
    for key, label in (("train_accuracy", "training"), ("test_accuracy", "test"), ("agreement", "agrees with network")):
        accuracy.plot(C, [row[key] for row in rows], marker=".", label=label)
    accuracy.set(title="surrogate", ylabel="share", xlabel="C")
    support.plot(C, [row["support_per_class"] for row in rows], color="tab:blue", alpha=0.4)
    support.plot([], [], color="tab:blue", alpha=0.4, label="support points of each class")
    seconds = support.twinx()
    seconds.plot(C, [row["fit_seconds"] for row in rows], color="tab:red", marker=".", label="fit")
    seconds.set(yscale="log", ylabel="fit, seconds (red)")
    support.set(title="sparsity and time", yscale="log", ylabel="support points of each class (blue)", xlabel="C")
    for metric in ("Identical Class", "Identical Subclass", "Label Poisoning", "Domain Mismatch"):
        scores.plot(C, [row[metric] for row in rows], marker=".", label=metric)
    scores.set(title="scores", ylim=(-0.02, 1.02), xlabel="C")
    for axes in (accuracy, support, scores):
        axes.set(xscale="log")
    accuracy.legend()
    scores.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


if __name__ == "__main__":
    main()
