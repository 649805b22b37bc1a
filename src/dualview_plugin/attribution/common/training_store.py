"""What a method computes from every training point, through a store of shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from dualview_plugin.data import KnownContent, RangeStream, TrainingData
from dualview_plugin.engines import ShardWork, engine_of
from dualview_plugin.features import same_answers
from dualview_plugin.network import fingerprint
from dualview_plugin.storage import Column, ShardStore, Storage, StoreIdentity, StoreReport, dtype_name, shard_size_for

# Samples that are read to recognise data that are decoded one by one.
N_PROBES = 128
# Finished rows that are computed again to recognise the network.
_N_CHECKED = 4


@dataclass(frozen=True)
class TrainingStore:
    """Columns computed from training points, shard by shard: read where they are stored, else computed and stored.

    Args:
        storage: where and how.
        kind: what the columns are.
        parts: what they depend on beside the data: the network, the layer, parameters.
        data: the training data.
        columns: their names, types and widths.
        work: computes them.
        checked: positions at which the network's answers are compared, if they are finished.
        show_progress: a bar over the shards.
        known: what is known of the data.
        answers: what the network answers now at a probe, for work that keeps its answers in columns of these names;
            they are compared in place of ``checked`` rows, and nothing is computed for that.
    """

    storage: Storage
    kind: str
    parts: Mapping[str, str]
    data: TrainingData
    columns: list[Column]
    work: ShardWork
    checked: list[int]
    show_progress: bool
    known: KnownContent
    answers: Mapping[str, Tensor] | None = None

    def load(self) -> tuple[dict[str, Tensor], StoreReport]:
        """All columns, on the CPU, and how they came."""
        store = self.completed()
        values, damaged = store.gather(self.columns)
        if damaged:
            self._complete(store)
            for shard in damaged:
                store.fill(values, self.columns, shard)
        return values, self.report(store)

    def shards(self, store: ShardStore) -> Iterator[dict[str, Tensor]]:
        """The columns of one shard after the other, on the CPU."""
        for shard in range(store.n_shards):
            values = store.read_all(shard, self.columns)
            if values is None:
                self._complete(store)
                values = store.read_all(shard, self.columns)
            assert values is not None  # a damaged shard is held in memory once it is computed again
            yield values

    def completed(self) -> ShardStore:
        """The store, in which nothing is missing."""
        store = self._store()
        self._complete(store)
        if self.storage.verify == "full" and not self.known.whole:
            self._verify(store)
        return store

    def report(self, store: ShardStore) -> StoreReport:
        """How the columns came."""
        recognised_by = f"probe of {min(N_PROBES, len(self.data))} samples"
        if self.known.whole:
            recognised_by = "whole content"
        elif self.storage.verify == "full":
            recognised_by = "all samples"
        return StoreReport(store.folder, store.n_shards, store.n_written, recognised_by, store.content)

    def _store(self) -> ShardStore:
        """The store of these data and parts whose finished rows are what the network answers now."""
        size = self.storage.shard_size or shard_size_for(len(self.data))
        precisions = ", ".join(f"{column.name} {dtype_name(column.dtype)}" for column in self.columns[:1])
        for generation in count():
            parts = {**self.parts, "data": self.known.digest, "precision": precisions, "generation": str(generation)}
            key = fingerprint(self.kind, len(self.data), size, sorted(parts.items()))
            store = ShardStore(Path(self.storage.folder), StoreIdentity(self.kind, key, len(self.data), size, parts))
            if self._agrees(store):
                return store
        raise AssertionError  # count() has no end

    def _agrees(self, store: ShardStore) -> bool:
        """Whether a few finished rows are what the network answers: its code may have changed, its weights not."""
        finished = [shard for shard in range(store.n_shards) if store.has(shard, self.columns)]
        if self.answers is not None:
            return self._same_answers(store, self.answers, finished)
        size = store.identity.shard_size
        indices = [index for index in self.checked if index // size in finished]
        indices = sorted(indices or [store.rows(shard).start for shard in finished[:_N_CHECKED]])
        for rows, found, _ in self.work(iter([range(index, index + 1) for index in indices])):
            shard, place = rows.start // size, rows.start % size
            for column in self.columns:
                stored = store.read(shard, column)
                if stored is None:
                    break
                if not same_answers(found[column.name].cpu(), stored[place : place + 1]):
                    return False
        return True

    @staticmethod
    def _same_answers(store: ShardStore, answers: Mapping[str, Tensor], finished: list[int]) -> bool:
        """Whether the network answered at the first of the finished shards as it does now."""
        for shard in finished[:_N_CHECKED]:
            for name, answer in answers.items():
                stored = store.read(shard, Column(name, answer.dtype, answer.shape[1], len(answer)))
                if stored is not None and not same_answers(answer.cpu()[: len(stored)], stored):
                    return False
        return True

    def _complete(self, store: ShardStore) -> None:
        """Compute the shards that are missing.

        An interruption leaves those that are finished, and says how to go on.
        """
        n_missing = len(store.missing(self.columns))
        if not n_missing:
            return
        engine = engine_of(self.storage.engine)
        n_shards = store.n_shards
        bar = tqdm(
            total=n_shards, initial=n_shards - n_missing, desc=f"{self.kind}, shards", disable=not self.show_progress
        )
        with bar:
            try:
                engine.complete(store, self.columns, self.work, bar.update)
            except KeyboardInterrupt as error:
                done = n_shards - len(store.missing(self.columns))
                error.add_note(
                    f"{done} of {n_shards} shards are kept in {store.folder}; the same call goes on from there"
                )
                raise

    def _verify(self, store: ShardStore) -> None:
        """Read all samples, and compute the shards again whose samples are others than those of the store."""
        for rows, digest in RangeStream(self.data, map(store.rows, range(store.n_shards))).digests():
            shard = rows.start // store.identity.shard_size
            if store.data_digest(shard) != digest:
                store.discard(shard, f"shard {shard} of {store.folder} was made of other samples", "verify='full'")
        self._complete(store)
