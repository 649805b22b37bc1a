"""The training data: one counted stream of inputs and labels, in the dataset's order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dualview_plugin.data.loaders import (
    check_dataset,
    check_loader,
    check_rows,
    counted_batches,
    kept_generators,
    sequential_loader,
)
from dualview_plugin.data.samples import probe_indices
from dualview_plugin.data.stamp import dataset_stamp
from dualview_plugin.errors import InvalidTypeError, InvalidValueError

TrainData: TypeAlias = "Dataset[Any] | DataLoader[Any]"
PARAMETER = "train_dataset"


class TrainingData:
    """Training points as batches of inputs and int64 labels; row j is ``dataset[j]``, and rows are counted.

    Args:
        data: a map-style dataset of ``(input, label)`` pairs, or a DataLoader over one that does not shuffle.
        batch_size: of a loader made here; a loader that was given keeps its own.
        owner: the class that asks, for error messages.

    Raises:
        InvalidTypeError: ``data`` is neither, or iterable-style.
        InvalidValueError: ``data`` is empty, or a loader that shuffles, samples, or leaves samples out.
    """

    def __init__(self, data: TrainData, batch_size: int, owner: str) -> None:
        self.owner = owner
        self.dataset: Any = data.dataset if isinstance(data, DataLoader) else data
        check_dataset(self.dataset, owner, PARAMETER)
        self.loader = data if isinstance(data, DataLoader) else sequential_loader(self.dataset, batch_size)
        check_loader(self.loader, owner, PARAMETER)

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, *, description: str = "", show_progress: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """All training points in order: inputs (n_batch, …) and labels (n_batch,).

        Raises:
            InvalidTypeError, InvalidValueError: a batch that is no pair of tensors, labels that are not one integer
                each, or a collate function that leaves samples out or adds some.
        """
        with (
            tqdm(total=len(self), desc=description, disable=not show_progress, leave=False) as bar,
            kept_generators(self.dataset),
        ):
            for batch, size in counted_batches(self.loader, self.owner, PARAMETER):
                inputs, labels = self._checked(batch, size)
                yield inputs, labels
                bar.update(size)

    def at(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """The training points at these positions, collated as one batch: inputs (n, …) and labels (n,)."""
        with kept_generators(self.dataset):
            samples = [self.dataset[int(index)] for index in indices]
            return self._checked(self._collated(samples), len(samples))

    def _collated(self, samples: list[Any]) -> Any:
        """The samples as one batch.

        Raises:
            InvalidTypeError: torch's own collate function does not take them.
        """
        try:
            return self.loader.collate_fn(samples)
        except TypeError as error:
            if self.loader.collate_fn is not default_collate:
                raise
            constraint = "of (input, label) pairs that torch collates; else pass a DataLoader with a collate_fn"
            raise InvalidTypeError(PARAMETER, self.owner, constraint, _describe(samples[0])) from error

    def probe_indices(self) -> list[int]:
        """The positions of the samples that are looked at before heavy work."""
        return probe_indices(len(self))

    def stamp(self) -> str:
        """What changes when the dataset grows, or when labels or tensors that it holds change."""
        return dataset_stamp(self.dataset)

    def _checked(self, batch: Any, size: int) -> tuple[Tensor, Tensor]:
        """A batch as a pair of inputs and labels with one row for each sample."""
        if not _is_pair(batch):
            raise InvalidTypeError(PARAMETER, self.owner, "a dataset of (input, label) pairs", _describe(batch))
        inputs, labels = batch
        if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.ndim != 1:
            got = f"labels {labels.dtype} of shape {tuple(labels.shape)}"
            raise InvalidValueError(PARAMETER, self.owner, "a dataset with one integer label for each sample", got)
        for part in (inputs, labels):
            check_rows(len(part) if part.ndim else 0, size, self.owner, PARAMETER)
        return inputs, labels.to(torch.int64)


def _is_pair(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)


def _describe(batch: object) -> str:
    """The type of a batch or a sample, in a few words."""
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of " + ", ".join(type(part).__name__ for part in batch)
    return type(batch).__name__
