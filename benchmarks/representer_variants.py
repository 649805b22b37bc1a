"""Which reading of representer point selection gives the paper's scores: penalty, targets, where the retraining stops.

    python -m benchmarks.representer_variants --data mnist

All four metrics, each in its world, for the minimiser at several penalties λ, for that of the cross entropy to the
labels, and for the gradient descent that the paper's reference stops at 1/200 of the first gradient, from the network's
weights and from zero. Writes ``results/representer_variants/<data>/rows.jsonl`` and a CSV file; resumable.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from tqdm import tqdm

from benchmarks import datasets
from benchmarks.arguments import common_parser, setting_name
from benchmarks.record import write_csv
from benchmarks.rows import Rows
from benchmarks.table2 import evaluated
from benchmarks.worlds import SETTINGS, WORLDS, World, make_world
from dualview_plugin import RepresenterPoints
from dualview_plugin.errors import ConvergenceWarning
from dualview_plugin.features import TrainingFeatures
from dualview_plugin.last_layer import SoftmaxRegression

PENALTIES = (3e-5, 3e-4, 3e-3, 3e-2, 0.3, 3.0)
REFERENCE_PENALTY, REFERENCE_STOP, REFERENCE_STEPS = 3e-3, 1 / 200, 3000


class StoppedRepresenterPoints(RepresenterPoints):
    """Retrained by gradient descent with a backtracking line search, to a share of the first mean absolute gradient."""

    from_zero = False

    def _retrain(self, features: Tensor, targets: Tensor, start: Tensor) -> SoftmaxRegression:
        decay, targets = self.weight_decay, targets.to(features)
        weight = (torch.zeros_like(start) if self.from_zero else start).to(features)

        def loss(weight: Tensor) -> float:
            log_probabilities = (features @ weight.T).log_softmax(1)
            return float(-(targets * log_probabilities).sum(1).mean() + decay * weight.square().sum())

        step, first, n_iter = 1.0, 0.0, 0
        while n_iter < REFERENCE_STEPS:
            probabilities = (features @ weight.T).softmax(1)
            gradient = (probabilities - targets).T @ features / len(features) + 2 * decay * weight
            size = float(gradient.abs().mean())
            first = first or size
            if size <= REFERENCE_STOP * first:
                break
            step, before, decrease = 2 * step, loss(weight), 0.5 * float(gradient.square().sum())
            while loss(weight - step * gradient) > before - step * decrease and step > 1e-10:
                step /= 2
            weight, n_iter = weight - step * gradient, n_iter + 1
        stationarity = float(gradient.norm() / (2 * decay * weight.norm()))
        return SoftmaxRegression(weight.double(), probabilities.double(), stationarity, n_iter)


class StoppedFromZero(StoppedRepresenterPoints):
    """The same from V = 0."""

    from_zero = True


class LabelRepresenterPoints(RepresenterPoints):
    """Retrained to the training labels in place of the network's outputs."""

    def _targets(self, training: TrainingFeatures) -> Tensor:
        return one_hot(training.labels, training.logits.shape[1]).double()


VARIANTS: dict[str, tuple[type[RepresenterPoints], float]] = {
    **{f"minimiser, λ = {penalty:g}": (RepresenterPoints, penalty) for penalty in PENALTIES},
    **{f"minimiser to the labels, λ = {penalty:g}": (LabelRepresenterPoints, penalty) for penalty in PENALTIES[2:5]},
    "stopped descent from the network's weights": (StoppedRepresenterPoints, REFERENCE_PENALTY),
    "stopped descent from zero": (StoppedFromZero, REFERENCE_PENALTY),
}


KEYS = ("seed", "n_test", "network", "recipe", "world", "variant")  # what identifies a row


def main(arguments: Iterable[str] | None = None) -> list[dict[str, Any]]:
    parser = common_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-test", type=int, default=2000, help="test points that are explained")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    chosen = parser.parse_args(None if arguments is None else list(arguments))

    setting = SETTINGS[setting_name(chosen)]
    name = f"representer-variants-{setting_name(chosen)}"
    settings = {"seed": chosen.seed, "n_test": chosen.n_test, "network": setting.label}
    settings["recipe"] = asdict(setting.recipe)
    store = Rows("representer_variants", setting_name(chosen), chosen.results)
    rows = [row for row in store.flat() if settings.items() <= row.items()]
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    for world_name in chosen.worlds:
        missing = [v for v in VARIANTS if not any((r["variant"], r["world"]) == (v, world_name) for r in rows)]
        if not missing:
            continue
        world = make_world(
            world_name,
            data,
            setting,
            seed=chosen.seed,
            n_test=chosen.n_test,
            device=chosen.device,
            checkpoints=chosen.checkpoints,
        )
        for variant in tqdm(missing, desc=world_name):
            rows.append({**settings, "world": world_name, "variant": variant, **score(variant, world)})
            store.store(rows[-1], KEYS)
    write_csv(name, table(rows), chosen.results)
    return rows


def score(variant: str, world: World) -> dict[str, Any]:
    """The world's metric for one variant, and how far its retraining came."""
    method, penalty = VARIANTS[variant]
    explainer = method(world.network, "fc", world.train, weight_decay=penalty, show_progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the stationarity is in the row
        explainer.fit()
    result = float("nan")
    if len(world.x_test):
        attributions = explainer.attribute(world.x_test, torch.as_tensor(world.decisions)).cpu().numpy()
        result, _ = evaluated(variant, world, attributions)
    regression = explainer.regression_
    return {
        "metric": world.metric_name,
        "score": result,
        "stationarity": regression.stationarity,
        "n_iter": regression.n_iter,
    }


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each variant, one column for each metric."""
    variants = dict.fromkeys(row["variant"] for row in rows)
    return [
        {"variant": variant, **{row["metric"]: row["score"] for row in rows if row["variant"] == variant}}
        for variant in variants
    ]


if __name__ == "__main__":
    main()
