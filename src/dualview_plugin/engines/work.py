"""What an engine is given and what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from dualview_plugin.data import RangeResult
from dualview_plugin.storage import Column, ShardStore


class ShardWork(Protocol):
    """Computes shards from the network and the training data."""

    def __call__(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """For each range of rows, in order: the range, its columns by name, and the digest of its samples.

        Ranges are drawn as they are needed.
        """


class Engine(Protocol):
    """Sees to it that all shards are there."""

    def complete(
        self, store: ShardStore, columns: list[Column], work: ShardWork, done: Callable[[int], object]
    ) -> None:
        """Compute what is missing of the columns; ``done`` gets the number of shards that this process has finished."""
