"""The test inputs: converted once at the public door, then read in counted batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dualview_plugin.data.loaders import check_dataset, check_loader, check_rows, counted_batches, kept_generators
from dualview_plugin.data.samples import probe_indices, same_values
from dualview_plugin.errors import InvalidTypeError, InvalidValueError, RandomDataWarning

PARAMETER = "inputs"


class TestInputs:
    """Test points as consecutive batches, without labels; row t is the t-th test point, and rows are counted.

    Args:
        inputs: (n_test, …): a tensor, an array, a DataLoader that does not shuffle, or an object of this class.
        owner: the class that asks, for error messages.
        ndim: axes that a batch must have, the batch axis included; None: any number from 1.

    Raises:
        InvalidTypeError: no tensor, array or loader.
        InvalidValueError: no sample, no batch axis, or a loader that shuffles, samples, or leaves samples out.
    """

    __test__ = False  # for pytest, which takes the name for a test

    def __init__(self, inputs: Any, owner: str, ndim: int | None = None) -> None:
        self.owner, self.ndim = owner, ndim
        self._source: Tensor | DataLoader[Any]
        if isinstance(inputs, TestInputs):
            self._source = inputs._source
        elif isinstance(inputs, DataLoader):
            check_dataset(inputs.dataset, owner, PARAMETER)
            check_loader(inputs, owner, PARAMETER)
            self._source = inputs
        else:
            self._source = self._checked(as_tensor(inputs, owner))
        if len(self) == 0:
            raise InvalidValueError(PARAMETER, owner, "not empty, at least one sample", "none")

    def __len__(self) -> int:
        return len(self._source.dataset if isinstance(self._source, DataLoader) else self._source)  # type: ignore[arg-type]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Consecutive batches (n_batch, …) of at most ``size`` samples.

        The batches of a loader are put together as long as their shapes agree: a loader may pad each to its own length.
        """
        if isinstance(self._source, Tensor):
            yield from torch.split(self._source, size)
            return
        held: list[Tensor] = []
        for batch in self._loaded(self._source):
            if held and not _alike(held[0], batch):
                yield torch.cat(held)
                held = []
            held.append(batch)
            if sum(map(len, held)) >= size:
                *full, rest = torch.split(torch.cat(held), size)
                yield from full if len(rest) < size else (*full, rest)
                held = [rest] if len(rest) < size else []
        if held:
            yield torch.cat(held)

    def _loaded(self, loader: DataLoader[Any]) -> Iterator[Tensor]:
        """The batches of a loader, without their labels."""
        start = 0
        expected = {index: self._alone(loader, index) for index in probe_indices(len(self))}
        with kept_generators(loader.dataset):
            for batch, n_samples in counted_batches(loader, self.owner, PARAMETER):
                tensor = self._inputs_of(batch)
                check_rows(len(tensor), n_samples, self.owner, PARAMETER)
                for index in expected.keys() & range(start, start + len(tensor)):
                    self._compare(loader, index, expected[index], tensor[index - start])
                yield tensor
                start += len(tensor)

    def _inputs_of(self, batch: Any) -> Tensor:
        """A batch without its labels."""
        return self._checked(as_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch, self.owner))

    def _alone(self, loader: DataLoader[Any], index: int) -> Tensor:
        """One sample, read and collated by itself."""
        with kept_generators(loader.dataset):
            return self._inputs_of(loader.collate_fn([loader.dataset[index]]))[0]

    def _compare(self, loader: DataLoader[Any], index: int, alone: Tensor, row: Tensor) -> None:
        """Refuse a loader whose row is another sample or depends on its batch; warn of random data."""
        if alone.shape != row.shape or same_values(alone, row):  # a batch may be padded
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

    def _checked(self, batch: Tensor) -> Tensor:
        """The batch, if it has a batch axis."""
        if batch.ndim == 0 or (self.ndim is not None and batch.ndim == self.ndim - 1):
            constraint = "a batch with the samples along its first axis; write inputs[None] for a single one"
            raise InvalidValueError(PARAMETER, self.owner, constraint, f"shape {tuple(batch.shape)}")
        if self.ndim is not None and batch.ndim != self.ndim:
            constraint = f"of {self.ndim} axes, as a batch of the training inputs"
            raise InvalidValueError(PARAMETER, self.owner, constraint, f"shape {tuple(batch.shape)}")
        return batch


Inputs: TypeAlias = "Tensor | np.ndarray[Any, Any] | DataLoader[Any] | TestInputs"


def as_tensor(inputs: object, owner: str, parameter: str = PARAMETER) -> Tensor:
    """A tensor as it is; an array as a tensor of its type, copied only where torch needs it."""
    if isinstance(inputs, np.ndarray):
        try:
            return torch.from_numpy(np.require(inputs, requirements=["C", "W"]))
        except TypeError as error:
            raise InvalidTypeError(parameter, owner, "an array of numbers", f"dtype {inputs.dtype}") from error
    if not isinstance(inputs, Tensor):
        raise InvalidTypeError(parameter, owner, "a tensor, an array or a DataLoader", type(inputs).__name__)
    if inputs.layout is not torch.strided or inputs.is_quantized or inputs.is_meta:
        raise InvalidTypeError(parameter, owner, "a dense tensor with values", f"{inputs.layout}, {inputs.device}")
    return inputs


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two batches can be put together."""
    return first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
