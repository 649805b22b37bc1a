"""The training data: one counted stream of inputs and labels, in the dataset's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from dualview_plugin.batches import Batch, leaves, mapped, ordered_like, rows_of, structure
from dualview_plugin.data.conversion import as_batch
from dualview_plugin.data.identity import KnownContent, SamplesDigest, known_content
from dualview_plugin.data.labels import LabelFunction, class_labels, described, split_labels
from dualview_plugin.data.loaders import (
    check_dataset,
    check_loader,
    check_rows,
    counted_batches,
    iterated,
    kept_generators,
    loader_of_batches,
    refuse_columns,
    sequential_loader,
)
from dualview_plugin.data.reading_notes import ReadingNotes
from dualview_plugin.data.samples import probe_indices
from dualview_plugin.data.stamp import values_at
from dualview_plugin.errors import InvalidTypeError

TrainData: TypeAlias = "Dataset[Any] | DataLoader[Any]"
PARAMETER = "train_dataset"


class TrainingData:
    """Training points as batches of inputs and int64 labels; row j is ``dataset[j]``, and rows are counted.

    Args:
        data: a map-style dataset, or a DataLoader over one that does not shuffle. Its batches are ``(inputs, labels)``
            or ``(*inputs, labels)``, where inputs are tensors or structures of them, or dictionaries with the labels
            under ``"labels"`` or ``"label"``.
        batch_size: of a loader made here; a loader that was given keeps its own.
        owner: the class that asks, for error messages.
        label_fn: the labels of a collated batch, which then is the input as a whole.
        output: whose labels are taken, where there are zeros and ones for each output.

    Raises:
        InvalidTypeError: ``data`` is neither, or iterable-style, or columns in the place of samples.
        InvalidValueError: ``data`` is empty, or a loader that shuffles, samples, or leaves samples out.
    """

    def __init__(
        self,
        data: TrainData,
        batch_size: int,
        owner: str,
        label_fn: LabelFunction | None = None,
        output: int | None = None,
    ) -> None:
        self.owner, self._label_fn, self._output = owner, label_fn, output
        self.dataset: Any = data.dataset if isinstance(data, DataLoader) else data
        check_dataset(self.dataset, owner, PARAMETER)
        if label_fn is None:
            refuse_columns(self.dataset, owner, PARAMETER)
        self._notes = ReadingNotes.of(self.dataset)
        self._first: Any = None  # the structure of the first batch
        self.loader = data if isinstance(data, DataLoader) else sequential_loader(self.dataset, batch_size)
        check_loader(self.loader, owner, PARAMETER)

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, *, description: str = "", show_progress: bool = False) -> Iterator[tuple[Batch, Tensor]]:
        """All training points in order: inputs (n_batch, …) and labels (n_batch,).

        Raises:
            InvalidTypeError, InvalidValueError: a batch that is no inputs and labels, labels that are not one integer
                each, or a collate function that leaves samples out or adds some.
        """
        with (
            tqdm(total=len(self), desc=description, disable=not show_progress, leave=False) as bar,
            kept_generators(self.dataset),
            self.reading(),
        ):
            for batch, size in counted_batches(self.loader, self.owner, PARAMETER):
                inputs, labels = self._checked(batch, size)
                yield inputs, labels
                bar.update(size)

    def numbered(self) -> Iterator[tuple[range, Batch, Tensor]]:
        """All training points in order, each batch with its positions."""
        start = 0
        for inputs, labels in self.batches():
            yield range(start, start + len(labels)), inputs, labels
            start += len(labels)

    def ranges(self, ranges: Iterable[range]) -> Iterator[tuple[range, Batch, Tensor]]:
        """Batches of the training points in ranges of positions: their positions, inputs and labels.

        Ranges ascend, and are drawn as they are needed. No batch reaches over the end of a range. Other samples are not
        read, unless the loader is of a class of its own, whose batches are all gone through.
        """
        if type(self.loader) is DataLoader:
            yield from self._direct(ranges)
        else:
            yield from self._in_passing(ranges)

    def _direct(self, ranges: Iterable[range]) -> Iterator[tuple[range, Batch, Tensor]]:
        """Batches that a loader of these positions alone gives."""
        drawn: deque[range] = deque()
        size: int = self.loader.batch_sampler.batch_size  # type: ignore[union-attr]

        class Batches:
            def __iter__(self) -> Iterator[list[int]]:
                for rows in ranges:
                    for start in range(rows.start, rows.stop, size):
                        drawn.append(range(start, min(start + size, rows.stop)))
                        yield list(drawn[-1])

        with kept_generators(self.dataset), self.reading():
            for batch in iterated(loader_of_batches(self.loader, Batches())):
                rows = drawn.popleft()
                yield rows, *self._checked(batch, len(rows))

    def _in_passing(self, ranges: Iterable[range]) -> Iterator[tuple[range, Batch, Tensor]]:
        """The parts of all batches that lie in the ranges."""
        wanted = iter(ranges)
        rows = next(wanted, None)
        for batch, inputs, labels in self.numbered():
            while rows is not None and rows.start < batch.stop:
                part = range(max(rows.start, batch.start), min(rows.stop, batch.stop))
                place = slice(part.start - batch.start, part.stop - batch.start)
                yield part, rows_of(inputs, place), labels[place]
                if part.stop < rows.stop:
                    break
                rows = next(wanted, None)
            if rows is None:
                return

    def at(self, indices: Iterable[int]) -> tuple[Batch, Tensor]:
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
            constraint = "of (input, label) pairs that torch collates: give images a transform that makes tensors, or "
            constraint += "pass a DataLoader with a collate_fn"
            raise InvalidTypeError(PARAMETER, self.owner, constraint, described(samples[0])) from error

    def probe_indices(self) -> list[int]:
        """The positions of the samples that are looked at before heavy work."""
        return self._positions(4)

    def _positions(self, size: int) -> list[int]:
        """Positions spread over the samples, or over those that a stream keeps."""
        among = getattr(self.dataset, "probe_positions", range(len(self)))
        return [among[index] for index in probe_indices(len(among), size)]

    def identity(self, *, n_probes: int) -> KnownContent:
        """Which data these are: what the dataset knows of them, and where that is not all, ``n_probes`` samples.

        Data in memory whose labels a function makes are gone through.
        """
        known = known_content(self.dataset, values_at(self.dataset, self._notes.filled))
        collate = f"{getattr(self.loader.collate_fn, '__module__', '')}.{type(self.loader.collate_fn).__qualname__}"
        digest = SamplesDigest()
        if known.whole and self.loader.collate_fn is default_collate and type(self.loader) is DataLoader:
            if self._label_fn is None:
                return known
            for inputs, labels in self.batches():
                digest.update(inputs, labels)
            return KnownContent(f"{known.digest}{digest.hexdigest()}", whole=True)
        with self.reading():
            for index in self._positions(n_probes):
                digest.update(*self.at([index]))
        return KnownContent(f"{known.digest}{digest.hexdigest()}{collate}", whole=False)

    def learn_at(self, indices: list[int]) -> tuple[Batch, Tensor]:
        """:meth:`at`; what changes in the dataset meanwhile is taken for an effect of reading from now on."""
        with self._notes.few(self.dataset, indices):
            return self.at(indices)

    def reading(self) -> AbstractContextManager[None]:
        """A block that reads samples: effects on the dataset other than :meth:`learn_at` has seen are changes."""
        return self._notes.many(self.dataset)

    @property
    def version(self) -> int:
        """Another number once labels or tensors that the dataset holds are changed otherwise than by being read."""
        self._notes.look(self.dataset)
        return self._notes.version

    @property
    def last_version(self) -> int:
        """:attr:`version` as of the last reading: nothing is looked at."""
        return self._notes.version

    def accept(self) -> None:
        """Take the dataset as it is now for what it was, as of a copy."""
        self._notes.accept(self.dataset)

    def _checked(self, batch: Any, size: int) -> tuple[Batch, Tensor]:
        """A batch as a pair of inputs and labels with one row for each sample."""
        if self._label_fn is not None:
            inputs, given = batch, self._label_fn(batch)
        else:
            inputs, given = split_labels(batch, self.owner, PARAMETER)
        converted = as_batch(inputs, self.owner, PARAMETER)
        labels = class_labels(given, self._output, self.owner, PARAMETER)
        for part in (*leaves(converted), labels):
            check_rows(len(part) if part.ndim else 0, size, self.owner, PARAMETER)
        return self._in_order(converted), labels

    def _in_order(self, batch: Batch) -> Batch:
        """The batch with its names in the order of the first batch."""
        if isinstance(batch, Tensor):
            return batch
        if self._first is None:
            self._first = mapped(lambda _: 0, batch)
        same = structure(batch) == structure(self._first)
        ordered: Batch = ordered_like(batch, self._first) if same else batch
        return ordered
