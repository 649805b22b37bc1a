"""Claims on shards: of two live processes one computes a shard; a claim ends with its process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # pragma: no cover - another system: work may then be done twice
    fcntl = None


class Claim:
    """A lock file, held until :meth:`release` or the end of the process."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self._path, self._handle = path, handle

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """The claim; None if a live process has it. Where no lock can be made, everybody has it."""
        if fcntl is None:
            return cls(path, None)
        while True:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            except OSError:
                return cls(path, None)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_ino == os.stat(path).st_ino:
                    return cls(path, handle)
            except BlockingIOError:
                os.close(handle)
                return None
            except FileNotFoundError:
                pass
            except OSError:
                os.close(handle)
                return cls(path, None)
            os.close(handle)  # removed by its owner between opening and locking

    def release(self) -> None:
        """Give the claim back."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            os.close(handle)


@contextlib.contextmanager
def released(claims: dict[int, Claim]) -> Iterator[None]:
    """All claims are given back at the end."""
    try:
        yield
    finally:
        while claims:
            claims.popitem()[1].release()
