"""The tables of the documents, each made from the rows of its experiment; :data:`TABLES` has their names."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    attribute,
    big_table,
    neighbours,
    projections,
    published,
    ranks,
    representer_variants,
    shared_sums,
    store_hit,
    table1,
    table2,
)
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows

_SPARSITY_SETTINGS = ("seed", "n_test", "network", "recipe", "time_limit")
_METRICS = published.METRICS
_ALL_METHODS = (*big_table.METHODS, *neighbours.OF_ALL_METRICS)


def as_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = ("| " + " | ".join(line) + " |" for line in (header, *rows))
    return "\n".join([first, "|---" * len(header) + "|", *others])


# ------------------------------------------------------------------ the paper's tables


def table2_scores(rows: list[Row]) -> list[Row]:
    """Mean and deviation over the seeds, of the rows with the most test points."""
    return table2.summary(rows, max(row["n_test"] for row in rows))


def _table2(setting: str, folder: Path = RESULTS, paper: Mapping[str, Sequence[float | None]] | None = None) -> str:
    """The four metrics, methods down; beside them the paper's."""
    table = table2_scores(Rows("table2", setting, folder).flat())
    cells = {(row["method"], row["metric"]): table2.cell(row) for row in table}
    body = []
    for method in dict.fromkeys(row["method"] for row in table):
        theirs = (paper or {}).get(method, [None] * len(_METRICS))
        pairs = zip((cells.get((method, metric), "–") for metric in _METRICS), theirs, strict=True)
        body.append([method, *(ours if their is None else f"{ours} / {their:.3f}" for ours, their in pairs)])
    return as_markdown(["method", *_METRICS], body)


def _scores() -> str:
    """The paper's four metrics on MNIST, means only."""
    table = table2_scores(Rows("table2", "mnist").flat())
    means = {(row["method"], row["metric"]): f"{row['mean']:.3f}" for row in table}
    methods = [method for method in dict.fromkeys(row["method"] for row in table) if "LiSSA" not in method]
    return as_markdown(["method", *_METRICS], [[m, *(means.get((m, x), "–") for x in _METRICS)] for m in methods])


def _times() -> str:
    """Ours on the whole of MNIST, few columns."""
    rows = table1.summary([row for row in Rows("table1", "mnist").flat() if row["n_train"] == 60_000])
    ours = [row for row in rows if row["method"] in table1.OURS and "DualDA" not in row["method"]]
    cells = [
        [
            row["method"],
            f"{row['fit_seconds_mean']:.1f}",
            f"{row['explain_seconds_mean']:.2f}",
            f"{row['measured_kept_mib']:.1f}",
        ]
        for row in ours
    ]
    return as_markdown(["method", "fit, s", "50 explanations, s", "kept, MiB"], cells)


def _ratios(setting: str) -> str:
    """Neighbours beside ours."""
    return table1.ratios_as_markdown(table1.ratios(Rows("table1", setting).flat()))


def sparsity_rows(rows: list[Row]) -> list[Row]:
    """By C, without what all have in common."""
    kept = sorted((row for row in rows if "C" in row), key=lambda row: row["C"])
    return [{key: row[key] for key in row if key not in _SPARSITY_SETTINGS} for row in kept]


def _constants(setting: str) -> str:
    """Scores and sparsity over C, few columns."""
    cells = [
        [f"{row['C']:g}", f"{row['n_support']:,}", f"{row['agreement']:.3f}", *(f"{row[m]:.3f}" for m in _METRICS)]
        for row in sparsity_rows(Rows("sparsity", setting).flat())
    ]
    return as_markdown(["C", "support points", "agrees with network", *_METRICS], cells)


def _sparsity(setting: str) -> str:
    """All that C changes; the last column is the largest relative gap of the four worlds."""
    shares = {"train_accuracy": "train accuracy", "test_accuracy": "test accuracy", "agreement": "agrees with network"}
    body = [
        [
            f"{row['C']:.2g}",
            f"{row['fit_seconds']:.2f}",
            *(f"{row[key]:.3f}" for key in shares),
            f"{row['n_support']:,}",
            *(f"{row[metric]:.3f}" for metric in _METRICS),
            f"{max(row[key] for key in row if key.startswith('gap_')):.0e}",
        ]
        for row in sparsity_rows(Rows("sparsity", setting).flat())
    ]
    return as_markdown(["C", "fit, s", *shares.values(), "support points", *_METRICS, "largest gap"], body)


def _representer_variants(setting: str) -> str:
    table = representer_variants.table(Rows("representer_variants", setting).flat())
    metrics = [key for key in table[0] if key != "variant"]
    return as_markdown(["variant", *metrics], [[row["variant"], *(f"{row[m]:.3f}" for m in metrics)] for row in table])


# ------------------------------------------------------------------ speed


def _projections() -> str:
    """SIM-rp's projections beside exact SIM."""
    cells = [
        [
            row["projection"],
            str(row["n_components"]),
            f"{row['fit_seconds']:.1f}",
            *(f"{row[name]:.3f}" for name in ("error", "correlation", "top_10")),
        ]
        for row in projections.summary(Rows("projections", "mnist").flat())
    ]
    return as_markdown(["projection", "components", "fit, s", "error", "correlation", "top-10"], cells)


def _attribute() -> str:
    """Seconds and MiB of each way."""
    body, sizes = [], ("n_train", "n_test", "n_classes")
    for row in sorted(Rows("attribute", "all").flat(), key=lambda row: [row[size] for size in sizes]):
        found = [row["measured"].get(way) for way in attribute.WAYS]
        cells = ["–" if way is None else f"{way['seconds']:.2f} / {way['peak_mib']:.0f}" for way in found]
        body.append([*(f"{row[size]:,}" for size in sizes), *cells])
    return as_markdown(["support points", "test points", "classes", *attribute.WAYS], body)


def _store_hit() -> str:
    """Seconds of the clock of each step, and the processor's of a hit in percent of those of the extraction."""
    body = []
    for row in store_hit.summary(Rows("store_hit", "mnist").flat()):
        shares = [100 * row[f"hit{part}_cpu"] / row["extract_cpu"] for part in ("_decide", "")]
        cells = [f"{row[f'{step}_wall']:.2f}" for step in store_hit.STEPS]
        body.append([store_hit.LABELS[row["case"]], *cells, *(f"{share:.0f}" for share in shares)])
    names = ["extraction", "the same into a store", "hit", "fit from a store", "fit recalled"]
    return as_markdown(["data and network", *(f"{name}, s" for name in names), "deciding, %", "hit, %"], body)


def _shared_sums() -> str:
    """Seconds of one rank and of two, and their ratio."""
    body = [
        [
            shared_sums.LABELS[row["sum"]],
            row["size"],
            *(f"{row[name]:.1f}" for name in ("one", "two")),
            f"{row['ratio']:.2f}",
        ]
        for row in shared_sums.summary(Rows("shared_sums", "all").flat())
    ]
    return as_markdown(["sum", "points × features × classes", "one rank, s", "two ranks, s", "ratio"], body)


def _solver() -> str:
    """Ours beside liblinear: seconds, relative gap, support points."""
    body = []
    for row in sorted(Rows("solver", "all").flat(), key=lambda row: (row["case"], row["C"])):
        ours, theirs = row["ours"], row["liblinear"]
        body.append(
            [
                row["case"],
                f"{row['C']:g}",
                *("not run" if run is None else _solve(run) for run in (ours, theirs)),
                "" if theirs is None else f"{theirs['seconds'] / ours['seconds']:.1f} ×",
                f"{row['memory']:.1f}",
                f"{row['screens']:.0%}".replace("%", " %") if "screens" in row else "",
            ]
        )
    header = ["case", "C", "ours: s / gap / support", "liblinear: s / gap / support", "faster", "memory / features"]
    return as_markdown([*header, "screens"], body)


def _solve(run: Mapping[str, Any]) -> str:
    return f"{run['seconds']:.2f} / {run['gap']:.0e} / {run['support']:,}"


def _solver_memory_map() -> str:
    """Ours on a memory map: the processor's seconds, the gap, and what lies in memory, by the number of points."""
    body = []
    for row in sorted(Rows("solver_memory_map", "all").flat(), key=lambda row: int(row["n_train"])):
        seconds, n_train = row.get("processor_seconds"), row["n_train"]
        if seconds is not None:
            each = f"{1e6 * seconds / n_train:.0f}", f"{2**20 * row['memory_mib'] / n_train:.0f}"
            size = f"{n_train:,}", f"{row['support']:,}"
            cells = *size, f"{seconds:.0f}", f"{row['gap']:.1e}", f"{row['memory_mib']:.0f}"
            body.append([*cells, *each])
    header = ["points", "support points", "processor, s", "gap", "memory, MiB", "µs a point", "bytes a point"]
    return as_markdown(header, body)


def _solver_versions() -> str:
    """The solver beside a former one: processor seconds and relative gaps."""
    body = [
        [
            row["case"],
            f"{row['C']:g}",
            str(row["repeats"]),
            *(f"{row[name]['cpu']:.2f} / {row[name]['gap']:.0e}" for name in ("former", "now")),
            f"{row['ratio']:.2f}",
        ]
        for row in Rows("solver_versions", "all").flat()
    ]
    return as_markdown(["case", "C", "runs", "former: s / gap", "now: s / gap", "now / former"], body)


# ------------------------------------------------------------------ the big table


def _big(setting: str, worlds: Sequence[str], metrics: Sequence[str]) -> str:
    """Methods down, measured metrics across; the mean over seeds, and an interval that covers those of all seeds."""
    scores = [row for row in big_table.current_scores(setting) if row["world"] in worlds and row["score"] is not None]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in scores:
        groups.setdefault((row["method"], row["metric"]), []).append(row)
    methods = [method for method in _ALL_METHODS if any(row["method"] == method for row in scores)]
    metrics = [metric for metric in metrics if any(row["metric"] == metric for row in scores)]
    return as_markdown(["method", *metrics], [[m, *(_cell(groups.get((m, x), [])) for x in metrics)] for m in methods])


def _cell(group: Sequence[Row]) -> str:
    if not group:
        return "–"
    mean = statistics.fmean(row["score"] for row in group)
    digits = 0 if abs(mean) >= 100 else 3
    lows = [row["score"] if row["low"] is None else row["low"] for row in group]
    highs = [row["score"] if row["high"] is None else row["high"] for row in group]
    low, high = min(lows), max(highs)
    if len(group) == 1 and group[0]["low"] is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def _big_costs(setting: str) -> str:
    """Median seconds, and the largest memory, over the worlds of the first seed."""
    rows, body = big_table.current_rows(setting), []
    first = min(row["seed"] for row in rows)
    rows = [row for row in rows if row["seed"] == first]
    for method in _ALL_METHODS:
        group = [row for row in rows if row["method"] == method]
        if group:
            medians = [statistics.median(row[key] for row in group) for key in ("fit_seconds", "attribute_seconds")]
            memory = max(row["peak_mib"] for row in group)
            body.append([method, *(f"{seconds:.2f}" for seconds in medians), f"{memory:.0f}"])
    return as_markdown(["method", "fit, s", "explanations, s", "peak, MiB"], body)


def _big_ranks(setting: str) -> str:
    """Mean ranks of this package's methods, the best above."""
    found = ranks.ranks([row for row in big_table.current_scores(setting) if row["method"] in big_table.METHODS])
    metrics = [metric for metric in ranks.DIRECTIONS if any(metric in of_one for of_one in found.values())]
    body = [
        [
            method,
            f"{ranks.mean_rank(of_one):.1f}",
            *(f"{of_one[metric]:.1f}" if metric in of_one else "–" for metric in metrics),
        ]
        for method, of_one in found.items()
    ]
    return as_markdown(["method", "mean", *metrics], body)


_BIG = {
    "detection": (
        ("standard", "grouped", "mixed"),
        ("Identical Class", "class detection, top 5", "Identical Subclass", "Mixed Datasets"),
    ),
    "faults": (
        ("poisoned", "marked"),
        ("Label Poisoning", "mislabelling, self-influence", "Domain Mismatch", "shortcut detection, AUPRC"),
    ),
    "retraining": (("standard",), ("LDS, log-softmax", "LDS, margin", "leave one out", "model randomisation")),
    "curves": (
        ("standard",),
        (
            "coreset selection, absolute",
            "coreset selection, signed",
            "data pruning, absolute",
            "data pruning, signed",
        ),
    ),
    "sparsity": (("standard",), ("sparsity, Hoyer", "sparsity, l0", "sparsity, 90 % of the mass")),
    "top points": (("standard",), ("distinct top points", "commonest top point")),
    "hubs": (("marked",), ("distinct top points", "commonest top point", "Domain Mismatch")),
}


def _of_the_big_table(setting: str) -> dict[str, Callable[[], str]]:
    made: dict[str, Callable[[], str]] = {
        f"big {setting} {name}": lambda worlds=worlds, metrics=metrics: _big(setting, worlds, metrics)  # type: ignore[misc]
        for name, (worlds, metrics) in _BIG.items()
    }
    made[f"big {setting} ranks"] = lambda: _big_ranks(setting)
    return made | {f"big {setting} costs": lambda: _big_costs(setting)}


TABLES: dict[str, Callable[[], str]] = {
    "scores on mnist": _scores,
    "times on mnist": _times,
    "constants on mnist": lambda: _constants("mnist"),
    "table2 on mnist": lambda: _table2("mnist", paper=published.MNIST),
    "table2 on other networks": lambda: _table2("mnist", RESULTS / "held-out"),
    "table2 on cifar10": lambda: _table2("cifar10-narrow", paper=published.CIFAR10),
    "representer variants on mnist": lambda: _representer_variants("mnist"),
    **{
        f"table1 on {name}": lambda setting=setting: table1.as_markdown(Rows("table1", setting).flat())  # type: ignore[misc]
        for name, setting in (("mnist", "mnist"), ("cifar10", "cifar10-narrow"), ("digits", "digits"))
    },
    **{
        f"ratios on {name}": lambda setting=setting: _ratios(setting)  # type: ignore[misc]
        for name, setting in (("mnist", "mnist"), ("cifar10", "cifar10-narrow"), ("digits", "digits"))
    },
    "sparsity on mnist": lambda: _sparsity("mnist"),
    "sparsity on cifar10": lambda: _sparsity("cifar10-narrow"),
    "projections on mnist": _projections,
    "attribute": _attribute,
    "shared sums": _shared_sums,
    "store hit": _store_hit,
    "solver": _solver,
    "solver memory map": _solver_memory_map,
    "solver versions": _solver_versions,
    **_of_the_big_table("digits"),
    **_of_the_big_table("mnist-10k"),
    **_of_the_big_table("cifar10-quarter"),
}
