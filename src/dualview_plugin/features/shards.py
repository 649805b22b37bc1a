"""Features of ranges of training points, in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dualview_plugin.data import RangeResult, RangeStream, TrainingData
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.features.extraction import FeatureExtractor
from dualview_plugin.features.probe import Probe
from dualview_plugin.features.training_features import training_answers
from dualview_plugin.network import Placement, guest


class FeatureShards:
    """Computes features, labels and, where asked for, logits of ranges of training points.

    Args:
        extractor: of the network.
        data: the training data.
        probe: samples and answers that must come again.
        dtype: of the features; None: the one that they are computed in.
        logits: whether to give logits.
    """

    def __init__(
        self, extractor: FeatureExtractor, data: TrainingData, probe: Probe, dtype: torch.dtype | None, logits: bool
    ) -> None:
        self.extractor, self.data, self.probe, self.dtype, self.logits = extractor, data, probe, dtype, logits

    def __call__(self, ranges: Iterable[range]) -> Iterator[RangeResult]:
        """For each range: its positions, its columns by name, and the digest of its samples."""
        stream = RangeStream(self.data, ranges)
        with guest(self.extractor.model):
            yield from stream.assembled(self._columns(stream))

    @torch.no_grad()
    def _columns(self, stream: RangeStream) -> Iterator[dict[str, Tensor]]:
        """The columns of each batch."""
        place = Placement.of(self.extractor.model)
        for rows, inputs, labels in stream.batches():
            features, logits = training_answers(self.extractor, rows.start, inputs, labels, place, self.probe)
            columns = {"features": in_precision(features, self.dtype), "labels": labels}
            yield {**columns, "logits": logits} if self.logits else columns


def in_precision(values: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Finite values in the type of the store; None: their own.

    Raises:
        InvalidValueError: a value is too large for the type.
    """
    if dtype is None:
        return values
    stored = values.to(dtype)
    if not bool(stored.isfinite().all()):
        largest = float(values.abs().max())
        constraint = f"a type whose range, up to {torch.finfo(dtype).max:.3g}, holds all values; try 'bfloat16'"
        raise InvalidValueError("dtype", "Storage", constraint, f"values up to {largest:.3g}")
    return stored
