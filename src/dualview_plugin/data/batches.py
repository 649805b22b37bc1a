"""Data in, batches out: datasets, data loaders, tensors and arrays, always in their own order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network import preserved_random_state

Inputs: TypeAlias = "Tensor | np.ndarray[Any, Any] | DataLoader[Any]"
TrainData: TypeAlias = "Dataset[Any] | DataLoader[Any]"


def ordered_loader(data: TrainData, batch_size: int, owner: str, parameter: str = "train_dataset") -> DataLoader[Any]:
    """A loader over labelled data whose batch order is the dataset's own order.

    Args:
        data: a map-style dataset of ``(input, label)`` pairs, or a loader over one that does not shuffle.
        batch_size: size of the batches where ``data`` is a dataset; a loader keeps its own.
        owner: the class that asks, for the error message.
        parameter: the parameter that holds ``data``, for the error message.

    Raises:
        InvalidTypeError: ``data`` is neither, or iterable-style.
        InvalidValueError: ``data`` is empty, or a loader that shuffles, samples or drops its last batch.
    """
    dataset: Any = data.dataset if isinstance(data, DataLoader) else data
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        constraint = "a map-style Dataset or a DataLoader over one"
        raise InvalidTypeError(parameter, owner, constraint, type(dataset).__name__)
    if len(dataset) == 0:
        raise InvalidValueError(parameter, owner, "not empty", "0 samples")
    if not isinstance(data, DataLoader):
        # Its own generator: a loader without one draws a seed from the user's global random state.
        return DataLoader(dataset, batch_size=batch_size, shuffle=False, generator=torch.Generator())
    _check_ordered(data, owner, parameter)
    return data


def _check_ordered(loader: DataLoader[Any], owner: str, parameter: str) -> None:
    """Refuse a loader whose batches do not run through the dataset in order and to the end."""
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if not isinstance(sampler, SequentialSampler):
        constraint = "in a fixed order: a DataLoader with shuffle=False and no sampler of its own"
        raise InvalidValueError(parameter, owner, constraint, f"a DataLoader with a {type(sampler).__name__}")
    if loader.drop_last and len(loader.dataset) % (loader.batch_size or 1):  # type: ignore[arg-type]
        raise InvalidValueError(parameter, owner, "complete", "a DataLoader with drop_last=True")


def labelled_batches(
    batches: Iterable[Any], owner: str, parameter: str = "train_dataset"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of inputs and int64 labels from the batches of a loader.

    Raises:
        InvalidTypeError: a batch is not an ``(inputs, labels)`` pair of tensors.
        InvalidValueError: the labels are not one integer for each sample.
    """
    for batch in batches:
        if not (
            isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
        ):
            constraint = "a dataset of (input, label) pairs"
            raise InvalidTypeError(parameter, owner, constraint, _describe(batch))
        inputs, labels = batch
        if labels.shape != (len(inputs),) or labels.is_floating_point() or labels.is_complex():
            constraint = "a dataset with one integer label for each sample"
            raise InvalidValueError(
                parameter, owner, constraint, f"labels {labels.dtype} of shape {tuple(labels.shape)}"
            )
        yield inputs, labels.to(torch.int64)


def _describe(batch: object) -> str:
    """A batch's type, in a few words."""
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of " + ", ".join(type(part).__name__ for part in batch)
    return type(batch).__name__


def input_batches(inputs: Inputs, batch_size: int, owner: str) -> Iterator[Tensor]:
    """Consecutive batches of the test inputs, all of ``batch_size`` samples but the last, without labels.

    Raises:
        InvalidTypeError: ``inputs`` is no tensor, array or loader.
        InvalidValueError: ``inputs`` has no batch dimension, or is a loader that shuffles.
    """
    if not isinstance(inputs, DataLoader):
        tensor = as_input_tensor(inputs, owner)
        for start in range(0, len(tensor), batch_size):
            yield tensor[start : start + batch_size]
        return
    _check_ordered(inputs, owner, "inputs")
    waiting: list[Tensor] = []
    for batch in _quietly(inputs):
        waiting.append(as_input_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch, owner))
        if sum(map(len, waiting)) >= batch_size:
            *full, rest = torch.cat(waiting).split_with_sizes(_sizes(sum(map(len, waiting)), batch_size))
            yield from full
            waiting = [rest] if len(rest) else []
    if waiting:
        yield torch.cat(waiting)


def _sizes(n_samples: int, batch_size: int) -> list[int]:
    """As many whole batches as there are, and the size of what is left."""
    n_full, rest = divmod(n_samples, batch_size)
    return [batch_size] * n_full + [rest]


def _quietly(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, leaving the global random state alone between and after them."""
    with preserved_random_state():
        iterator = iter(loader)
    while True:
        with preserved_random_state():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def n_samples(inputs: Inputs, owner: str) -> int:
    """The number of test inputs, without reading them."""
    if isinstance(inputs, DataLoader):
        return len(inputs.dataset)  # type: ignore[arg-type]
    return len(as_input_tensor(inputs, owner))


def as_input_tensor(inputs: object, owner: str) -> Tensor:
    """One batch of inputs as a tensor with a batch dimension; arrays in float64, NumPy's default, become float32."""
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(np.ascontiguousarray(inputs))
        if inputs.dtype == torch.float64:
            inputs = inputs.float()
    if not isinstance(inputs, Tensor):
        raise InvalidTypeError("inputs", owner, "a tensor, an array or a DataLoader", type(inputs).__name__)
    if inputs.ndim == 0:
        raise InvalidValueError("inputs", owner, "a batch with the samples along its first axis", "a scalar")
    return inputs
