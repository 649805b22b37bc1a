"""From tensors to arrays, for the scores, and from arrays to tensors, for the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from torch import Tensor, nn

from dualview_plugin.errors import InvalidTypeError
from dualview_plugin.network import evaluating

Array = NDArray[Any]


def to_array(values: Any) -> Array:
    """A tensor or an array-like as an array; the 16-bit types become float32, because NumPy has no bfloat16."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    tensor = values.detach().cpu()
    is_short = tensor.is_floating_point() and tensor.element_size() < 4
    array: Array = (tensor.float() if is_short else tensor).resolve_conj().resolve_neg().numpy()
    return array


def to_matrix(values: Any) -> Any:
    """An array, or for a sparse tensor or matrix its rows in compressed form."""
    if isinstance(values, Tensor) and values.layout is not torch.strided:
        rows = values.detach().cpu().to_sparse_csr()
        parts: Any = tuple(map(to_array, (rows.values(), rows.col_indices(), rows.crow_indices())))
        return csr_array(parts, shape=(rows.shape[0], rows.shape[1]))
    is_sparse: bool = issparse(values)  # not in the condition: it would narrow the type to one without methods
    return values.tocsr() if is_sparse else to_array(values)


def row_slices(n_rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` rows."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


def network_inputs(model: nn.Module, inputs: Array | Tensor, owner: str) -> Tensor:
    """The inputs as a tensor; floating ones in the floating type of the network's parameters.

    Raises:
        InvalidTypeError: the inputs are no numbers.
    """
    try:
        tensor = inputs if isinstance(inputs, Tensor) else torch.from_numpy(np.ascontiguousarray(inputs))
    except TypeError as error:
        constraint = "an array of numbers"
        raise InvalidTypeError("x_batch", owner, constraint, f"values of type {inputs.dtype}") from error
    if not tensor.is_floating_point():
        return tensor
    floating = next((part.dtype for part in model.parameters() if part.is_floating_point()), torch.float32)
    return tensor.to(floating)


def on_device_of(model: nn.Module, inputs: Array | Tensor, owner: str) -> Tensor:
    """:func:`network_inputs` where the network is."""
    tensor = network_inputs(model, inputs, owner)
    return tensor.to(next(model.parameters(), tensor).device)


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Array | Tensor, owner: str) -> Tensor:
    """The network's outputs in eval mode, (n_batch, n_classes), where the network is."""
    with evaluating(model):
        logits: Tensor = model(on_device_of(model, inputs, owner))
    return logits


def decisions(model: nn.Module, inputs: Array | Tensor, owner: str) -> Tensor:
    """The network's decisions in eval mode, (n_batch,), where the network is."""
    return logits_of(model, inputs, owner).argmax(dim=1)
