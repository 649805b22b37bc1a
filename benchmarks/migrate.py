"""Results in the old form, one JSON file an experiment, as rows: run once for each such file that still appears.

    python -m benchmarks.migrate

Each row keeps what it recorded. The old files had one environment for all rows, that of the last write; it goes into
every row under "file", and the row's own commit, where it has one, beside it. Files that were taken over are deleted.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks import representer_variants, solver, table1, table2
from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows

KEYS: dict[str, Collection[str]] = {
    "table1": table1.KEYS,
    "table2": table2.KEYS,
    "representer-variants": representer_variants.KEYS,
    "sparsity": ("seed", "n_test", "network", "recipe", "time_limit", "C"),
    "solver": solver.KEYS,
}


def main(folder: Path = RESULTS) -> list[Path]:
    """The files that were taken over."""
    done = []
    for path in sorted(folder.rglob("*.json")):
        experiment = next((name for name in KEYS if path.stem == name or path.stem.startswith(f"{name}-")), None)
        if experiment is None:
            continue
        setting = path.stem.removeprefix(experiment).removeprefix("-") or "all"
        content = json.loads(path.read_text())
        take_over(content, Rows(experiment.replace("-", "_"), setting, path.parent), KEYS[experiment])
        path.unlink()
        done.append(path)
        print(f"{path.relative_to(folder)}: {len(content['rows'])} rows")
    return done


def take_over(content: dict[str, Any], rows: Rows, keys: Collection[str]) -> None:
    """Add the rows of an old file, less those that are there with the same result."""
    common: Row = {**content.get("settings", {}), **({"seed": content["seed"]} if "seed" in content else {})}
    for old in content["rows"]:
        row = {**common, **old}
        arguments = {key: row[key] for key in row if key in keys}
        _add(rows, arguments, {key: row[key] for key in row if key not in keys}, content, old.get("commit"))
    if content.get("path_seconds") is not None:
        constants = [row["C"] for row in content["rows"]]
        result = {"path_seconds": content["path_seconds"]}
        _add(rows, {**common, "constants": constants}, result, content, None)


def _add(rows: Rows, arguments: Row, result: Row, content: dict[str, Any], commit: str | None) -> None:
    found = rows.find(arguments)
    if found is None or found["result"] != result:
        rows.append(arguments, result, {"commit": commit, "file": content["environment"]})


if __name__ == "__main__":
    main()
