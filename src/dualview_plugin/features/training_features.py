"""Features, logits and labels of a whole training set, compared with what a probe has seen of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.batches import Batch
from dualview_plugin.data import TrainingData
from dualview_plugin.features.extraction import FeatureExtractor, check_finite, check_labels
from dualview_plugin.features.probe import Probe
from dualview_plugin.network import Placement, guest


@dataclass(frozen=True)
class TrainingFeatures:
    """What the network makes of its training set.

    Attributes:
        features: φ(x_i), (n_train, n_features), in float32 or more.
        logits: f(x_i), (n_train, n_classes), likewise; of the first points alone where no more were asked for.
        labels: y_i, (n_train,), int64.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


@torch.no_grad()
def training_features(
    extractor: FeatureExtractor,
    data: TrainingData,
    probe: Probe | None = None,
    *,
    n_logits: int | None = None,
    show_progress: bool = False,
) -> TrainingFeatures:
    """Features, logits and labels of a whole labelled dataset, kept on the network's device.

    Args:
        extractor: of the network.
        data: the training data.
        probe: samples and answers that must come again in this reading.
        n_logits: keep the logits of at most this many points, the first ones; None: of all.
        show_progress: a progress bar.

    Raises:
        InvalidValueError: a label is out of range of the network's outputs, or a feature or logit is not finite.

    Cost: one forward pass; memory (n_train × n_features + n_logits × n_classes), and one batch.
    """
    place = Placement.of(extractor.model)
    features = _Rows(len(data))
    logits = _Rows(len(data) if n_logits is None else min(n_logits, len(data)))
    labels: list[Tensor] = []
    with guest(extractor.model):
        start = 0
        for inputs, batch_labels in data.batches(description="penultimate features", show_progress=show_progress):
            batch_features, batch_logits = training_answers(extractor, start, inputs, batch_labels, place, probe)
            features.append(batch_features)
            logits.append(batch_logits)
            labels.append(batch_labels.to(place.device))
            start += len(batch_labels)
    return TrainingFeatures(features.whole(), logits.whole(), torch.cat(labels))


def training_answers(
    extractor: FeatureExtractor, start: int, inputs: Batch, labels: Tensor, place: Placement, probe: Probe | None
) -> tuple[Tensor, Tensor]:
    """Features (n, n_features) and logits (n, n_classes) of a batch of training points, once all is tested.

    Args:
        extractor: of the network.
        start: the position of the first point.
        inputs: as the dataset gives them.
        labels: (n,).
        place: the network's.
        probe: samples and answers that must come again.

    Raises:
        InvalidValueError: a label is out of range of the network's outputs, a feature or logit is not finite, or
            the batch is not what the probe has seen.
    """
    features, logits = extractor(place(inputs), "train_dataset")
    check_labels(labels, logits.shape[1], extractor.owner)
    if probe is not None:
        probe.check_reading(start, inputs, labels, extractor.owner)
        probe.check_answers(start, features, logits, extractor.owner)
    check_finite(features, logits, "train_dataset", extractor.owner, start)
    return features, logits


class _Rows:
    """Rows written batch by batch into one matrix, so that there is no second copy of them; more than fit are dropped.

    Args:
        n_rows: of the matrix.
    """

    def __init__(self, n_rows: int) -> None:
        self._n_rows = n_rows
        self._filled = 0
        self._matrix: Tensor | None = None

    def append(self, batch: Tensor) -> None:
        """The next rows; their number of columns, type and device are those of the first ones."""
        if self._matrix is None:
            self._matrix = batch.new_empty(self._n_rows, *batch.shape[1:])
        part = batch[: self._n_rows - self._filled]
        self._matrix[self._filled : self._filled + len(part)] = part
        self._filled += len(part)

    def whole(self) -> Tensor:
        """The matrix."""
        assert self._matrix is not None  # datasets are never empty
        assert self._filled == self._n_rows  # and counted
        return self._matrix
