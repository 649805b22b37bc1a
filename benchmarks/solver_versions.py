"""This solver beside that of another checkout: time, gap and support, in turn, each solve in its own process.

    git worktree add ../former bc87001
    python -m benchmarks.solver_versions --former ../former --cases mnist relu97

The cases are those of ``benchmarks.solver``. The ratio is that of the medians of the processor's time; 1 is as fast.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from benchmarks.rows import Row, Rows
from benchmarks.solver import CACHE, CONSTANTS, SEED, TOL, load, path_of

NOW = Path(__file__).parents[1]
_SOLVE = """
import json, sys, time, warnings
import numpy as np
from dualview_plugin.solver import solve_crammer_singer
warnings.simplefilter("ignore")
path, C, tol, limit, seed = sys.argv[1], *map(float, sys.argv[2:5]), int(sys.argv[5])
stored = np.load(path)
features, labels = stored["features"], stored["labels"]
n_classes = int(labels.max()) + 1
for constant in (1e-3, C):  # loads the kernels
    solve_crammer_singer(features[:2000], labels[:2000], constant, n_classes=n_classes, max_iter=3)
wall, cpu = time.perf_counter(), time.process_time()
found = solve_crammer_singer(features, labels, C, tol=tol, time_limit=limit, seed=seed)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"seconds": wall, "cpu": cpu, "gap": found.duality_gap, "support": found.n_support}))
"""


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--former", type=Path, required=True, help="the root of the other checkout")
    parser.add_argument("--cases", nargs="+", choices=list(CONSTANTS), default=list(CONSTANTS))
    parser.add_argument("--constants", nargs="+", type=float, help="only these C")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one solve")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    command = ["git", "-C", str(chosen.former), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    jobs = [
        {"seed": SEED, "case": case, "C": C, "former": commit, "repeats": chosen.repeats}
        for case in chosen.cases
        for C in chosen.constants or CONSTANTS[case]
    ]
    rows = Rows("solver_versions", "all", chosen.results)
    for row in rows.run(jobs, lambda job: measured(job, chosen)):
        print(f"{row['arguments']['case']}, C = {row['arguments']['C']:g}: {row['result']['ratio']:.2f}")


def measured(job: Row, chosen: argparse.Namespace) -> dict[str, Any]:
    """Medians of both, and the ratio of the processor's time."""
    load(job["case"])  # makes the features if they are not there
    runs: dict[str, list[dict[str, Any]]] = {"former": [], "now": []}
    for _ in range(job["repeats"]):
        for name, root in (("former", chosen.former), ("now", NOW)):
            runs[name].append(solved(root, job["case"], job["C"], chosen.limit))
    found: dict[str, Any] = {
        name: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]} for name, of_one in runs.items()
    }
    return found | {"ratio": found["now"]["cpu"] / found["former"]["cpu"], "load": os.getloadavg()[0]}


def solved(root: Path, case: str, C: float, limit: float) -> dict[str, Any]:
    """One solve with the sources of a checkout, one thread."""
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    values = [str(path_of(case)), *map(str, (C, TOL, limit, SEED))]
    done = subprocess.run(
        [sys.executable, "-c", _SOLVE, *values],
        env={**os.environ, **one_thread, "PYTHONPATH": str(root / "src")},
        cwd=CACHE,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
