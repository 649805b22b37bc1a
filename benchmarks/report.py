"""Tables and CSV files from the rows: written into the documents between markers, or compared with what is there.

    python -m benchmarks.report            # write
    python -m benchmarks.report --check    # exit code 1, and what differs, if a table or a CSV file is not its rows

A marker is ``<!-- table: NAME -->`` before the table and ``<!-- end -->`` behind it. ``tables.TABLES`` has the names.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import big_table, representer_variants, solver, table1, tables
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows, settings_of

ROOT = Path(__file__).parents[1]
_MARKED = re.compile(r"(<!-- table: ([\w -]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


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
            found.append((path, _MARKED.sub(lambda match: f"{match[1]}{tables.TABLES[match[2]]()}\n{match[4]}", text)))
    return found


def csv_files(folder: Path = RESULTS) -> list[tuple[Path, str]]:
    """The CSV files that are derived from rows, as they should be."""
    found = []
    for place, experiment, summary in (
        (folder, "table1", table1.summary),
        (folder, "table2", tables.table2_scores),
        (folder / "held-out", "table2", tables.table2_scores),
        (folder, "sparsity", tables.sparsity_rows),
        (folder, "representer_variants", representer_variants.table),
    ):
        for setting in settings_of(experiment, place):
            path = place / f"{experiment.replace('_', '-')}-{setting}.csv"
            found.append((path, as_csv(summary(Rows(experiment, setting, place).flat()))))
    settings = settings_of("big_table", folder)
    found += [(folder / f"big-table-{s}.csv", as_csv(big_table.current_scores(s, folder))) for s in settings]
    found.append((folder / "solver.csv", as_csv(solver.summary(Rows("solver", "all", folder).flat()))))
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """Rows of the same keys as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
