"""From what users have to batches: arrays to tensors, mappings to dictionaries, lists to tuples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dualview_plugin.batches import Batch, leaves, shapes
from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.validation import refuse_masked


def as_tensor(inputs: object, owner: str, parameter: str) -> Tensor:
    """A tensor as it is; an array as a tensor of its type, copied only where torch needs it.

    Raises:
        InvalidTypeError: neither, or no dense numbers.
    """
    refuse_masked(inputs, parameter, owner)
    if isinstance(inputs, np.ndarray):
        try:
            return torch.from_numpy(as_torch_takes_it(inputs))
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(parameter, owner, "an array of numbers", f"dtype {inputs.dtype}") from error
    if not isinstance(inputs, Tensor):
        constraint = "a tensor, an array or a DataLoader, or tuples and dictionaries of tensors"
        if isinstance(inputs, Dataset):
            constraint += "; write DataLoader(dataset, batch_size=…) for a dataset"
        raise InvalidTypeError(parameter, owner, constraint, type(inputs).__name__)
    if inputs.layout is not torch.strided or inputs.is_quantized or inputs.is_meta:
        raise InvalidTypeError(parameter, owner, "a dense tensor with values", f"{inputs.layout}, {inputs.device}")
    return inputs


def as_torch_takes_it(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array in the machine's order of bytes, with positive strides, that may be written to; copied if needed."""
    return np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["C", "W"])


def as_batch(inputs: Any, owner: str, parameter: str) -> Batch:
    """A tensor, or tuples and dictionaries of tensors, nested, that have the same number of samples.

    Mappings, such as ``BatchEncoding``, and structured arrays become dictionaries in their own order; lists and
    tuples, also named ones, become tuples; values of None are left out of mappings.

    Raises:
        InvalidTypeError: something in it is no tensor or array, or a name is no string.
        InvalidValueError: nothing in it, a tensor without a batch axis, or other numbers of samples.
    """
    if isinstance(inputs, Tensor):
        return as_tensor(inputs, owner, parameter)
    batch = _converted(inputs, owner, parameter)
    if isinstance(batch, Tensor):
        return batch
    sizes = {len(leaf) if leaf.ndim else None for leaf in leaves(batch)}
    if len(sizes) != 1 or None in sizes:
        constraint = "a batch whose tensors all have the samples along their first axis"
        raise InvalidValueError(parameter, owner, constraint, shapes(batch) or "nothing")
    return batch


def _converted(value: Any, owner: str, parameter: str) -> Batch:
    """The value as a batch, its numbers of samples unchecked."""
    if isinstance(value, np.ndarray) and value.dtype.names is not None:
        value = {name: value[name] for name in value.dtype.names}
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InvalidTypeError(parameter, owner, "a dictionary with strings for names", repr(list(value)[:3]))
        return {name: _converted(part, owner, parameter) for name, part in value.items() if part is not None}
    if isinstance(value, (tuple, list)):
        return tuple(_converted(part, owner, parameter) for part in value)
    return as_tensor(value, owner, parameter)


def with_arguments(inputs: Any, arguments: Any) -> Any:
    """The inputs, a tensor or a tuple, and more of them behind, likewise: Captum's spelling of several inputs."""
    if arguments is None:
        return inputs
    first, more = (tuple(part) if isinstance(part, (tuple, list)) else (part,) for part in (inputs, arguments))
    return first + more
