"""What an engine is given and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from dualview_plugin.data import RangeResult
from dualview_plugin.storage import Column, ShardStore
from dualview_plugin.sums import Total


class ShardWork(Protocol):
    """Computes shards from the network and the training data."""

    def __call__(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """For each range of rows, in order: the range, its columns by name, and the digest of its samples.

        Ranges are drawn as they are needed.
        """


@dataclass(frozen=True)
class SumWork:
    """Sums over the training points that processes may compute together.

    Args:
        summands: can be pickled, and has methods that take a range of training points, and tensors, and give a tensor.
        n_train: training points.
        folder: for files that processes exchange.
        key: what the summands depend on.
    """

    summands: Any
    n_train: int
    folder: Path
    key: str

    def ranges(self, n_parts: int) -> list[range]:
        """The training points in ranges of sizes as equal as can be, none of them empty."""
        n_parts = min(n_parts, self.n_train)
        return [range(*bounds) for bounds in pairwise(self.n_train * part // n_parts for part in range(n_parts + 1))]

    def part(self, rows: range, name: str, inputs: tuple[Tensor, ...]) -> Tensor:
        """What the summands' method of this name gives for a range, on the CPU."""
        values: Tensor = getattr(self.summands, name)(rows, *inputs)
        return values.detach().cpu()


class Engine(Protocol):
    """Sees to it that all shards are there, and adds up over the training points.

    Attributes:
        jointly: whether all processes of a launch take part in :meth:`summing`, with the same sums in the same order.
    """

    jointly: bool

    def complete(
        self, store: ShardStore, columns: list[Column], work: ShardWork, done: Callable[[int], object]
    ) -> None:
        """Compute what is missing of the columns; ``done`` gets the number of shards that this process has finished."""

    def summing(self, work: SumWork, /) -> AbstractContextManager[Total | None]:
        """What adds up over the training points inside the block; None: nobody but the caller."""
