"""The paper's Table 2: four metrics, each in its world, for every method, through ``quantus.evaluate``.

    python -m benchmarks.table2 --data mnist --seeds 0 1 2

Resumable: what ``results/table2/<data>/rows.jsonl`` holds with the same settings is not computed again. Trained
networks are kept in ``checkpoints/``.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import quantus
import torch
from tqdm import tqdm

from benchmarks import datasets
from benchmarks.arguments import common_parser, setting_name
from benchmarks.explainers import CLASSES, make_explainer, options
from benchmarks.record import environment, write_csv
from benchmarks.rows import Rows
from benchmarks.worlds import SETTINGS, WORLDS, Setting, World, make_world
from dualview_plugin.errors import ConvergenceWarning

Row = dict[str, Any]
_MEASURED_AGAIN = {"IF", "IF (LiSSA)"}
KEYS = ("seed", "world", "n_test", "network", "recipe", "method", "options")  # what identifies a row
CURVE_POINTS = 601  # of a poisoning curve that are kept: enough to draw it


def main(arguments: Iterable[str] | None = None) -> list[Row]:
    parser = common_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-test", type=int, default=2000, help="test points that are explained")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--methods", nargs="+", choices=list(CLASSES), default=list(CLASSES))
    chosen = parser.parse_args(None if arguments is None else list(arguments))

    setting = SETTINGS[setting_name(chosen)]
    name = f"table2-{setting_name(chosen)}"
    store = Rows("table2", setting_name(chosen), chosen.results)
    rows = [row for row in store.flat() if _is_current(row, chosen.data, setting)]
    data = datasets.load(chosen.data, chosen.root, download=chosen.download)
    jobs = [(seed, world_name) for seed in chosen.seeds for world_name in chosen.worlds]
    for seed, world_name in tqdm(jobs, desc=name):
        settings: Row = {"seed": seed, "world": world_name, "n_test": chosen.n_test, "network": setting.label}
        settings["recipe"] = asdict(setting.recipe)
        missing = [method for method in chosen.methods if not _find(rows, method, chosen.data, settings)]
        if not missing:
            continue
        world = make_world(
            world_name,
            data,
            setting,
            seed=seed,
            n_test=chosen.n_test,
            device=chosen.device,
            checkpoints=chosen.checkpoints,
        )
        for method in missing:
            rows.append({**settings, **score(method, chosen.data, world)})
            store.store(rows[-1], KEYS)
            tqdm.write(f"{world_name:9} seed {seed}  {method:10} {rows[-1]['score']:.3f}")
    table = summary(rows, chosen.n_test)
    write_csv(name, table, chosen.results)
    print(as_markdown(table))
    return rows


def score(method: str, data_name: str, world: World) -> Row:
    """One method in one world: its score, and the seconds that the fit and the attribution took.

    The matrix is computed once and given to ``quantus.evaluate`` as an array: as a callable it would be asked twice.
    """
    explainer = make_explainer(method, data_name, world.network, world.train)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        explainer.fit()
        fitted = time.perf_counter()
        attributed, result, curve = fitted, float("nan"), None
        if len(world.x_test):
            # In blocks, which keep the precision of influence functions: float32 has no numbers for sure points.
            blocks = explainer.attribute_blocks(world.x_test, torch.as_tensor(world.decisions))
            attributions = np.concatenate([block.cpu().numpy() for block in blocks])
            attributed = time.perf_counter()
            result, curve = evaluated(method, world, attributions)
        notes = [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    return {
        "method": method,
        "options": options(method, data_name),
        "metric": world.metric_name,
        "score": result,
        "random_score": world.random_score,
        "n_explained": len(world.x_test),
        "test_accuracy": world.test_accuracy,
        "fit_seconds": fitted - start,
        "attribute_seconds": attributed - fitted,
        "warnings": notes,
        "curve": curve,
        "commit": environment()["commit"],
    }


def evaluated(method: str, world: World, attributions: np.ndarray[Any, Any]) -> tuple[float, list[float] | None]:
    """The world's metric of these attributions, through Quantus, and the poisoning curve where there is one."""
    metric = world.metric()
    scores = quantus.evaluate(
        metrics={world.metric_name: metric},
        xai_methods={method: attributions},
        model=world.network,
        x_batch=world.x_test.numpy(),
        y_batch=world.decisions,
        explain_func_kwargs={},
        agg_func=np.mean,
    )
    curve = getattr(metric, "curve", None)
    if curve is not None:
        looked_at = np.linspace(0, len(curve) - 1, CURVE_POINTS)
        curve = np.interp(looked_at, np.arange(len(curve)), curve).round(4).tolist()
    return float(scores[method][world.metric_name]), curve


def summary(rows: list[Row], n_test: int) -> list[Row]:
    """Mean and deviation over the seeds, one row for each metric and method."""
    table = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        for method in CLASSES:
            group = [r for r in rows if (r["metric"], r["method"], r["n_test"]) == (metric, method, n_test)]
            if group:
                values = [row["score"] for row in group]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                mean = statistics.fmean(values)
                table.append({"metric": metric, "method": method, "mean": mean, "std": spread, "n_seeds": len(values)})
    return table


def as_markdown(table: list[Row]) -> str:
    """The summary as a Markdown table: methods down, metrics across."""
    metrics = list(dict.fromkeys(row["metric"] for row in table))
    cells = {(row["method"], row["metric"]): cell(row) for row in table}
    header = ["| method | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    methods = dict.fromkeys(row["method"] for row in table)
    body = [f"| {method} | " + " | ".join(cells.get((method, m), "") for m in metrics) + " |" for method in methods]
    return "\n".join(header + body)


def cell(row: Row) -> str:
    """Mean and deviation."""
    return f"{row['mean']:.3f}" + (f" ± {row['std']:.3f}" if row["n_seeds"] > 1 else "")


def _is_current(row: Row, data_name: str, setting: Setting) -> bool:
    """Whether a stored row has the training and the parameters that this script has now; others are forgotten.

    Rows of influence functions without a commit are older than their residuals in float64.
    """
    if row["method"] in _MEASURED_AGAIN and "commit" not in row:
        return False
    return bool(row.get("recipe") == asdict(setting.recipe) and row["options"] == options(row["method"], data_name))


def _find(rows: list[Row], method: str, data_name: str, settings: Row) -> bool:
    """Whether the rows hold this method with these settings."""
    wanted = {**settings, "method": method, "options": options(method, data_name)}
    return any(all(row.get(key) == value for key, value in wanted.items()) for row in rows)


if __name__ == "__main__":
    main()
