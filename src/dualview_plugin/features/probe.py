"""What is tested on a few samples before heavy work, and again, cheaply, at every later call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.batches import Batch, alike, concatenated, leaves, n_rows, rows_of, same_values, split, structure
from dualview_plugin.data import TrainingData
from dualview_plugin.errors import DualViewError, InvalidValueError, RandomDataWarning, RandomNetworkWarning
from dualview_plugin.features.extraction import FeatureExtractor, check_finite, check_labels
from dualview_plugin.network import (
    Placement,
    allow_autocast,
    coarsest_type,
    end_in_sigmoid,
    guest,
    kept_weights,
    note_writing,
    plain_tensors,
    preserved_random_state,
    relative_difference,
    same_outputs,
    seed_random_states,
    tolerance,
    weights_checksum,
)

# A batch and its rows, computed in kernels of other shapes, differ by up to this many times the tolerance of rounding.
_BATCH_ROUNDING = 30
_LARGEST_ROUNDING = 0.1

CheckProbe = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Probe:
    """A few training points and the network's answers: what a fit rests on, to notice when it changes.

    Attributes:
        indices: their positions in the dataset.
        inputs: (n, …), a batch, placed where the network is.
        labels: (n,).
        features, logits: the network's answers, (n, n_features) and (n, n_classes).
        repeatable: whether reading a sample twice gives the same input.
        repeats: whether the network gives the same answer twice.
        plain: names of the network's plain tensors that a forward pass leaves alone, so that they identify it.
        checksum: of the network's weights and of these tensors.
        version: of the dataset.
        dtype: the precision in which answers are compared.
    """

    indices: list[int]
    inputs: Batch
    labels: Tensor
    features: Tensor
    logits: Tensor
    repeatable: bool
    repeats: bool
    plain: frozenset[str]
    checksum: tuple[int, ...]
    n_train: int
    version: int
    dtype: torch.dtype

    @property
    def n_classes(self) -> int:
        """The network's outputs."""
        return self.logits.shape[1]

    @torch.no_grad()
    def network_change(self, extractor: FeatureExtractor) -> str | None:
        """What has changed in the network, in a few words; None: nothing that its weights or answers show."""
        if weights_checksum(extractor.model, self.plain) != self.checksum:
            return "other weights"
        if not self.repeats:
            return None
        features, logits = _answers(extractor, self.inputs)
        if not (same_outputs(features, self.features, self.dtype) and same_outputs(logits, self.logits, self.dtype)):
            return "the same weights but other outputs"
        return None

    def data_change(self, data: TrainingData) -> str | None:
        """What has changed in the data, in a few words; None: nothing that their number, labels and the probe show."""
        if len(data) != self.n_train:
            return f"{len(data)} samples in place of {self.n_train}"
        with data.reading():  # which looks for changes first
            inputs, labels = data.at(self.indices)
        if data.last_version != self.version or not torch.equal(labels, self.labels):
            return "other labels or samples"
        if self.repeatable and not _same_placed(self.inputs, inputs, padded=False):
            return "other inputs"
        return None

    def check_reading(self, start: int, inputs: Batch, labels: Tensor, owner: str) -> None:
        """Refuse a batch from position ``start`` on whose rows are other samples than those of the dataset."""
        for place, row in self._rows_in(start, len(labels)):
            expected, found = _row(self.inputs, place), _row(inputs, row)
            other = self.repeatable and not _same_placed(expected, found)
            if other or int(labels[row]) != int(self.labels[place]):
                constraint = "read in the dataset's order, each sample as it is, in batches of every size"
                got = f"another row {self.indices[place]} than dataset[{self.indices[place]}]"
                raise InvalidValueError("train_dataset", owner, constraint, got)

    def check_answers(self, start: int, features: Tensor, logits: Tensor, owner: str) -> None:
        """Refuse answers from position ``start`` on that depend on the batch that a sample came in."""
        rows = list(self._rows_in(start, len(logits)))
        if rows and self.repeats and self.repeatable:
            places, found = [place for place, _ in rows], [row for _, row in rows]
            for whole, probe in ((features, self.features), (logits, self.logits)):
                _refuse_interaction(whole[found], probe[places], self.dtype, owner)

    def _rows_in(self, start: int, size: int) -> Iterator[tuple[int, int]]:
        """The probe's places, and their rows in a batch from position ``start`` on."""
        for place, index in enumerate(self.indices):
            if start <= index < start + size:
                yield place, index - start


@torch.no_grad()
def take_probe(extractor: FeatureExtractor, data: TrainingData, owner: str, check: CheckProbe) -> Probe:
    """A probe of the data, after these tests: shapes, labels, logits, what the method asks, randomness, separate rows.

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
    model = extractor.model
    place = Placement.of(model)
    with guest(model), kept_weights(model):
        indices = data.probe_indices()
        raw, labels = data.learn_at(indices)
        inputs = place(raw)
        extractor.doubles_single = False
        try:
            features, logits, plain = _first_answers(extractor, inputs, owner)
        except InvalidValueError:
            if not allow_autocast(model):
                raise
            features, logits, plain = _first_answers(extractor, inputs, owner)
        check_labels(labels, logits.shape[1], owner)
        check_finite(features, logits, "train_dataset", owner, among=indices)
        _refuse_sigmoid(extractor, inputs, logits, owner)
        check(features, logits)
        repeatable = _is_repeatable(data, indices, raw, owner)
        dtype = coarsest_type(model) or logits.dtype
        repeats = _repeats(extractor, inputs, logits, dtype, owner)
        if repeats and n_rows(inputs) > 1:
            with data.reading():
                singles = [data.at([index]) for index in indices] if repeatable else []
            _check_collation(singles, raw, labels, owner)
            rows = [place(single) for single, _ in singles] or list(split(inputs, 1))
            extractor.doubles_single = _loses_batch_axis(extractor, rows[0])
            answers = [_answers(extractor, row) for row in rows]
            for batch, alone in zip((features, logits), zip(*answers, strict=True), strict=True):
                _refuse_interaction(torch.cat(alone), batch, dtype, owner)
    with guest(model):
        checksum = weights_checksum(model, plain)
    return Probe(
        indices, inputs, labels, features, logits, repeatable, repeats, plain, checksum, len(data), data.version, dtype
    )


def _first_answers(extractor: FeatureExtractor, inputs: Batch, owner: str) -> tuple[Tensor, Tensor, frozenset[str]]:
    """The answers of the first pass, and the plain tensors that it leaves alone.

    Raises:
        InvalidValueError: the pass makes parameters that the network did not have.
    """
    model = extractor.model
    names, before = [name for name, _ in model.named_parameters()], plain_tensors(model)
    versions = {name: tensor._version for name, tensor in before.items() if not tensor.is_inference()}
    weights = weights_checksum(model)
    if n_rows(inputs) == 1:
        extractor.doubles_single = _loses_batch_axis(extractor, inputs)
    features, logits = _answers(extractor, inputs)
    after, made = plain_tensors(model), [name for name, _ in model.named_parameters() if name not in names]
    if made:
        constraint = "initialised: run one batch through it first"
        raise InvalidValueError("model", owner, constraint, f"parameters made by a forward pass: {', '.join(made[:3])}")
    if weights_checksum(model) != weights:
        note_writing(model)
    kept = (
        name
        for name, version in versions.items()
        if name in after and after[name].data_ptr() == before[name].data_ptr() and after[name]._version == version
    )
    return features, logits, frozenset(kept)


def _same_placed(expected: Batch, found: Batch, *, padded: bool = True) -> bool:
    """Whether a batch has the expected values once it is placed as they are.

    Args:
        expected: a batch.
        found: one of the same samples.
        padded: whether it came with others, so that it may be padded otherwise.
    """
    if structure(found) != structure(expected):
        return False
    pairs = list(zip(leaves(expected), leaves(found), strict=True))
    if any(mine.shape != other.shape for mine, other in pairs):
        return padded and all(mine.ndim == other.ndim for mine, other in pairs)
    return all(same_values(_placed_as(mine, other), mine) for mine, other in pairs)


def _placed_as(like: Tensor, tensor: Tensor) -> Tensor:
    """A tensor on the device and, if floating, in the type of another."""
    return Placement(like.device, like.dtype if like.is_floating_point() else None)(tensor)


def _row(batch: Batch, position: int) -> Batch:
    """A batch of one sample out of a batch."""
    row: Batch = rows_of(batch, slice(position, position + 1))
    return row


def _answers(extractor: FeatureExtractor, inputs: Batch, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features and logits of a batch, with the same random numbers at every call."""
    with guest(extractor.model), preserved_random_state():
        seed_random_states(seed)
        features, logits = extractor(inputs, "train_dataset")
    return features.detach(), logits.detach()


def _is_repeatable(data: TrainingData, indices: list[int], inputs: Batch, owner: str) -> bool:
    """Whether other readings, one of them backwards, give the same inputs; warns if not."""
    readings = [data.learn_at(indices)[0]]
    with data.reading():
        readings.append(data.at(indices[::-1])[0])
    repeatable = same_values(readings[0], inputs) and _same_rows(readings[1], inputs)
    if not repeatable:
        warnings.warn(
            f"train_dataset of {owner} gives other inputs at every reading, as with random augmentation: attributions"
            " are those of one reading; pass the dataset with the transform of the evaluation",
            RandomDataWarning,
            stacklevel=3,
        )
    return repeatable


def _same_rows(found: Batch, expected: Batch) -> bool:
    """Whether two batches have the same samples, in whatever order."""
    others = list(split(expected, 1))
    return n_rows(found) == len(others) and all(
        any(same_values(row, other) for other in others) for row in split(found, 1)
    )


def _repeats(extractor: FeatureExtractor, inputs: Batch, logits: Tensor, dtype: torch.dtype, owner: str) -> bool:
    """Whether other random numbers give the same answers; warns if not."""
    repeats = same_outputs(_answers(extractor, inputs, seed=1)[1], logits, dtype)
    if not repeats:
        warnings.warn(
            f"model of {owner} draws random numbers in eval mode, or keeps a state: attributions are those of single"
            " passes",
            RandomNetworkWarning,
            stacklevel=3,
        )
    return repeats


def _loses_batch_axis(extractor: FeatureExtractor, single: Batch) -> bool:
    """Whether the network takes a batch of one for something else, but takes the same sample twice."""
    try:
        _answers(extractor, single)
    except (DualViewError, RuntimeError, ValueError, IndexError):
        _answers(extractor, concatenated([single, single]))
        return True
    return False


def _check_collation(singles: list[tuple[Batch, Tensor]], inputs: Batch, labels: Tensor, owner: str) -> None:
    """Refuse a collate function that puts samples in another order, or that changes them by their neighbours."""
    for position, (single, label) in enumerate(singles):
        row = _row(inputs, position)
        other = alike(single, row) and not same_values(single, row)
        if other or int(label) != int(labels[position]):
            constraint = "a dataset whose collate function keeps samples as they are and in their order"
            got = f"sample {position} of a batch other than by itself"
            raise InvalidValueError("train_dataset", owner, constraint, got)


def same_answers(found: Tensor, expected: Tensor) -> bool:
    """Whether answers of other batches are those of one network, up to rounding; integers are equal."""
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    limit = min(_BATCH_ROUNDING * tolerance(expected.dtype), _LARGEST_ROUNDING)
    return found.shape == expected.shape and relative_difference(found, expected) <= limit


def _refuse_sigmoid(extractor: FeatureExtractor, inputs: Batch, logits: Tensor, owner: str) -> None:
    """Refuse a single output between 0 and 1 that is a probability: as a logit it would always mean class 1."""
    z = logits[:, -1] - logits[:, 0]
    if logits.shape[1] != 2 or not torch.equal(logits[:, 0], -logits[:, 1]) or float(z.min()) < 0 or float(z.max()) > 1:
        return
    with guest(extractor.model):
        if end_in_sigmoid(lambda: extractor.call.outputs_of_copy(inputs, "train_dataset")):
            constraint = (
                "a network whose single output is a logit: take the sigmoid off, or pass"
                " forward=lambda model, batch: torch.logit(model(batch))"
            )
            raise InvalidValueError("model", owner, constraint, "the values of a sigmoid")


def _refuse_interaction(found: Tensor, expected: Tensor, dtype: torch.dtype, owner: str) -> None:
    """Refuse a network whose answer to a sample depends on the others in its batch."""
    limit = min(_BATCH_ROUNDING * tolerance(dtype), _LARGEST_ROUNDING)
    difference = relative_difference(found, expected) if found.shape == expected.shape else float("inf")
    if difference > limit:
        constraint = (
            "a network that treats each sample by itself; batch statistics, attention without batch_first=True,"
            " padding without a mask and selection over a batch do not"
        )
        got = f"outputs that differ by {difference:.1e} between batches with the same samples"
        raise InvalidValueError("model", owner, constraint, got)
