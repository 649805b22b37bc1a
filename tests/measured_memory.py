"""The peak memory of a piece of code, measured in a process of its own (Linux)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ON_LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc to read memory from")

_PREAMBLE = """
import ctypes, gc, json, warnings
import torch
from torch import nn
from torch.utils.data import TensorDataset
from benchmarks.memory import forget_peak, peak_mib, used_mib

torch.set_num_threads(1)
torch.manual_seed(0)
warnings.simplefilter("ignore")
peaks = {}

def world(n_train, n_features, n_classes):
    model = nn.Sequential(nn.Linear(8, n_features), nn.ReLU(), nn.Linear(n_features, n_classes)).eval()
    inputs = torch.randn(n_train, 8)
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(1) for part in torch.split(inputs, 256)])
    return model, TensorDataset(inputs, labels)

def begin():
    global before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    before = used_mib()

def end(name):
    peaks[name] = peak_mib() - before
"""


def measured_peaks(code: str) -> dict[str, Any]:
    """What the code leaves in ``peaks``: MiB between a call of ``begin()`` and one of ``end(name)``, by name."""
    program = f"{_PREAMBLE}\n{textwrap.dedent(code)}\nprint(json.dumps(peaks))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True, cwd=root, env=environment
    )
    peaks: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return peaks
