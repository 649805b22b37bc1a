"""Passes over the training data for a block of test points: the shards of the training set are handed to an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dualview_plugin.attribution.common.training_store import TrainingStore
from dualview_plugin.batches import Batch
from dualview_plugin.data import RangeResult, RangeStream, TrainingData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.network import guest
from dualview_plugin.storage import Column, StoreReport


class SweepingMethod(Protocol):
    """A fitted method whose attributions take a pass over the training data."""

    model: nn.Module
    _data: TrainingData

    @property
    def _score_dtype(self) -> torch.dtype: ...
    def _answers(self) -> dict[str, Tensor]: ...
    def _test_state(self, inputs: Batch, target: Tensor) -> Any: ...
    def _scores(self, state: Any, stream: RangeStream | None = None) -> Iterator[Tensor]: ...
    def _own_scores(self, stream: RangeStream | None = None) -> Iterator[Tensor]: ...
    def get_name(self) -> str: ...  # noqa: D102


@dataclass
class Scores:
    """The work of an engine: the attributions of ranges of training points to a block of test points.

    Args:
        method: fitted; attributions are made of its ``_test_state`` and ``_scores``.
        inputs: the test points, placed.
        target: the explained classes, (n_test,).
        start: the position of the first test point, for messages.
        k: keep the strongest ones of each shard alone; None: keep all.
        proponents: whether the strongest ones are the highest or the lowest.
    """

    method: SweepingMethod
    inputs: Batch
    target: Tensor
    start: int
    k: int | None = None
    proponents: bool = True
    _state: Any = None

    @property
    def columns(self) -> list[Column]:
        """What is kept of each shard: all attributions, a row for each training point, or the strongest, by rank."""
        n_test, dtype = len(self.target), self.method._score_dtype
        if self.k is None:
            return [Column("scores", dtype, n_test)]
        return [Column("indices", torch.int64, n_test, self.k), Column("values", dtype, n_test, self.k)]

    def state(self) -> Any:
        """What the test points bring into the pass; computed when it is first needed, and once for all actors."""
        if self._state is None:
            self._state = self.method._test_state(self.inputs, self.target)
        return self._state

    def __getstate__(self) -> dict[str, Any]:
        """With the state of the test points."""
        return {**vars(self), "_state": self.state()}

    def __call__(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """For each range: its positions, its columns by name, and the digest of its samples."""
        stream = RangeStream(self.method._data, ranges)
        with guest(self.method.model):
            for rows, columns, digest in stream.assembled(self._parts(stream)):
                yield rows, self._kept(rows, columns["scores"]), digest

    @torch.no_grad()
    def _parts(self, stream: RangeStream) -> Iterator[dict[str, Tensor]]:
        for part in self.method._scores(self.state(), stream):
            check_finite_scores(part, self.start, self.method.get_name())
            yield {"scores": part.mT}

    def _kept(self, rows: range, scores: Tensor) -> dict[str, Tensor]:
        """The columns of a shard, from attributions (n_rows, n_test)."""
        dtype = self.method._score_dtype
        answers = {name: answer[: len(rows)] for name, answer in self.method._answers().items()}
        if self.k is None:
            return {"scores": scores.to(dtype), **answers}
        top = scores.topk(min(self.k, len(rows)), dim=0, largest=self.proponents)
        return {"indices": top.indices + rows.start, "values": top.values.to(dtype), **answers}


@dataclass
class OwnScores:
    """The work of an engine: the attributions of ranges of training points to themselves.

    Args:
        method: attributions are those of its ``_own_scores``.
    """

    method: SweepingMethod

    @property
    def columns(self) -> list[Column]:
        """One number for each training point."""
        return [Column("values", self.method._score_dtype)]

    def __call__(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """For each range: its positions, its columns by name, and the digest of its samples."""
        stream = RangeStream(self.method._data, ranges)
        with guest(self.method.model):
            for rows, columns, digest in stream.assembled(self._parts(stream)):
                answers = {name: answer[: len(rows)] for name, answer in self.method._answers().items()}
                yield rows, {**columns, **answers}, digest

    @torch.no_grad()
    def _parts(self, stream: RangeStream) -> Iterator[dict[str, Tensor]]:
        for part in self.method._own_scores(stream):
            yield {"values": part.to(self.method._score_dtype)}


def strongest_of(store: TrainingStore, k: int, proponents: bool) -> tuple[Tensor, Tensor, StoreReport]:
    """The ``k`` strongest training points of each test point and their attributions, (n_test, k), of all shards."""
    indices: Tensor | None = None
    values: Tensor | None = None
    opened = store.completed()
    for part in store.shards(opened):
        if indices is not None and values is not None:
            part = {name: torch.cat([held, part[name]]) for name, held in (("indices", indices), ("values", values))}
        top = part["values"].topk(min(k, len(part["values"])), dim=0, largest=proponents)
        indices, values = part["indices"].gather(0, top.indices), top.values
    assert indices is not None  # datasets are never empty
    assert values is not None
    return indices.mT.contiguous(), values.mT.contiguous(), store.report(opened)


def check_finite_scores(scores: Tensor, start: int, owner: str) -> None:
    """Refuse test points, the first of them at position ``start``, whose attributions (n_test, n) are not finite."""
    finite = scores.sum(dim=1).isfinite()
    if not bool(finite.all()):
        positions = (torch.nonzero(~finite).flatten() + start).tolist()
        constraint = "inputs with finite attributions; the network gives NaN or infinity for some"
        raise InvalidValueError("inputs", owner, constraint, f"positions {positions[:5]}")
