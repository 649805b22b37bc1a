"""The training data: one counted stream of inputs and labels, in the dataset's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dualview_plugin.data.identity import KnownContent, SamplesDigest, known_content
from dualview_plugin.data.loaders import (
    check_dataset,
    check_loader,
    check_rows,
    counted_batches,
    kept_generators,
    loader_of_batches,
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

    def numbered(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        """All training points in order, each batch with its positions."""
        start = 0
        for inputs, labels in self.batches():
            yield range(start, start + len(labels)), inputs, labels
            start += len(labels)

    def ranges(self, ranges: Iterable[range]) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Batches of the training points in ranges of positions: their positions, inputs and labels.

        Ranges ascend, and are drawn as they are needed. No batch reaches over the end of a range. Other samples are not
        read, unless the loader is of a class of its own, whose batches are all gone through.
        """
        if type(self.loader) is DataLoader:
            yield from self._direct(ranges)
        else:
            yield from self._in_passing(ranges)

    def _direct(self, ranges: Iterable[range]) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Batches that a loader of these positions alone gives."""
        drawn: deque[range] = deque()
        size: int = self.loader.batch_sampler.batch_size  # type: ignore[union-attr]

        class Batches:
            def __iter__(self) -> Iterator[list[int]]:
                for rows in ranges:
                    for start in range(rows.start, rows.stop, size):
                        drawn.append(range(start, min(start + size, rows.stop)))
                        yield list(drawn[-1])

        with kept_generators(self.dataset):
            for batch in loader_of_batches(self.loader, Batches()):
                rows = drawn.popleft()
                yield rows, *self._checked(batch, len(rows))

    def _in_passing(self, ranges: Iterable[range]) -> Iterator[tuple[range, Tensor, Tensor]]:
        """The parts of all batches that lie in the ranges."""
        wanted = iter(ranges)
        rows = next(wanted, None)
        for batch, inputs, labels in self.numbered():
            while rows is not None and rows.start < batch.stop:
                part = range(max(rows.start, batch.start), min(rows.stop, batch.stop))
                place = slice(part.start - batch.start, part.stop - batch.start)
                yield part, inputs[place], labels[place]
                if part.stop < rows.stop:
                    break
                rows = next(wanted, None)
            if rows is None:
                return

    def at(self, indices: Iterable[int]) -> tuple[Tensor, Tensor]:
        """The training points at these positions, collated as one batch: inputs (n, …) and labels (n,)."""
        with kept_generators(self.dataset):
            samples = [self.dataset[int(index)] for index in indices]
            return self._checked(self.loader.collate_fn(samples), len(samples))

    def probe_indices(self) -> list[int]:
        """The positions of the samples that are looked at before heavy work."""
        return probe_indices(len(self))

    def identity(self, *, n_probes: int) -> KnownContent:
        """Which data these are: what the dataset knows of them, and where that is not all, ``n_probes`` samples."""
        known = known_content(self.dataset)
        collate = f"{getattr(self.loader.collate_fn, '__module__', '')}.{type(self.loader.collate_fn).__qualname__}"
        if known.whole and self.loader.collate_fn is default_collate and type(self.loader) is DataLoader:
            return known
        digest = SamplesDigest()
        for index in probe_indices(len(self), n_probes):
            digest.update(*self.at([index]))
        return KnownContent(f"{known.digest}{digest.hexdigest()}{collate}", whole=False)

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
    """A batch's type, in a few words."""
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of " + ", ".join(type(part).__name__ for part in batch)
    return type(batch).__name__
