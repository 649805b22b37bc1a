"""Rows of the attribution matrix from one of this package's methods."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

from torch import nn

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.metrics.sources.arrays import Array, TestArrays, to_array
from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.metrics.sources.shared_rows import SharedRows

SHARED = SharedRows()


class MethodSource(AttributionSource):
    """A method, in blocks of its own size; it explains the network that the metric was called with.

    Metrics that ask the same of a method whose attributions are costly share one computation, up to 256 MiB of it.

    Args:
        method: it is fitted again if its own network is another one, and keeps that fit.
        model: the network to explain; None: the method's own.
    """

    def __init__(self, method: DataAttribution, model: nn.Module | None) -> None:
        self._given, self._model = method, model

    @cached_property
    def _method(self) -> DataAttribution:
        return self._given.for_model(self._model)

    @property
    def n_train(self) -> int:
        """The number of points in the method's training data."""
        return self._given.n_train_

    @property
    def network(self) -> nn.Module | None:
        """The network that the metric was called with, or the method's own; None if it explains no other."""
        if not self._given.explains_other_networks:
            return None
        return self._given.model if self._model is None else self._model

    def for_network(self, model: nn.Module) -> MethodSource:
        """The method on another network; the given object keeps the fit that it has."""
        return MethodSource(copy.copy(self._method), model)

    def blocks(self, inputs: TestArrays, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train), of the method's own block size."""
        method = self._method
        with method.visit():
            key, blocks = method.rows_key(inputs, target), method.attribute_blocks(inputs, target)
        return SHARED.blocks(key, lambda: map(to_array, blocks))

    def decisions(self, inputs: TestArrays, owner: str) -> Array:
        """The network's decisions, (n_test,), as the method calls it."""
        del owner
        return to_array(self._method.decisions(inputs))

    def train_labels(self) -> Array:
        """The labels that the method was fitted with, (n_train,)."""
        return to_array(self._method.train_labels_)

    def self_influence(self) -> Array:
        """The method's own, (n_train,)."""
        method = self._method
        with method.visit():
            [values] = SHARED.blocks(method.rows_key(), lambda: [to_array(method.self_influence())])
        return values
