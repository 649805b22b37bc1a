"""The memory of this process, in MiB (Linux)."""

from __future__ import annotations

from pathlib import Path


def forget_peak() -> None:
    """The peak starts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The largest resident memory since the peak was forgotten."""
    return _status("VmHWM")


def used_mib() -> float:
    """The resident memory now."""
    return _status("VmRSS")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
