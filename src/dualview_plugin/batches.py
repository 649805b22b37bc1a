"""Batches of any structure: a tensor, or tuples and dictionaries of tensors, whose first axis is that of the samples.

``data`` makes them of what users have; all batches of one dataset, and of its test points, have their names in one
order. All other rooms take them as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

Batch: TypeAlias = "Tensor | tuple[Any, ...] | dict[str, Any]"


def leaves(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in a fixed order."""
    return [batch] if isinstance(batch, Tensor) else pytree.tree_leaves(batch)


def mapped(function: Callable[[Tensor], Any], batch: Batch) -> Any:
    """The batch with the function's value in place of each tensor."""
    return function(batch) if isinstance(batch, Tensor) else pytree.tree_map(function, batch)


def structure(batch: Any) -> str:
    """Where a batch has its tensors, in words: ``tensor``, ``(tensor, tensor)``, ``{input_ids: tensor}``."""
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{name}: {structure(batch[name])}" for name in sorted(batch)) + "}"
    if isinstance(batch, (tuple, list)):
        return "(" + ", ".join(map(structure, batch)) + ")"
    return "tensor"


def ordered_like(batch: Any, like: Any) -> Any:
    """The batch with the names of its dictionaries in the order of another batch of the same structure."""
    if isinstance(batch, dict):
        return {name: ordered_like(batch[name], like[name]) for name in like}
    if isinstance(batch, tuple):
        return tuple(map(ordered_like, batch, like))
    return batch


def n_rows(batch: Batch | NDArray[Any]) -> int:
    """The number of samples, also of an array."""
    return len(batch) if isinstance(batch, (Tensor, np.ndarray)) else len(leaves(batch)[0])


def rows_of(batch: Batch | NDArray[Any], rows: slice) -> Any:
    """Consecutive samples of a batch, or of an array, as they are."""
    return batch[rows] if isinstance(batch, (Tensor, np.ndarray)) else pytree.tree_map(lambda leaf: leaf[rows], batch)


def split(batch: Batch, size: int) -> Iterator[Any]:
    """Consecutive parts of at most ``size`` samples."""
    if isinstance(batch, Tensor):
        return iter(torch.split(batch, size))
    return (rows_of(batch, slice(start, start + size)) for start in range(0, n_rows(batch), size))


def samples(batch: Batch) -> Iterator[Any]:
    """Batches of one sample each."""
    return split(batch, 1)


def concatenated(batches: Sequence[Batch]) -> Any:
    """The samples of all batches, which have one structure and one shape of a sample."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat(list(batches))  # type: ignore[arg-type]
    return pytree.tree_map(lambda *parts: torch.cat(parts), first, *batches[1:])


def scaled(factor: float, values: Any) -> Any:
    """The factor times each tensor; None in the place of a tensor stays None."""
    if isinstance(values, Tensor):
        return factor * values
    return pytree.tree_map(lambda leaf: None if leaf is None else factor * leaf, values)


def plus(first: Any, second: Any) -> Any:
    """The sum, tensor by tensor; None in the place of a tensor stays None."""
    if isinstance(first, Tensor):
        return first + second
    return pytree.tree_map(lambda a, b: None if a is None else a + b, first, second)


def alike(first: Batch, second: Batch) -> bool:
    """Whether two batches have one structure, and samples of the same shapes and types."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape[1:] == second.shape[1:] and first.dtype == second.dtype
    return structure(first) == structure(second) and all(map(alike, leaves(first), leaves(second)))


def same_values(first: Batch, second: Batch) -> bool:
    """Whether two batches, or samples, have the same structure, shapes and values, NaN included."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if first.shape != second.shape:
            return False
        return bool((first == second).logical_or((first != first) & (second != second)).all())
    return structure(first) == structure(second) and all(map(same_values, leaves(first), leaves(second)))


def shapes(batch: Batch) -> str:
    """Shapes and types of the tensors, in words."""
    if isinstance(batch, Tensor):
        return f"shape {tuple(batch.shape)}, {batch.dtype}"
    if isinstance(batch, dict):
        return ", ".join(f"{name}: {shapes(part)}" for name, part in batch.items())
    return "; ".join(map(shapes, batch))
