"""Which source a metric's arguments name: the matrix, the object behind the explanation function, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captum.influence import DataInfluence, SimilarityInfluence
from torch import nn

from dualview_plugin.attribution import DataAttribution
from dualview_plugin.errors import InvalidValueError
from dualview_plugin.metrics.attribution_source import (
    Array,
    AttributionSource,
    FunctionSource,
    MatrixSource,
    MethodSource,
    to_matrix,
)
from dualview_plugin.metrics.data_attribution import MarkedAttribution
from dualview_plugin.metrics.influence_source import InfluenceSource, SimilaritySource


def choose_source(
    inputs: Array,
    a_batch: Any,
    explain_func: Any,
    model: nn.Module | None,
    arguments: Mapping[str, Any],
    batch_size: int,
) -> AttributionSource | None:
    """The source of the attributions; None if there are none, as for a saliency method.

    A two-dimensional ``a_batch`` is the matrix, unless it has the very shape of the inputs and so may be a map of them:
    then an explanation function, if there is one, decides.

    Raises:
        InvalidValueError: ``a_batch`` has another number of rows than ``inputs``.
    """
    attributions = None if a_batch is None else to_matrix(a_batch)
    if attributions is not None and attributions.shape[0] != len(inputs):
        constraint = f"attributions of the {len(inputs)} points of x_batch"
        raise InvalidValueError("a_batch", "a data attribution metric", constraint, f"{attributions.shape[0]} rows")
    is_matrix = attributions is not None and attributions.ndim == 2
    if attributions is not None and is_matrix and (explain_func is None or attributions.shape != inputs.shape):
        return MatrixSource(attributions, batch_size)
    return _source_behind(explain_func, model, arguments, batch_size)


def _source_behind(
    explain_func: Any, model: nn.Module | None, arguments: Mapping[str, Any], batch_size: int
) -> AttributionSource | None:
    """The source behind an explanation function, if it gives data attributions."""
    marked = isinstance(explain_func, MarkedAttribution)
    origin = explain_func.source if marked else explain_func
    if isinstance(origin, DataAttribution):
        return MethodSource(origin, batch_size)
    if isinstance(origin, SimilarityInfluence):
        return SimilaritySource(origin, batch_size)
    if isinstance(origin, DataInfluence):
        return InfluenceSource(origin, batch_size)
    return FunctionSource(origin, model, arguments, batch_size) if marked else None
