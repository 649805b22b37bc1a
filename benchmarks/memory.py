"""The memory of this process, in MiB (Linux)."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType


def forget_peak() -> None:
    """The peak starts anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """The largest resident memory since the peak was forgotten."""
    return _status("VmHWM")


def used_mib() -> float:
    """The resident memory now."""
    return _status("VmRSS")


class AnonymousMemory:
    """The peak of what the process has allocated since the start, without mapped files; sampled ten times a second.

    Pages of a mapped file can be dropped at any time, so that they do not count. A context manager.
    """

    def __init__(self) -> None:
        self.before = self.peak = _status("RssAnon")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> AnonymousMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    @property
    def added_mib(self) -> float:
        return self.peak - self.before

    def _sample(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, _status("RssAnon"))


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
