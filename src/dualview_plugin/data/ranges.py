"""Results for ranges of training points, put together from the results of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dualview_plugin.batches import Batch
from dualview_plugin.data.identity import SamplesDigest
from dualview_plugin.data.training_data import TrainingData

RangeResult = tuple[range, dict[str, Tensor], str]


class RangeStream:
    """The batches of some ranges of training points, and what is computed from them, range by range.

    Args:
        data: the training data.
        ranges: ascending; drawn as they are needed.
    """

    def __init__(self, data: TrainingData, ranges: Iterable[range]) -> None:
        self._data, self._ranges = data, ranges
        self._open: deque[tuple[range, SamplesDigest]] = deque()

    def batches(self) -> Iterator[tuple[range, Batch, Tensor]]:
        """The positions, inputs and labels of each batch; no batch reaches over the end of a range."""

        def noted() -> Iterator[range]:
            for rows in self._ranges:
                self._open.append((rows, SamplesDigest()))
                yield rows

        for rows, inputs, labels in self._data.ranges(noted()):
            digest = next(digest for whole, digest in self._open if rows.start in whole)
            digest.update(inputs, labels)
            yield rows, inputs, labels

    def unread(self) -> Iterator[range]:
        """The ranges alone, for what is computed without reading their samples; its digest is that of no samples."""
        for rows in self._ranges:
            self._open.append((rows, SamplesDigest()))
            yield rows

    def assembled(self, parts: Iterable[dict[str, Tensor]]) -> Iterator[RangeResult]:
        """Each range, its columns, and the digest of its samples, from consecutive rows that came of the batches."""
        held: list[dict[str, Tensor]] = []
        n_held = 0
        for part in parts:
            held.append(part)
            n_held += len(next(iter(part.values())))
            while n_held and n_held >= len(self._open[0][0]):
                rows, digest = self._open.popleft()
                joined = {name: torch.cat([part[name] for part in held]) for name in part}
                yield rows, {name: values[: len(rows)] for name, values in joined.items()}, digest.hexdigest()
                held = [{name: values[len(rows) :] for name, values in joined.items()}]
                n_held -= len(rows)

    def digests(self) -> Iterator[tuple[range, str]]:
        """Each range and the digest of its samples, with nothing computed."""
        parts = ({"labels": labels} for _, _, labels in self.batches())
        for rows, _, digest in self.assembled(parts):
            yield rows, digest
