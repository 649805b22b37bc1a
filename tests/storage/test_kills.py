"""Kills at random moments: the later run is right, computes no finished shard again, and leaves no litter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_dozen_kills_lose_nothing_that_was_finished(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.storage.killing", str(tmp_path), "12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] == 12
    assert counts["killed"] >= 6
    assert counts["wrong"] == counts["twice"] == counts["leftovers"] == 0
    assert counts["never"] <= counts["killed"]
