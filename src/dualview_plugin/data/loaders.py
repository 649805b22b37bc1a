"""Data loaders that are taken: those whose rows are the dataset's, all of them, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.network import dataset_generators

_ADVICE = "pass the dataset itself, or DataLoader(dataset, batch_size=…, collate_fn=…)"


def check_dataset(dataset: Any, owner: str, parameter: str) -> None:
    """Refuse what has no length and no items by position, and what is empty."""
    map_style = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if isinstance(dataset, (IterableDataset, str)) or not map_style:
        constraint = "a map-style Dataset or a DataLoader over one; of a stream, CountedStream(dataset, n_samples)"
        raise InvalidTypeError(parameter, owner, constraint, type(dataset).__name__)
    if isinstance(dataset, Mapping) and 0 not in dataset:
        constraint = "a dataset of samples: one of the values, or TensorDataset(inputs, labels) of two"
        raise InvalidTypeError(parameter, owner, constraint, f"a {type(dataset).__name__} of {list(dataset)[:3]}")
    if len(dataset) == 0:
        raise InvalidValueError(parameter, owner, "not empty, at least one sample", "0 samples")


def refuse_columns(dataset: Any, owner: str, parameter: str) -> None:
    """Refuse arrays of inputs and labels that stand side by side in a tuple."""
    if isinstance(dataset, (tuple, list)) and all(isinstance(part, (Tensor, np.ndarray)) for part in dataset):
        constraint = "a dataset of samples (input, label), such as TensorDataset(inputs, labels)"
        raise InvalidTypeError(parameter, owner, constraint, f"a {type(dataset).__name__} of {len(dataset)} arrays")


def check_loader(loader: DataLoader[Any], owner: str, parameter: str) -> None:
    """Refuse a loader whose batches do not run through its dataset in order and to the end."""
    n_samples = len(loader.dataset)  # type: ignore[arg-type]
    if loader.batch_sampler is None:
        constraint = f"a dataset of single samples, batched by the loader; {_ADVICE}"
        raise InvalidValueError(parameter, owner, constraint, "a DataLoader with batch_size=None")
    sampler: Any = getattr(loader.batch_sampler, "sampler", None)
    in_order = type(sampler) is SequentialSampler or (isinstance(sampler, range) and sampler == range(len(sampler)))
    if type(loader.batch_sampler) is not BatchSampler or not in_order:
        foreign = loader.batch_sampler if type(loader.batch_sampler) is not BatchSampler else sampler
        constraint = f"in a fixed order, the dataset's: without shuffle and samplers; {_ADVICE}"
        raise InvalidValueError(parameter, owner, constraint, f"a DataLoader with a {type(foreign).__name__}")
    if len(sampler) != n_samples:
        constraint = f"complete: a loader over all {n_samples} samples; for a part pass torch.utils.data.Subset"
        raise InvalidValueError(parameter, owner, constraint, f"a sampler of {len(sampler)}")
    if loader.batch_sampler.drop_last and n_samples % loader.batch_sampler.batch_size:
        raise InvalidValueError(parameter, owner, f"complete; {_ADVICE}", "a DataLoader with drop_last=True")


def n_samples_in_order(loader: DataLoader[Any], owner: str, parameter: str) -> int:
    """The number of samples behind a loader that runs through all of them in their own order; refuses any other."""
    check_dataset(loader.dataset, owner, parameter)
    check_loader(loader, owner, parameter)
    return len(loader.dataset)  # type: ignore[arg-type]


def batch_sizes(loader: DataLoader[Any]) -> Iterator[int]:
    """The number of samples that each batch of a taken loader must have."""
    n_samples = len(loader.dataset)  # type: ignore[arg-type]
    size: int = loader.batch_sampler.batch_size  # type: ignore[union-attr]
    for start in range(0, n_samples, size):
        yield min(size, n_samples - start)


@contextmanager
def kept_generator(loader: DataLoader[Any]) -> Iterator[None]:
    """The loader's own generator, from which each iterator draws a seed, is afterwards as before."""
    if loader.generator is None:
        yield
        return
    state = loader.generator.get_state()
    try:
        yield
    finally:
        loader.generator.set_state(state)


@contextmanager
def kept_generators(dataset: Any) -> Iterator[None]:
    """The random generators that a dataset, its transforms or wrapped datasets hold are afterwards as before."""
    undo = list(dataset_generators(dataset))
    try:
        yield
    finally:
        for call in undo:
            call()


def counted_batches(loader: DataLoader[Any], owner: str, parameter: str) -> Iterator[tuple[Any, int]]:
    """The batches of a taken loader, each with the number of samples that it must have.

    Raises:
        InvalidValueError: more or fewer batches than the dataset has samples for.
    """
    with kept_generator(loader):
        batches = iterated(loader)
        for size in batch_sizes(loader):
            batch = next(batches, None)
            if batch is None:
                raise InvalidValueError(parameter, owner, "a loader that yields every sample", "fewer batches")
            yield batch, size
        if next(batches, None) is not None:
            raise InvalidValueError(parameter, owner, "a loader that yields every sample once", "more batches")


def iterated(loader: DataLoader[Any]) -> Iterator[Any]:
    """The iterator of a loader, whose seed is drawn on the CPU, where the loader's generator is."""
    if torch.get_default_device().type == "cpu":
        return iter(loader)
    with torch.device("cpu"):
        return iter(loader)


def check_rows(n_rows: int, expected: int, owner: str, parameter: str) -> None:
    """Refuse a batch of another number of rows than samples went into it."""
    if n_rows != expected:
        constraint = "a dataset whose collate function keeps every sample, one row each; leave samples out by a Subset"
        raise InvalidValueError(parameter, owner, constraint, f"{n_rows} rows for {expected} samples")


def loader_of_batches(loader: DataLoader[Any], batches: Iterable[list[int]]) -> DataLoader[Any]:
    """A loader like another one, of the batches of positions that are asked for, which are drawn as they are needed."""
    workers: dict[str, Any] = {}
    if loader.num_workers:
        workers = {
            "num_workers": loader.num_workers,
            "prefetch_factor": loader.prefetch_factor,
            "worker_init_fn": loader.worker_init_fn,
            "multiprocessing_context": loader.multiprocessing_context,
            "timeout": loader.timeout,
        }
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        generator=torch.Generator(),
        **workers,
    )


def sequential_loader(
    dataset: Any, batch_size: int, collate: Callable[[list[Any]], Any] | None = None
) -> DataLoader[Any]:
    """A loader of ours over a dataset, which draws nothing from the global random state."""
    return DataLoader(dataset, batch_size=batch_size, shuffle=False, collate_fn=collate, generator=torch.Generator())
