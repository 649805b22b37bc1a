"""What every source of attributions offers to a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import nn

from dualview_plugin.metrics.sources.arrays import Array, TestArrays, decisions, to_array


class AttributionSource(ABC):
    """Rows of the attribution matrix, a block at a time."""

    @abstractmethod
    def blocks(self, inputs: TestArrays, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train).

        Args:
            inputs: test inputs, (n_test, …).
            target: explained classes, (n_test,); None: the network's decisions.
        """

    @property
    def n_train(self) -> int | None:
        """Number of training points, if it is known before the first block."""
        return None

    @property
    def network(self) -> nn.Module | None:
        """The network that is explained, if the source can explain another one in its place."""
        return None

    def for_network(self, model: nn.Module) -> AttributionSource:
        """The same method on another network; only of a source that has a :attr:`network`."""
        raise NotImplementedError(f"{type(self).__name__} explains no other network than {type(model).__name__}")

    def decisions(self, inputs: TestArrays, owner: str) -> Array:
        """The decisions of the network that is explained, (n_test,); only of a source that has a :attr:`network`."""
        assert self.network is not None  # asked for by the caller
        return to_array(decisions(self.network, inputs, owner))

    def train_labels(self) -> Array | None:
        """Labels of the training points, (n_train,), if the source knows them; asked for after the first block."""
        return None

    def self_influence(self) -> Array | None:
        """The attribution of each training point to itself, (n_train,); None if the source has none."""
        return None
