"""The processes of torchrun or SLURM fill one store together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

from dualview_plugin.engines.exchange import Exchange
from dualview_plugin.engines.local import LocalEngine
from dualview_plugin.engines.work import SumWork
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.sums import Total

_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


class RanksEngine(LocalEngine):
    """Every rank takes the shards of its stride first, then helps with what is left, and returns when all are there.

    The ranks talk through the store alone: they need a common folder, and no process group. The shards of a rank that
    dies are computed by the others. Of a sum over the training points each rank computes the part of its range.

    Raises:
        InvalidValueError: neither RANK and WORLD_SIZE nor SLURM_PROCID and SLURM_NTASKS are set to fitting numbers.
    """

    jointly = True

    def __init__(self) -> None:
        self.rank, self.world_size = _rank()

    def portions(self, missing: list[int]) -> Iterator[list[int]]:
        """The shards of this rank, then those of the next ones."""
        for turn in range(self.world_size):
            rank = (self.rank + turn) % self.world_size
            yield [shard for shard in missing if shard % self.world_size == rank]

    def summing(self, work: SumWork, /) -> AbstractContextManager[Total | None]:
        """All ranks add up together; see :class:`Engine`."""
        return closing(Exchange(work, self.rank, self.world_size))


def _rank() -> tuple[int, int]:
    """The number of this process and of all, from the environment."""
    for names in _VARIABLES:
        values = [os.environ.get(name) for name in names]
        if None not in values:
            try:
                rank, size = (int(str(value)) for value in values)
            except ValueError:
                rank, size = -1, 0
            if 0 <= rank < size:
                return rank, size
            constraint = f"started with {names[0]} from 0 to {names[1]} - 1"
            raise InvalidValueError("engine", "Storage", constraint, f"{names[0]}={values[0]}, {names[1]}={values[1]}")
    constraint = "another than 'ranks' outside torchrun and srun, which set RANK and WORLD_SIZE"
    raise InvalidValueError("engine", "Storage", constraint, "'ranks' without RANK")
