"""Rows of an attribution matrix that was computed before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dualview_plugin.batches import n_rows
from dualview_plugin.metrics.sources.arrays import Array, TestArrays, row_slices, to_array
from dualview_plugin.metrics.sources.attribution_source import AttributionSource


class MatrixSource(AttributionSource):
    """A matrix; the network and the classes that it explains were chosen when it was computed.

    Args:
        attributions: (n_test, n_train), an array or a matrix in compressed rows, which is made dense by blocks.
        batch_size: test points in a block.
    """

    def __init__(self, attributions: Any, batch_size: int) -> None:
        self._attributions, self._batch_size = attributions, batch_size

    @property
    def n_train(self) -> int:
        """The number of columns."""
        return int(self._attributions.shape[1])

    def blocks(self, inputs: TestArrays, _target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of the matrix's rows."""
        for rows in row_slices(n_rows(inputs), self._batch_size):
            block: Any = self._attributions[rows]
            yield to_array(block.toarray() if hasattr(block, "toarray") else block)
