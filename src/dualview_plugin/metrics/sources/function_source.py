"""Rows of the attribution matrix from a function that the user marked."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from dualview_plugin.batches import n_rows, rows_of
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.sources.arrays import Array, TestArrays, decisions, row_slices, to_array
from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.metrics.sources.data_attribution import AttributionFunction


class FunctionSource(AttributionSource):
    """A function marked with ``data_attribution``, called on batches.

    Args:
        function: gets ``model``, ``inputs`` and ``targets`` and those of the arguments that it names.
        model: the network, for the function and for the decisions.
        arguments: of Quantus' call.
        batch_size: test points in a block.
        owner: the metric, for error messages.
    """

    def __init__(
        self, function: AttributionFunction, model: Any, arguments: Mapping[str, Any], batch_size: int, owner: str
    ) -> None:
        self._function, self._model, self._arguments = function, model, _accepted(function, arguments)
        self._batch_size, self._owner = batch_size, owner

    @property
    def network(self) -> nn.Module | None:
        """The network that the metric was called with, if it is a module."""
        return self._model if isinstance(self._model, nn.Module) else None

    def for_network(self, model: nn.Module) -> FunctionSource:
        """The function, called with another network."""
        return FunctionSource(self._function, model, self._arguments, self._batch_size, self._owner)

    def blocks(self, inputs: TestArrays, target: Array | None) -> Iterator[Array]:
        """Consecutive blocks of rows, (n_block, n_train); of a function that returns all rows each time, its part.

        Raises:
            InvalidValueError: it returns another number of rows.
        """
        n_test = n_rows(inputs)
        for rows in row_slices(n_test, self._batch_size):
            classes = self._decisions(rows_of(inputs, rows)) if target is None else target[rows]
            values = self._function(model=self._model, inputs=rows_of(inputs, rows), targets=classes, **self._arguments)
            block, n_block = to_array(values), rows.stop - rows.start
            if block.ndim == 2 and len(block) not in (n_block, n_test):
                constraint = f"a function that returns one row for each of its {n_block} inputs"
                raise InvalidValueError("explain_func", self._owner, constraint, f"shape {block.shape}")
            yield block[rows] if block.ndim == 2 and len(block) != n_block else block

    def _decisions(self, inputs: Array) -> Array:
        """The network's decisions, (n_block,)."""
        if self._model is None:
            constraint = "given for explained_class='decision'"
            raise InvalidValueError("model", self._owner, constraint, None)
        return to_array(decisions(self._model, inputs, self._owner))


def _accepted(function: AttributionFunction, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the function names, or all of them if it takes any: ``evaluate`` passes other methods' too."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}
