"""From tensors to arrays, for the scores, and from arrays to tensors, for the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from torch import Tensor, nn

from dualview_plugin.batches import Batch, mapped
from dualview_plugin.data import as_batch
from dualview_plugin.network import Caller, Placement, guest
from dualview_plugin.validation import refuse_masked

Array = NDArray[Any]
TestArrays: TypeAlias = "Array | Batch"


def to_array(values: Any) -> Array:
    """A tensor or an array-like as an array; the 16-bit types become float32, because NumPy has no bfloat16.

    Raises:
        InvalidTypeError: an array with a mask.
    """
    refuse_masked(values, "an array", "a metric")
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


def on_device_of(model: nn.Module, inputs: TestArrays, owner: str) -> Batch:
    """The inputs as a batch where the network is, floating ones in its type.

    Raises:
        InvalidTypeError: the inputs are no numbers.
    """
    return Placement.of(model)(as_batch(inputs, owner, "x_batch"))


@torch.no_grad()
def logits_of(model: nn.Module, inputs: TestArrays, owner: str) -> Tensor:
    """The network's logits in eval mode, (n_batch, n_classes), where the network is."""
    with guest(model):
        batch = mapped(torch.clone, on_device_of(model, inputs, owner))  # the network may write to its input
        return Caller(model, owner)(batch)


def decisions(model: nn.Module, inputs: TestArrays, owner: str) -> Tensor:
    """The network's decisions in eval mode, (n_batch,), where the network is."""
    return logits_of(model, inputs, owner).argmax(dim=1)
