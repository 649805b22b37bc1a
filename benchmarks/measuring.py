"""Time and memory of one method, measured in a process of its own.

    python -m benchmarks.measuring JOB     # JOB: a :class:`Job` as JSON; the last line printed is the result as JSON

The script behind Table 1, which starts these processes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contestants import Case, Contestant, Ours
from benchmarks.memory import forget_peak, peak_mib, used_mib
from benchmarks.neighbours import NEIGHBOURS
from dualview_plugin.errors import ConvergenceWarning

ROOT = Path(__file__).parents[1]
N_WARM_UP = 256


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        case: the file with the :class:`Case`.
        method: of ours or of the neighbours.
        n_train: the first training points, this many.
        fits: how often, at most.
        budget: seconds after which no further fit is started.
    """

    case: str
    method: str
    n_train: int
    fits: int
    budget: float


def in_a_process(job: Job) -> dict[str, Any]:
    """The result of :func:`measure` in a new process with this one's import path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "benchmarks.measuring", json.dumps(asdict(job))]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def save_case(case: Case, path: Path) -> None:
    """Write a case for :func:`in_a_process`."""
    torch.save(case, path)


def measure(job: Job) -> dict[str, Any]:
    """Fit and explain in this process, each time with a new object, after a warm-up on a few points."""
    whole: Case = torch.load(job.case, weights_only=False)
    case = whole.first(job.n_train)
    _warm_up(job.method, whole.first(N_WARM_UP, 2))
    meter = Meter(case.device)
    rows, start = [], time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while len(rows) < job.fits and (not rows or time.perf_counter() - start < job.budget):
            rows.append(_fit_and_explain(make(job.method, case), meter))
    notes = {str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)}
    lists = {key: [row[key] for row in rows] for key in ("fit_seconds", "explain_seconds")}
    return {**rows[0], **lists, "warnings": sorted(notes)}


def make(method: str, case: Case) -> Contestant:
    """The contestant of this name."""
    return NEIGHBOURS[method](case) if method in NEIGHBOURS else Ours(case, method)


def _warm_up(method: str, few: Case) -> None:
    """Load and compile what a first call does, on a few points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contestant = make(method, few)
        contestant.fit()
        contestant.explain()


def _fit_and_explain(contestant: Contestant, meter: Meter) -> dict[str, Any]:
    fit_seconds, fit_peak = meter(contestant.fit)
    kept = meter.now()
    explain_seconds, explain_peak = meter(contestant.explain)
    return {
        "fit_seconds": fit_seconds,
        "explain_seconds": explain_seconds,
        "fit_peak_mib": fit_peak,
        "explain_peak_mib": explain_peak,
        "measured_kept_mib": kept,
        "keeps": contestant.keeps,
        "keeps_mib": contestant.kept_mib(),
        "sizes": contestant.sizes(),
        "note": contestant.note,
    }


class Meter:
    """Seconds and memory of calls, beyond the memory when the meter was made: the process's (Linux), or the GPU's."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.base = 0.0
        self.base = self.now()

    def __call__(self, work: Callable[[], object]) -> tuple[float, float]:
        """Seconds of the call, and the peak memory in MiB meanwhile."""
        self._forget_peak()
        start = time.perf_counter()
        work()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start, self._peak() - self.base

    def now(self) -> float:
        """Memory in use in MiB, with what is free given back."""
        gc.collect()
        if self.cuda:
            return torch.cuda.memory_allocated() / 2**20 - self.base
        ctypes.CDLL(None).malloc_trim(0)
        return used_mib() - self.base

    def _forget_peak(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def _peak(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**20 if self.cuda else peak_mib()


if __name__ == "__main__":
    print("\n" + json.dumps(measure(Job(**json.loads(sys.argv[1])))))
