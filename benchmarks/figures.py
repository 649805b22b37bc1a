"""The paper's Figures 1 to 4, drawn from the networks and the results of Table 2.

python -m benchmarks.figures --data mnist
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import datasets
from benchmarks.arguments import common_parser, setting_name
from benchmarks.explainers import CLASSES, make_explainer
from benchmarks.rows import Rows
from benchmarks.table2 import CURVE_POINTS
from benchmarks.worlds import POISONED_FRACTION, SETTINGS, World, make_world
from dualview_plugin import PairwiseRelevance, plot_pairwise_relevance, plot_poisoning_curves, plot_training_points


def main(arguments: Iterable[str] | None = None) -> list[Path]:
    parser = common_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(None if arguments is None else list(arguments))

    setting = setting_name(chosen)
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    options = {"seed": chosen.seed, "n_test": 2000, "device": chosen.device, "checkpoints": chosen.checkpoints}
    standard, marked = (make_world(name, data, SETTINGS[setting], **options) for name in ("standard", "marked"))
    figures = {"figure1-2": strongest_points(standard, data)}
    if len(marked.x_test):
        figures["figure4"] = pixel_evidence(marked, data)
    scores = Rows("table2", setting, chosen.results).flat()
    if scores:
        figures["figure3"] = poisoning_curves(scores, chosen.data, chosen.seed)
    paths = []
    for name, figure in figures.items():
        paths.append(chosen.results / f"{name}-{setting}.png")
        figure.savefig(paths[-1], dpi=90)
    return paths


def strongest_points(world: World, data: datasets.ImageData, n_shown: int = 6, k: int = 5) -> Figure:
    """Figures 1 and 2: the strongest proponents and opponents of wrong decisions (half of the rows) and right ones."""
    explainer = make_explainer("DV", data.name, world.network, world.train)
    labels = data.test.tensors[1][: len(world.decisions)].numpy()
    wrong, right = (np.flatnonzero((world.decisions == labels) == truth) for truth in (False, True))
    shown = [*wrong[: n_shown // 2], *right][:n_shown]
    names = np.array(data.class_names)
    return plot_training_points(
        world.x_test[shown],
        world.train,
        explainer.influence(world.x_test[shown], k),
        explainer.influence(world.x_test[shown], k, proponents=False),
        train_labels=names[world.train.tensors[1].numpy()],
        test_labels=[f"is {names[labels[i]]}\nsaid {names[world.decisions[i]]}" for i in shown],
        to_display=data.to_display,
    )


def poisoning_curves(rows: list[dict[str, Any]], data_name: str, seed: int) -> Figure:
    """Figure 3: the share of poisoned points found, for every method of Table 2."""
    curves = {row["method"]: row["curve"] for row in rows if row["curve"] is not None and row["seed"] == seed}
    ordered = {method: curves[method] for method in CLASSES if method in curves}
    return plot_poisoning_curves(ordered, n_poisoned=round(POISONED_FRACTION[data_name] * (CURVE_POINTS - 1)))


def pixel_evidence(world: World, data: datasets.ImageData, k: int = 4) -> Figure:
    """Figure 4 in the marked world: the first mismatched test image with what ties it to its training images."""
    explainer = make_explainer("DV", data.name, world.network, world.train)
    relevance = PairwiseRelevance(explainer)
    x = world.x_test[:1]
    groups = [relevance.attribute(x, k=k, proponents=proponents)[0] for proponents in (True, False)]
    names = np.array(data.class_names)
    return plot_pairwise_relevance(
        x[0],
        world.train,
        groups,
        train_labels=names[world.train.tensors[1].numpy()],
        test_label=f"marked,\nsaid {names[world.decisions[0]]}",
        to_display=data.to_display,
    )


if __name__ == "__main__":
    main()
