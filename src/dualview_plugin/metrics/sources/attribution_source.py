"""Where a metric gets the rows of the attribution matrix from: an array, one of our methods, or a marked function."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse
from torch import Tensor, nn

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.data import as_input_tensor
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.data_attribution import AttributionFunction
from dualview_plugin.network import evaluating

Array = NDArray[Any]


class AttributionSource(ABC):
    """Rows of the attribution matrix, a block at a time.

    Args:
        model: the network, for its decisions; None where no source of this kind asks for them.
        batch_size: test points in a block.
    """

    def __init__(self, model: nn.Module | None, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size

    def blocks(self, inputs: Array, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train).

        Args:
            inputs: test inputs, (n_test, …).
            target: explained classes, (n_test,); None: the network's decisions.
        """
        for start in range(0, len(inputs), self._batch_size):
            rows = slice(start, start + self._batch_size)
            yield to_array(self._block(rows, inputs[rows], None if target is None else target[rows]))

    @property
    def n_train(self) -> int | None:
        """Number of training points, if it is known before the first block."""
        return None

    def train_labels(self) -> Array | None:
        """Labels of the training points, (n_train,), if the source knows them; asked for after the first block."""
        return None

    def self_influence(self) -> Array | None:
        """The attribution of each training point to itself, (n_train,); None if the source has none."""
        return None

    @abstractmethod
    def _block(self, rows: slice, inputs: Array, target: Array | None) -> Array | Tensor:
        """The rows of these test points."""


class MatrixSource(AttributionSource):
    """A matrix that was computed before; what it explains was decided then. A sparse one is made dense by blocks."""

    def __init__(self, attributions: Any, batch_size: int) -> None:
        super().__init__(None, batch_size)
        self._attributions = attributions

    @property
    def n_train(self) -> int:
        """The number of columns."""
        return int(self._attributions.shape[1])

    def _block(self, rows: slice, _inputs: Array, _target: Array | None) -> Array:
        block: Any = self._attributions[rows]
        dense: Array = block if isinstance(block, np.ndarray) else block.toarray()
        return dense


class MethodSource(AttributionSource):
    """One of this package's methods, in blocks of its own size."""

    def __init__(self, method: DataAttribution, batch_size: int) -> None:
        super().__init__(method.model, batch_size)
        self._method = method

    def blocks(self, inputs: Array, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train), as large as the method likes them."""
        return map(to_array, self._method.attribute_blocks(inputs, target))

    @property
    def n_train(self) -> int:
        """The number of points in the method's training data."""
        return self._method.n_train_

    def train_labels(self) -> Array:
        """The labels that the method was fitted with, (n_train,)."""
        return to_array(self._method.train_labels_)

    def self_influence(self) -> Array:
        """The method's own, (n_train,)."""
        return to_array(self._method.self_influence())

    def _block(self, _rows: slice, inputs: Array, target: Array | None) -> Tensor:
        return self._method.attribute(inputs, target)


class FunctionSource(AttributionSource):
    """A function marked with ``data_attribution``, called on batches."""

    def __init__(
        self, function: AttributionFunction, model: Any, arguments: Mapping[str, Any], batch_size: int
    ) -> None:
        super().__init__(model, batch_size)
        self._function, self._arguments = function, _accepted(function, arguments)

    def _block(self, _rows: slice, inputs: Array, target: Array | None) -> Array | Tensor:
        if target is None:
            if self._model is None:
                constraint = "given for its decisions to be explained"
                raise InvalidValueError("model", "a data attribution metric", constraint, None)
            target = decisions(self._model, inputs).cpu().numpy()
        block: Array | Tensor = self._function(model=self._model, inputs=inputs, targets=target, **self._arguments)
        return block


def _accepted(function: AttributionFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the function names, or all of them if it takes any: ``evaluate`` passes other methods' too."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


@torch.no_grad()
def decisions(model: nn.Module, inputs: Array | Tensor) -> Tensor:
    """The network's decisions in eval mode, (n_batch,), where the network is."""
    with evaluating(model):
        logits: Tensor = model(on_device_of(model, inputs))
    return logits.argmax(dim=1)


def on_device_of(model: nn.Module, inputs: Array | Tensor) -> Tensor:
    """The inputs as a tensor where the network is."""
    tensor = as_input_tensor(inputs, "a data attribution metric")
    return tensor.to(next(model.parameters(), tensor).device)


def to_matrix(values: Any) -> Any:
    """An array, or for a sparse tensor or matrix its rows in compressed form."""
    if isinstance(values, Tensor) and values.layout is not torch.strided:
        rows = values.detach().cpu().to_sparse_csr()
        parts: Any = (rows.values().numpy(), rows.col_indices().numpy(), rows.crow_indices().numpy())
        return csr_array(parts, shape=(rows.shape[0], rows.shape[1]))
    is_sparse: bool = issparse(values)  # not in the condition: it would narrow the type to one without methods
    return values.tocsr() if is_sparse else to_array(values)


def to_array(values: Any) -> Array:
    """A tensor or an array-like as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
