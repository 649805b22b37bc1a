"""This process computes what is missing, and shares the work with others on the same store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from dualview_plugin.engines.work import ShardWork, SumWork
from dualview_plugin.storage import Column, ShardStore
from dualview_plugin.storage.locks import Claim, released
from dualview_plugin.sums import Total

_WAIT = 0.1  # seconds between two looks at a shard that another process computes


class LocalEngine:
    """Computes shard after shard; a shard that a live process has claimed is waited for."""

    jointly = False

    def complete(
        self, store: ShardStore, columns: list[Column], work: ShardWork, done: Callable[[int], object]
    ) -> None:
        """Compute what is missing; see :class:`Engine`."""
        for own in self.portions(store.missing(columns)):
            compute(store, columns, work, own, done)
        while missing := store.missing(columns):
            if not compute(store, columns, work, missing, done):
                time.sleep(_WAIT)

    def portions(self, missing: list[int]) -> Iterator[list[int]]:
        """The missing shards in the order in which this process goes for them, in ascending lists."""
        yield missing

    def summing(self, _: SumWork, /) -> AbstractContextManager[Total | None]:
        """Nobody but the caller adds up; see :class:`Engine`."""
        return nullcontext()


def compute(
    store: ShardStore, columns: list[Column], work: ShardWork, shards: list[int], done: Callable[[int], object]
) -> int:
    """Compute the shards of a list that nobody else computes; returns how many."""
    claims: dict[int, Claim] = {}
    n_computed = 0

    def claimed() -> Iterator[range]:
        for shard in shards:
            claim = None if store.has(shard, columns) else store.claim(shard)
            if claim is None:
                continue
            if store.has(shard, columns):  # finished between the look and the claim
                claim.release()
                continue
            claims[shard] = claim
            yield store.rows(shard)

    with released(claims):
        for rows, values, digest in work(claimed()):
            shard = rows.start // store.identity.shard_size
            store.write(shard, values, digest)
            claims.pop(shard).release()
            n_computed += 1
            done(1)
    return n_computed
