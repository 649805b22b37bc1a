"""Ranks of this package's methods in the big table, 1 the best, for each metric and on average; a figure of them.

    python -m benchmarks.ranks --data digits

A method has a rank in a metric if it has a score with every seed. Equal scores share their mean rank. Ranks are means
over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import rankdata

from benchmarks.big_table import METHODS, current_scores
from benchmarks.record import RESULTS
from benchmarks.rows import Row

# One metric of each kind, with what is best: 1 for a high score, −1 for a low one.
DIRECTIONS = {
    "Identical Class": 1,
    "Identical Subclass": 1,
    "Mixed Datasets": 1,
    "mislabelling, self-influence": 1,
    "shortcut detection, AUPRC": 1,
    "LDS, log-softmax": 1,
    "leave one out": 1,
    "model randomisation": -1,
    "coreset selection, absolute": -1,
}


def ranks(scores: Sequence[Row]) -> dict[str, dict[str, float]]:
    """For each method, by its mean rank: the mean rank over seeds for each metric that it has a score of.

    Args:
        scores: rows with method, metric, seed and score.
    """
    by_seed: dict[tuple[str, str], list[float]] = {}
    for metric, direction in DIRECTIONS.items():
        of_metric = [row for row in scores if row["metric"] == metric and row["score"] is not None]
        seeds = {row["seed"] for row in of_metric}
        seeds_of = {row["method"]: set[int]() for row in of_metric}
        for row in of_metric:
            seeds_of[row["method"]].add(row["seed"])
        for seed in sorted(seeds):
            group = [row for row in of_metric if row["seed"] == seed and seeds_of[row["method"]] == seeds]
            for row, rank in zip(group, rankdata([-direction * row["score"] for row in group]), strict=True):
                by_seed.setdefault((row["method"], metric), []).append(float(rank))
    found: dict[str, dict[str, float]] = {}
    for (method, metric), values in by_seed.items():
        found.setdefault(method, {})[metric] = float(np.mean(values))
    return dict(sorted(found.items(), key=lambda item: mean_rank(item[1])))


def mean_rank(of_one: dict[str, float]) -> float:
    """The mean over the metrics that a method has."""
    return float(np.mean(list(of_one.values())))


def draw(found: dict[str, dict[str, float]]) -> Figure:
    """Methods down, the best above; metrics across; the rank in each cell."""
    metrics = [metric for metric in DIRECTIONS if any(metric in of_one for of_one in found.values())]
    values = np.array(
        [[mean_rank(of_one), *(of_one.get(metric, np.nan) for metric in metrics)] for of_one in found.values()]
    )
    figure = Figure(figsize=(1.4 + 0.75 * len(metrics), 1.6 + 0.3 * len(found)), layout="constrained")
    axes: Any = figure.subplots()
    image = axes.imshow(values, cmap="viridis_r", vmin=1, vmax=len(found), aspect="auto")
    axes.set_xticks(range(len(metrics) + 1), ["mean rank", *metrics], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(found)), list(found))
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        colour = "white" if value > len(found) / 2 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
    axes.axvline(0.5, color="white", linewidth=3)
    figure.colorbar(image, label="rank (1 is best)")
    return figure


def main(arguments: Iterable[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    path: Path = chosen.results / f"big-table-{chosen.data}-ranks.png"
    scores = [row for row in current_scores(chosen.data, chosen.results) if row["method"] in METHODS]
    draw(ranks(scores)).savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    print(main())
