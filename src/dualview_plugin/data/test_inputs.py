"""The test inputs: converted once at the public door, then read in counted batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dualview_plugin.data.loaders import check_dataset, check_loader, check_rows, counted_batches
from dualview_plugin.errors import InvalidTypeError, InvalidValueError

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
        for batch, n_samples in counted_batches(loader, self.owner, PARAMETER):
            tensor = self._checked(as_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch, self.owner))
            check_rows(len(tensor), n_samples, self.owner, PARAMETER)
            yield tensor

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
    return inputs


def _alike(first: Tensor, second: Tensor) -> bool:
    """Whether two batches can be put together."""
    return first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
