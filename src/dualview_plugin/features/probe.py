"""What is tested on a few samples before heavy work, and again, cheaply, at every later call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.data import TrainingData
from dualview_plugin.errors import DualViewError, InvalidValueError, RandomDataWarning, RandomNetworkWarning
from dualview_plugin.features.extraction import FeatureExtractor, check_finite, check_labels
from dualview_plugin.network import Placement, guest, relative_difference, same_outputs, tolerance, weights_checksum

# A batch and its rows, computed in kernels of other shapes, differ by up to this many times the tolerance of rounding.
_BATCH_ROUNDING = 30
_LARGEST_ROUNDING = 0.1

CheckProbe = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Probe:
    """A few training points and the network's answers: what a fit rests on, to notice when it changes.

    Attributes:
        indices: their positions in the dataset.
        inputs: (n, …), placed where the network is.
        labels: (n,).
        features, logits: the network's answers, (n, n_features) and (n, n_classes).
        repeatable: whether reading a sample twice gives the same input.
        checksum: of the network's weights.
        stamp: of the dataset.
        dtype: the precision in which answers are compared.
    """

    indices: list[int]
    inputs: Tensor
    labels: Tensor
    features: Tensor
    logits: Tensor
    repeatable: bool
    checksum: tuple[int, ...]
    stamp: tuple[int, ...]
    dtype: torch.dtype

    @property
    def n_classes(self) -> int:
        """The network's outputs."""
        return self.logits.shape[1]

    @torch.no_grad()
    def network_change(self, extractor: FeatureExtractor) -> str | None:
        """What has changed in the network, in a few words; None: nothing that its weights or answers show."""
        if weights_checksum(extractor.model) != self.checksum:
            return "other weights"
        features, logits = _answers(extractor, self.inputs)
        if not (same_outputs(features, self.features, self.dtype) and same_outputs(logits, self.logits, self.dtype)):
            return "the same weights but other outputs"
        return None

    def data_change(self, data: TrainingData) -> str | None:
        """What has changed in the data, in a few words; None: nothing that their number, labels and the probe show."""
        if len(data) != self.stamp[0]:
            return f"{len(data)} samples in place of {self.stamp[0]}"
        inputs, labels = data.at(self.indices)
        if data.stamp() != self.stamp or not torch.equal(labels, self.labels):
            return "other labels"
        place = Placement(self.inputs.device, self.inputs.dtype if self.inputs.is_floating_point() else None)
        if self.repeatable and not _equal(place(inputs), self.inputs):
            return "other inputs"
        return None


@torch.no_grad()
def take_probe(extractor: FeatureExtractor, data: TrainingData, owner: str, check: CheckProbe) -> Probe:
    """A probe of the data, after these tests: shapes, labels, what the method asks, randomness, independent rows.

    Args:
        extractor: of the network; learns whether a batch of one must go in twice.
        data: the training data.
        owner: the class that asks, for error messages.
        check: what a method asks of features and logits.

    Raises:
        InvalidValueError: the network or the data fail a test.

    Warns:
        RandomDataWarning: reading a sample twice gives two inputs.
        RandomNetworkWarning: two passes give two answers.

    Cost: twelve samples read, and as many forward passes.
    """
    place = Placement.of(extractor.model)
    with guest(extractor.model):
        indices = data.probe_indices()
        raw, labels = data.at(indices)
        inputs = place(raw)
        extractor.doubles_single = False
        if len(inputs) == 1:
            extractor.doubles_single = _loses_batch_axis(extractor, inputs)
        features, logits = _answers(extractor, inputs)
        check_labels(labels, logits.shape[1], owner)
        check_finite(features, logits, "train_dataset", owner)
        check(features, logits)
        repeatable = _is_repeatable(data, indices, raw, owner)
        dtype = place.dtype or logits.dtype
        if _is_random(extractor, inputs, logits, dtype):
            warnings.warn(
                f"model of {owner} draws random numbers in eval mode: attributions are those of single draws",
                RandomNetworkWarning,
                stacklevel=2,
            )
        elif len(inputs) > 1:
            singles = [data.at([index]) for index in indices] if repeatable else []
            _check_collation(singles, raw, labels, owner)
            rows = [place(single) for single, _ in singles] or list(torch.split(inputs, 1))
            extractor.doubles_single = _loses_batch_axis(extractor, rows[0])
            _check_rows(extractor, rows, features, logits, dtype, owner)
        checksum = weights_checksum(extractor.model)
    return Probe(indices, inputs, labels, features, logits, repeatable, checksum, data.stamp(), dtype)


def _answers(extractor: FeatureExtractor, inputs: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and logits of a batch, with the same random numbers at every call."""
    with guest(extractor.model):
        torch.manual_seed(seed)
        features, logits = extractor(inputs)
    return features.detach(), logits.detach()


def _is_repeatable(data: TrainingData, indices: list[int], inputs: Tensor, owner: str) -> bool:
    """Whether a second reading gives the same inputs; warns if not."""
    repeatable = _equal(data.at(indices)[0], inputs)
    if not repeatable:
        warnings.warn(
            f"train_dataset of {owner} gives other inputs at every reading, as with random augmentation: attributions"
            " are those of one reading; pass the dataset with the transform of the evaluation",
            RandomDataWarning,
            stacklevel=3,
        )
    return repeatable


def _is_random(extractor: FeatureExtractor, inputs: Tensor, logits: Tensor, dtype: torch.dtype) -> bool:
    """Whether other random numbers give other answers."""
    return not same_outputs(_answers(extractor, inputs, seed=1)[1], logits, dtype)


def _loses_batch_axis(extractor: FeatureExtractor, single: Tensor) -> bool:
    """Whether the network takes a batch of one for something else, but takes the same sample twice."""
    try:
        _answers(extractor, single)
    except (DualViewError, RuntimeError, ValueError, IndexError):
        _answers(extractor, torch.cat([single, single]))
        return True
    return False


def _check_collation(singles: list[tuple[Tensor, Tensor]], inputs: Tensor, labels: Tensor, owner: str) -> None:
    """Refuse a collate function that puts samples in another order, or that changes them by their neighbours."""
    for position, (single, label) in enumerate(singles):
        other = single.shape[1:] == inputs.shape[1:] and not _equal(single[0], inputs[position])
        if other or int(label) != int(labels[position]):
            constraint = "a dataset whose collate function keeps samples as they are and in their order"
            got = f"sample {position} of a batch other than by itself"
            raise InvalidValueError("train_dataset", owner, constraint, got)


def _check_rows(
    extractor: FeatureExtractor,
    singles: list[Tensor],
    features: Tensor,
    logits: Tensor,
    dtype: torch.dtype,
    owner: str,
) -> None:
    """Refuse a network whose answer to a sample depends on the others in its batch."""
    answers = [_answers(extractor, single) for single in singles]
    limit = min(_BATCH_ROUNDING * tolerance(dtype), _LARGEST_ROUNDING)
    for batch, alone in zip((features, logits), zip(*answers, strict=True), strict=True):
        rows = torch.cat(alone)
        difference = relative_difference(rows, batch) if rows.shape == batch.shape else float("inf")
        if difference > limit:
            constraint = (
                "a network that treats each sample by itself; batch statistics, attention without batch_first=True,"
                " padding without a mask and selection over a batch do not"
            )
            got = f"outputs that differ by {difference:.1e} between a batch and its samples one by one"
            raise InvalidValueError("model", owner, constraint, got)


def _equal(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same values, NaN included."""
    if first.shape != second.shape:
        return False
    return bool(torch.eq(first, second).logical_or((first != first) & (second != second)).all())
