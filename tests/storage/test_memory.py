"""Where there is a store, memory stays under a limit that the system enforces, below what whole arrays would take.

``RLIMIT_DATA`` counts what a process allocates, and not the files that it maps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.measured_memory import ON_LINUX

pytestmark = [ON_LINUX, pytest.mark.slow]

_PREAMBLE = """
import gc, ctypes, resource, sys, warnings
import torch
from torch import nn
from torch.utils.data import TensorDataset
from dualview_plugin import DualView, GradientSimilarity, Storage

torch.set_num_threads(1)
torch.manual_seed(0)
warnings.simplefilter("ignore")
folder, limit = sys.argv[1], float(sys.argv[2])
test = torch.randn(100, 8)

def world(n, n_features):
    centres = 4 * torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(n) % 5
    model = nn.Sequential(nn.Linear(8, n_features), nn.ReLU(), nn.Linear(n_features, 5)).eval()
    return model, TensorDataset(centres[labels] + torch.randn(n, 8), labels)

def storage(name):
    return Storage(f"{folder}/{name}", shard_size=512) if folder else None

def begin():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmData")]
    largest = int(line.split()[1]) * 1024 + int(limit * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (largest, largest))
"""

_DUALVIEW = """
options = dict(C=0.01, tol=0.1, batch_size=64, show_progress=False)
DualView(*put(world(200, 512)), cache_dir=storage("small"), **options).influence(test, k=10)
model, train = world(40_000, 512)  # features of 78 MiB
begin()
method = DualView(*put((model, train)), cache_dir=storage("large"), **options).fit()
method.influence(test, k=10)
"""

_SWEEP = """
options = dict(memory_budget=2**22, batch_size=64, show_progress=False)
GradientSimilarity(*put(world(200, 512)), cache_dir=storage("small"), **options).influence(test, k=10)
model, train = world(4_000, 512)  # gradients of 109 MiB
begin()
method = GradientSimilarity(*put((model, train)), cache_dir=storage("large"), **options)
found = method.influence(test, k=10)
assert not folder or method.sweep_.n_computed == 8
"""


def _run(code: str, folder: Path | str, limit: float) -> subprocess.CompletedProcess[str]:
    put = "def put(world):\n    return world[0], '2', world[1]\n"
    program = f"{_PREAMBLE}\n{put}\n{textwrap.dedent(code)}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_dualview_from_a_store_takes_less_than_its_features(tmp_path: Path) -> None:
    for _ in range(2):  # the second run reads the store
        done = _run(_DUALVIEW, tmp_path, 56)
        assert done.returncode == 0, done.stderr


def test_dualview_without_a_store_does_not_fit_into_this_limit() -> None:
    done = _run(_DUALVIEW, "", 56)
    assert done.returncode != 0
    assert "allocate" in done.stderr


def test_a_pass_over_gradients_keeps_to_a_small_budget(tmp_path: Path) -> None:
    done = _run(_SWEEP, tmp_path, 16)
    assert done.returncode == 0, done.stderr
