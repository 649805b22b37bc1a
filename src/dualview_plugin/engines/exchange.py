"""Sums that the processes of a launch compute together, through files in a common folder."""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import Tensor

from dualview_plugin.engines.work import SumWork
from dualview_plugin.errors import CacheWarning
from dualview_plugin.network import fingerprint
from dualview_plugin.storage import Claim, DamagedFileError, read_saved, write_saved

_WAIT = 0.005  # seconds between two looks at a part that another process computes
_PATIENCE = 1.0  # seconds in which processes that are in step have read the last sum
_LEFTOVER = 24 * 3600  # seconds after which nobody works on a sum whose folder has not changed
# Sums before the present one whose files are kept, for processes that are still reading them.
_KEPT_SUMS = 2


class Exchange:
    """Adds up what all processes give for their ranges of the training points; see :class:`dualview_plugin.sums.Total`.

    Every process asks for the same sums in the same order. The files of a sum have names made of the summands and of
    its inputs, so that a process that asks for another sum computes it alone. The part of a process that is dead, or
    does not ask, is computed by the others. All get the same bits: parts are added in their order.

    Args:
        work: the sums.
        rank: the number of this process.
        world_size: the number of all.
    """

    def __init__(self, work: SumWork, rank: int, world_size: int) -> None:
        self._work, self._rank, self._world_size = work, rank, world_size
        self._ranges = work.ranges(world_size)
        self._used: list[Path] = []
        self._remove_leftovers()
        self._writable = True

    def __call__(self, name: str, *inputs: Tensor) -> Tensor:
        """The sum over all training points of the method of this name."""
        folder = self._work.folder / f"sum-{fingerprint(self._work.key, self._world_size, name, *inputs)}"
        if not self._opened(folder):
            return self._work.part(range(self._work.n_train), name, inputs)
        compute = partial(self._part, name, inputs)
        held = self._complete(folder, compute)
        total: Tensor | None = None
        for part in range(len(self._ranges)):
            values = held.get(part)
            if values is None:
                values = self._read(folder, part, total)
            if values is None:  # damaged, or removed by a process that is far ahead
                values = compute(part)
            total = values if total is None else total.add_(values)
        assert total is not None  # a launch has a process
        self._leave(folder)
        return total

    def _part(self, name: str, inputs: tuple[Tensor, ...], part: int) -> Tensor:
        return self._work.part(self._ranges[part], name, inputs)

    def _complete(self, folder: Path, compute: Callable[[int], Tensor]) -> dict[int, Tensor]:
        """See to it that all parts are written; returns those that could not be."""
        held: dict[int, Tensor] = {}
        n_parts = len(self._ranges)
        missing = [(self._rank + turn) % n_parts for turn in range(n_parts)]  # its own part first
        while missing := [part for part in missing if part not in held and not _path(folder, part).exists()]:
            if not any(self._computed(folder, part, compute, held) for part in missing):
                time.sleep(_WAIT)
        return held

    def _computed(self, folder: Path, part: int, compute: Callable[[int], Tensor], held: dict[int, Tensor]) -> bool:
        """Whether this process has computed a part; not if another one has it, or does so now."""
        path = _path(folder, part)
        claim = Claim.take(path.with_suffix(".lock"))
        if claim is None:
            return False
        try:
            if path.exists():  # finished between the look and the claim
                return False
            values = compute(part)
            try:
                write_saved(path, {}, [values])
            except OSError as error:
                held[part] = values
                if folder.exists():  # else a process that is far ahead has removed it
                    self._cannot_write(error)
            return True
        finally:
            claim.release()

    @staticmethod
    def _read(folder: Path, part: int, like: Tensor | None) -> Tensor | None:
        """A part; None if its file is gone, or is no file of such a part."""
        try:
            _, (values,) = read_saved(_path(folder, part))
        except (FileNotFoundError, DamagedFileError, ValueError):
            return None
        fits = like is None or (values.shape == like.shape and values.dtype is like.dtype)
        return values if fits else None

    def _opened(self, folder: Path) -> bool:
        """Whether there is a folder for a sum, which is made; those of former ones are dropped."""
        while len(self._used) > _KEPT_SUMS:
            shutil.rmtree(self._used.pop(0), ignore_errors=True)
        try:
            if folder.is_symlink():
                raise OSError(f"{folder} is a symbolic link")
            folder.mkdir(exist_ok=True)
        except OSError as error:
            self._cannot_write(error)
            return False
        self._used.append(folder)
        return True

    def _leave(self, folder: Path) -> None:
        """Note that this process has read a sum; the last one to do so drops its files."""
        try:
            (folder / f"read-{self._rank}").touch()
            everybody = sum(path.name.startswith("read-") for path in folder.iterdir()) == self._world_size
        except OSError:
            return
        if everybody:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Drop the files of the last sums, once others have had time to read them."""
        patience = time.monotonic() + _PATIENCE
        while any(folder.exists() for folder in self._used) and time.monotonic() < patience:
            time.sleep(_WAIT)
        while self._used:
            shutil.rmtree(self._used.pop(), ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Drop the files of sums that processes which were killed have left behind, days ago."""
        with contextlib.suppress(OSError):
            for folder in self._work.folder.glob("sum-*"):
                if time.time() - folder.stat().st_mtime > _LEFTOVER and not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)

    def _cannot_write(self, error: OSError) -> None:
        """Said once."""
        if self._writable:
            message = f"{self._work.folder} cannot be written, and this process computes its sums alone: {error}"
            warnings.warn(message, CacheWarning, stacklevel=2)
        self._writable = False


def _path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:04d}.zip"
