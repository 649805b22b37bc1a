"""Which source a metric's arguments name: the matrix, the object behind the explanation function, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captum.influence import DataInfluence, SimilarityInfluence

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.batches import n_rows
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.sources.arrays import TestArrays, to_matrix
from dualview_plugin.metrics.sources.attribution_source import AttributionSource
from dualview_plugin.metrics.sources.data_attribution import AttributionCallable
from dualview_plugin.metrics.sources.function_source import FunctionSource
from dualview_plugin.metrics.sources.influence_source import InfluenceSource
from dualview_plugin.metrics.sources.matrix_source import MatrixSource
from dualview_plugin.metrics.sources.method_source import MethodSource
from dualview_plugin.metrics.sources.similarity_source import SimilaritySource


def source_of(
    inputs: TestArrays,
    a_batch: Any,
    explain_func: Any,
    model: Any,
    arguments: Mapping[str, Any],
    batch_size: int,
    owner: str,
) -> AttributionSource | None:
    """The source of the attributions; None if there are none, as for a saliency method.

    A two-dimensional ``a_batch`` is the matrix, unless it has the very shape of the inputs and so may be a map of them:
    then an explanation function, if there is one, decides.

    Raises:
        InvalidValueError: ``a_batch`` has another number of rows than ``inputs``.
    """
    attributions = None if a_batch is None else to_matrix(a_batch)
    if attributions is not None and _is_matrix(attributions, inputs, explain_func, owner):
        return MatrixSource(attributions, batch_size)
    return _source_behind(explain_func, model, arguments, batch_size, owner)


def _is_matrix(attributions: Any, inputs: TestArrays, explain_func: Any, owner: str) -> bool:
    """Whether these are attributions to training points."""
    n_test = n_rows(inputs)
    if attributions.ndim == 0 or attributions.shape[0] != n_test:
        constraint = f"attributions of the {n_test} points of x_batch"
        raise InvalidValueError("a_batch", owner, constraint, f"shape {attributions.shape}")
    return attributions.ndim == 2 and (explain_func is None or attributions.shape != getattr(inputs, "shape", None))


def _source_behind(
    explain_func: Any, model: Any, arguments: Mapping[str, Any], batch_size: int, owner: str
) -> AttributionSource | None:
    """The source behind an explanation function, if it gives data attributions."""
    marked = isinstance(explain_func, AttributionCallable)
    origin = explain_func.source if marked else explain_func
    if isinstance(origin, DataAttribution):
        return MethodSource(origin, model)
    if isinstance(origin, SimilarityInfluence):
        return SimilaritySource(origin, model, batch_size, owner)
    if isinstance(origin, DataInfluence):
        return InfluenceSource(origin, model, batch_size, owner)
    return FunctionSource(origin, model, arguments, batch_size, owner) if marked else None
