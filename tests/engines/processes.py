"""Processes that run a module of this folder beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def started(module: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """``python -m tests.engines.MODULE ARGUMENTS`` with more environment variables."""
    command = [sys.executable, "-m", f"tests.engines.{module}", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def communicated(processes: Iterable[subprocess.Popen[str]]) -> list[str]:
    """What each process printed, once all have ended well."""
    done = [(process, *process.communicate()) for process in processes]
    assert all(process.returncode == 0 for process, _, _ in done), [error for _, _, error in done]
    return [output for _, output, _ in done]
