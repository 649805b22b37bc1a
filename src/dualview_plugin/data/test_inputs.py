"""The test inputs: converted once in a public call, then read in counted batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from dualview_plugin.batches import (
    Batch,
    alike,
    concatenated,
    leaves,
    n_rows,
    ordered_like,
    rows_of,
    same_values,
    split,
    structure,
)
from dualview_plugin.data.conversion import as_batch
from dualview_plugin.data.labels import inputs_like
from dualview_plugin.data.loaders import (
    check_dataset,
    check_loader,
    check_rows,
    counted_batches,
    kept_generators,
    sequential_loader,
)
from dualview_plugin.data.samples import probe_indices
from dualview_plugin.errors import InvalidValueError, RandomDataWarning

PARAMETER = "inputs"
_LOADED = 256  # samples that are collated together out of a list


class TestInputs:
    """Test points as consecutive batches, without labels; row t is the t-th test point, and rows are counted.

    Args:
        inputs: (n_test, …): a tensor, an array, tuples or dictionaries of them, a list of samples that are
            dictionaries, a DataLoader that does not shuffle, or an object of this class.
        owner: the class that asks, for error messages.
        like: a batch of the training inputs, whose structure and numbers of axes the test inputs must have; None: any.
        collate: puts a list of samples together; None: torch's own.
        any_structure: take another structure than that of the training inputs.

    Raises:
        InvalidTypeError: something else, or an entry that is no tensor.
        InvalidValueError: no sample, no batch axis, another structure, or a loader that shuffles, samples, or leaves
            samples out.
    """

    __test__ = False  # for pytest, which takes the name for a test

    def __init__(
        self,
        inputs: Any,
        owner: str,
        like: Batch | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        *,
        any_structure: bool = False,
    ) -> None:
        self.owner, self._like, self._any_structure = owner, like, any_structure
        self._source: Batch | DataLoader[Any]
        if isinstance(inputs, list) and inputs and all(isinstance(sample, Mapping) for sample in inputs):
            inputs = sequential_loader(inputs, _LOADED, collate)
        if isinstance(inputs, TestInputs):
            self._source = inputs._source
        elif isinstance(inputs, DataLoader):
            check_dataset(inputs.dataset, owner, PARAMETER)
            check_loader(inputs, owner, PARAMETER)
            self._source = inputs
        else:
            self._source = self._checked(as_batch(inputs, owner, PARAMETER))
        if len(self) == 0:
            raise InvalidValueError(PARAMETER, owner, "not empty, at least one sample", "none")

    def __len__(self) -> int:
        if isinstance(self._source, DataLoader):
            return len(self._source.dataset)  # type: ignore[arg-type]
        return n_rows(self._source)

    def batches(self, size: int) -> Iterator[Batch]:
        """Consecutive batches (n_batch, …) of at most ``size`` samples.

        The batches of a loader are put together as long as their shapes agree: a loader may pad each to its own length.
        """
        if not isinstance(self._source, DataLoader):
            yield from split(self._source, size)
            return
        held: list[Batch] = []
        for batch in self._loaded(self._source):
            if held and not alike(held[0], batch):
                yield concatenated(held)
                held = []
            held.append(batch)
            if sum(map(n_rows, held)) >= size:
                *full, rest = split(concatenated(held), size)
                yield from full if n_rows(rest) < size else (*full, rest)
                held = [rest] if n_rows(rest) < size else []
        if held:
            yield concatenated(held)

    def padded_in_front(self) -> bool:
        """Whether a loader pads samples in front and not behind; False where it pads none.

        Cost: the samples up to the first padded one, each read once more by itself.
        """
        if isinstance(self._source, DataLoader):
            start = 0
            for batch in self._loaded(self._source):
                for row, padded in enumerate(split(batch, 1)):
                    alone = self._alone(self._source, start + row)
                    if not alike(alone, padded):
                        return _begins_later(alone, padded)
                start += n_rows(batch)
        return False

    def _loaded(self, loader: DataLoader[Any]) -> Iterator[Batch]:
        """The batches of a loader, without their labels."""
        start = 0
        expected = {index: self._alone(loader, index) for index in probe_indices(len(self))}
        with kept_generators(loader.dataset):
            for loaded, n_samples in counted_batches(loader, self.owner, PARAMETER):
                batch = self._inputs_of(loaded)
                check_rows(n_rows(batch), n_samples, self.owner, PARAMETER)
                for index in expected.keys() & range(start, start + n_samples):
                    row = index - start
                    self._compare(loader, index, expected[index], rows_of(batch, slice(row, row + 1)))
                yield batch
                start += n_samples

    def _inputs_of(self, loaded: Any) -> Batch:
        """A collated batch without its labels."""
        return self._checked(as_batch(inputs_like(loaded, self._like), self.owner, PARAMETER))

    def _alone(self, loader: DataLoader[Any], index: int) -> Batch:
        """One sample, read and collated by itself."""
        with kept_generators(loader.dataset):
            return self._inputs_of(loader.collate_fn([loader.dataset[index]]))

    def _compare(self, loader: DataLoader[Any], index: int, alone: Batch, row: Batch) -> None:
        """Refuse a loader whose row is another sample or depends on its batch; warn of random data."""
        if not alike(alone, row) or same_values(alone, row):  # a batch may be padded
            return
        if not same_values(alone, self._alone(loader, index)):
            warnings.warn(
                f"inputs of {self.owner} differ from one reading to the next, as with random augmentation: attributions"
                " and maps may belong to different readings; pass them as a tensor",
                RandomDataWarning,
                stacklevel=2,
            )
            return
        constraint = "a loader whose rows are its dataset's samples in order, whatever batch they come in"
        raise InvalidValueError(PARAMETER, self.owner, constraint, f"another row {index} than dataset[{index}]")

    def _checked(self, batch: Batch) -> Batch:
        """The batch, if it has a batch axis and the training inputs' structure."""
        if isinstance(batch, Tensor) and batch.ndim == 0:
            self._refuse_axes(batch)
        if self._like is None:
            return batch
        if structure(batch) == structure(self._like):
            batch = ordered_like(batch, self._like)
            for found, expected in zip(leaves(batch), leaves(self._like), strict=True):
                if found.ndim != expected.ndim:
                    self._refuse_axes(found, expected.ndim)
            return batch
        if not self._any_structure:
            constraint = f"of the training inputs' structure, {structure(self._like)}"
            if isinstance(self._like, Tensor) and all(isinstance(part, Tensor) for part in batch):
                constraint += "; torch.stack makes a batch of a list of samples"
            raise InvalidValueError(PARAMETER, self.owner, constraint, structure(batch))
        return batch

    def _refuse_axes(self, found: Tensor, expected: int = 1) -> None:
        """Say what a tensor with another number of axes lacks."""
        constraint = f"of {expected} axes, as a batch of the training inputs"
        if found.ndim == expected - 1:
            constraint = "a batch with the samples along its first axis; write inputs[None] for a single one"
        raise InvalidValueError(PARAMETER, self.owner, constraint, f"shape {tuple(found.shape)}")


def _begins_later(alone: Batch, padded: Batch) -> bool:
    """Whether a sample stands at the end of what it was padded to, and not at its beginning."""
    pairs = [
        (own, leaf)
        for own, leaf in zip(leaves(alone), leaves(padded), strict=True)
        if own.ndim == leaf.ndim > 1 and own.shape[1] < leaf.shape[1] and own.shape[2:] == leaf.shape[2:]
    ]
    at_the_front = all(same_values(own, leaf[:, : own.shape[1]]) for own, leaf in pairs)
    return not at_the_front and all(same_values(own, leaf[:, -own.shape[1] :]) for own, leaf in pairs)


Inputs: TypeAlias = "Batch | np.ndarray[Any, Any] | list[Any] | Mapping[str, Any] | DataLoader[Any] | TestInputs"
