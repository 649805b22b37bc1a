"""Whether a pass over the training data reads the samples that an earlier pass has read."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualview_plugin.batches import Batch, leaves
from dualview_plugin.network import byte_view


class SeenSamples:
    """Checksums of the inputs of each sample, kept from the pass that read it first.

    A padded sample is compared with itself where it has the same length. 12 bytes a sample.

    Args:
        n_samples: of the dataset.
    """

    def __init__(self, n_samples: int) -> None:
        self._sums = np.zeros(n_samples, np.uint32)
        self._sizes = np.zeros(n_samples, np.int64)

    def __setstate__(self, state: dict[str, NDArray[Any]]) -> None:
        """In another process: arrays of its own, since those that Ray hands out cannot be written to."""
        self.__dict__.update({name: array.copy() for name, array in state.items()})

    def first_change(self, rows: range, inputs: Batch) -> int | None:
        """The first position of a batch at which another sample was read before; keeps the checksums of new ones."""
        parts = [byte_view(leaf).reshape(len(rows), -1) for leaf in leaves(inputs)]
        size = sum(part.shape[1] for part in parts)
        for position, row in zip(rows, range(len(rows)), strict=True):
            checksum = 0
            for part in parts:
                checksum = zlib.crc32(part[row], checksum)
            if self._sizes[position] != size:
                self._sums[position], self._sizes[position] = checksum, size
            elif self._sums[position] != checksum:
                return position
        return None
