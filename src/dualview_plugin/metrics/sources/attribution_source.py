"""What every source of attributions offers to a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from dualview_plugin.metrics.sources.arrays import Array


class AttributionSource(ABC):
    """Rows of the attribution matrix, a block at a time."""

    @abstractmethod
    def blocks(self, inputs: Array, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train).

        Args:
            inputs: test inputs, (n_test, …).
            target: explained classes, (n_test,); None: the network's decisions.
        """

    @property
    def n_train(self) -> int | None:
        """Number of training points, if it is known before the first block."""
        return None

    def train_labels(self) -> Array | None:
        """Labels of the training points, (n_train,), if the source knows them; asked for after the first block."""
        return None

    def self_influence(self) -> Array | None:
        """The attribution of each training point to itself, (n_train,); None if the source has none."""
        return None
