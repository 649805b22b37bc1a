"""Tables and CSV files from the rows: written into the documents between markers, or compared with what is there.

    python -m benchmarks.report            # write
    python -m benchmarks.report --check    # exit code 1, and what differs, if a table or a CSV file is not its rows

A marker is ``<!-- table: NAME -->`` before the table and ``<!-- end -->`` behind it. :data:`TABLES` has the names.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import big_table, projections, representer_variants, table1, table2
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows, settings_of

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"(<!-- table: ([\w -]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SPARSITY_SETTINGS = ("seed", "n_test", "network", "recipe", "time_limit")


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    differing = [path for path, text in (*csv_files(), *pages()) if not path.exists() or path.read_text() != text]
    for path in differing:
        print(
            f"{path.relative_to(ROOT)} differs from its rows" if chosen.check else f"{path.relative_to(ROOT)} written"
        )
    if not chosen.check:
        for path, text in (*csv_files(), *pages()):
            path.write_text(text)
    return int(chosen.check and bool(differing))


def pages() -> list[tuple[Path, str]]:
    """The documents with markers, as they should be."""
    found = []
    for path in sorted((*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"))):
        text = path.read_text()
        if _MARKED.search(text):
            found.append((path, _MARKED.sub(lambda match: f"{match[1]}{TABLES[match[2]]()}\n{match[4]}", text)))
    return found


def csv_files(folder: Path = RESULTS) -> list[tuple[Path, str]]:
    """The CSV files that are derived from rows, as they should be."""
    found = []
    for place, experiment, summary in (
        (folder, "table1", table1.summary),
        (folder, "table2", _table2),
        (folder / "held-out", "table2", _table2),
        (folder, "sparsity", _sparsity),
        (folder, "representer_variants", representer_variants.table),
    ):
        for setting in settings_of(experiment, place):
            path = place / f"{experiment.replace('_', '-')}-{setting}.csv"
            found.append((path, as_csv(summary(Rows(experiment, setting, place).flat()))))
    found += [
        (folder / f"big-table-{s}.csv", as_csv(_big_table_scores(s, folder))) for s in settings_of("big_table", folder)
    ]
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """Rows of the same keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = ("| " + " | ".join(line) + " |" for line in (header, *rows))
    return "\n".join([first, "|---" * len(header) + "|", *others])


def _table2(rows: list[Row]) -> list[Row]:
    return table2.summary(rows, max(row["n_test"] for row in rows))


def _sparsity(rows: list[Row]) -> list[Row]:
    kept = sorted((row for row in rows if "C" in row), key=lambda row: row["C"])
    return [{key: row[key] for key in row if key not in _SPARSITY_SETTINGS} for row in kept]


# ------------------------------------------------------------------ tables


def _times() -> str:
    """Ours on the whole of MNIST."""
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


def _scores() -> str:
    """The paper's four metrics on MNIST."""
    table = _table2(Rows("table2", "mnist").flat())
    metrics = list(dict.fromkeys(row["metric"] for row in table))
    means = {(row["method"], row["metric"]): f"{row['mean']:.3f}" for row in table}
    methods = [method for method in dict.fromkeys(row["method"] for row in table) if "LiSSA" not in method]
    return as_markdown(["method", *metrics], [[m, *(means.get((m, x), "–") for x in metrics)] for m in methods])


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


def _big_table_rows(setting: str, folder: Path = RESULTS) -> list[Row]:
    return Rows("big_table", setting, folder).flat()


def _big_table_scores(setting: str, folder: Path = RESULTS) -> list[Row]:
    """One row for each world, method, seed and metric."""
    return [
        {
            "world": row["world"],
            "method": row["method"],
            "seed": row["seed"],
            "metric": name,
            **{key: score.get(key) for key in ("score", "low", "high")},
        }
        for row in _big_table_rows(setting, folder)
        for name, score in row["scores"].items()
    ]


def _big_table(setting: str, worlds: Sequence[str], metrics: Sequence[str]) -> str:
    """Methods down, metrics across; the mean over seeds, and the interval over test points of the first seed."""
    scores = [row for row in _big_table_scores(setting) if row["world"] in worlds]
    methods = [method for method in big_table.METHODS if any(row["method"] == method for row in scores)]
    cells = {}
    for method in methods:
        for metric in metrics:
            group = [
                row for row in scores if (row["method"], row["metric"]) == (method, metric) and row["score"] is not None
            ]
            cells[method, metric] = _cell(group)
    return as_markdown(["method", *metrics], [[m, *(cells[m, x] for x in metrics)] for m in methods])


def _cell(group: Sequence[Row]) -> str:
    if not group:
        return "–"
    mean = statistics.fmean(row["score"] for row in group)
    digits = 0 if abs(mean) >= 100 else 3
    text = f"{mean:.{digits}f}"
    if group[0]["low"] is None:
        return text
    return f"{text} ({group[0]['low']:.{digits}f} … {group[0]['high']:.{digits}f})"


def _big_table_costs(setting: str) -> str:
    """Seconds and memory in the standard world."""
    rows = [row for row in _big_table_rows(setting) if row["world"] == "standard" and row["seed"] == 0]
    rows.sort(key=lambda row: list(big_table.METHODS).index(row["method"]))
    cells = [
        [row["method"], f"{row['fit_seconds']:.2f}", f"{row['attribute_seconds']:.2f}", f"{row['peak_mib']:.0f}"]
        for row in rows
    ]
    return as_markdown(["method", "fit, s", f"{rows[0]['n_explained']} explanations, s", "peak, MiB"], cells)


def _constants(setting: str) -> str:
    """Scores and sparsity over C."""
    metrics = ("Identical Class", "Identical Subclass", "Label Poisoning", "Domain Mismatch")
    cells = [
        [
            f"{row['C']:g}",
            f"{row['n_support']:,}",
            f"{row['agreement']:.3f}",
            *(f"{row[metric]:.3f}" for metric in metrics),
        ]
        for row in _sparsity(Rows("sparsity", setting).flat())
    ]
    return as_markdown(["C", "support points", "agrees with network", *metrics], cells)


TABLES: dict[str, Callable[[], str]] = {
    "constants on mnist": lambda: _constants("mnist"),
    "times on mnist": _times,
    "scores on mnist": _scores,
    "projections on mnist": _projections,
    "big digits detection": lambda: _big_table(
        "digits",
        ("standard", "grouped", "mixed"),
        ("Identical Class", "class detection, top 5", "Identical Subclass", "Mixed Datasets"),
    ),
    "big digits faults": lambda: _big_table(
        "digits",
        ("poisoned", "marked"),
        ("Label Poisoning", "mislabelling, self-influence", "Domain Mismatch", "shortcut detection, AUPRC"),
    ),
    "big digits retraining": lambda: _big_table(
        "digits", ("standard",), ("LDS, log-softmax", "LDS, margin", "leave one out", "model randomisation")
    ),
    "big digits curves": lambda: _big_table(
        "digits",
        ("standard",),
        (
            "coreset selection, absolute",
            "coreset selection, signed",
            "data pruning, absolute",
            "data pruning, signed",
        ),
    ),
    "big digits sparsity": lambda: _big_table(
        "digits", ("standard",), ("sparsity, Hoyer", "sparsity, l0", "sparsity, 90 % of the mass")
    ),
    "big digits hubs": lambda: _big_table(
        "digits", ("marked",), ("distinct top points", "commonest top point", "Domain Mismatch")
    ),
    "big digits costs": lambda: _big_table_costs("digits"),
}


if __name__ == "__main__":
    sys.exit(main())
