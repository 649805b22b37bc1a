"""Quantus' call of an explanation function: the input map as an array, where somebody reads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dualview_plugin.errors import DualViewError, InvalidTypeError, InvalidValueError

INSTEAD = "for an input map (pass data_attribution(method), whose map is NaN, to score it by data attributions alone)"


def no_metric_reads_maps() -> bool:
    """Whether the caller's caller is ``quantus.evaluate`` with metrics that read no input map.

    ``evaluate`` calls every explanation function and looks at the values of its map before it calls the first metric.
    A map that is computed when it is read would thus be computed always, and the call does not say for which metrics
    it is. So the metrics are looked up where ``evaluate`` holds them. A metric that reads no map says so by
    ``reads_input_maps = False``; of any other the map is computed.
    """
    frame = inspect.currentframe()
    frame = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    if frame is None or frame.f_globals.get("__name__") != "quantus.evaluation":
        return False
    metrics = frame.f_locals.get("metrics")
    return isinstance(metrics, dict) and all(
        getattr(metric, "reads_input_maps", True) is False for metric in metrics.values()
    )


def unread_map(inputs: Any) -> NDArray[np.float32]:
    """A map of NaN, shaped like the inputs: what stands for a map that does not exist or that nobody reads."""
    return np.full(np.shape(inputs), np.nan, dtype=np.float32)


def network_of(model: Any) -> nn.Module | None:
    """The network, out of Quantus' wrapper if it is in one."""
    if model is None or isinstance(model, nn.Module) or not hasattr(model, "get_model"):
        network: nn.Module | None = model
        return network
    unwrapped: nn.Module = model.get_model()
    return unwrapped


def map_as_array(
    attribute: Callable[[Any, Tensor | None], Tensor], inputs: Any, targets: Any, owner: str, *, any_type: bool = False
) -> NDArray[Any]:
    """The input map as an array shaped like the inputs; bfloat16, which NumPy lacks, becomes float32.

    Args:
        attribute: takes inputs and classes and returns the map.
        inputs: (n_test, …), an array or a tensor.
        targets: explained classes, (n_test,).
        owner: the method, for error messages.
        any_type: integers have a map too, at a layer.

    Raises:
        InvalidTypeError: the inputs are integers, such as tokens.
        InvalidValueError: the network cannot be differentiated as the map needs it.
    """
    dtype = getattr(inputs, "dtype", None)
    floating = dtype.is_floating_point if isinstance(dtype, torch.dtype) else np.issubdtype(dtype, np.floating)
    if not (floating or any_type):
        raise InvalidTypeError("inputs", owner, f"floating {INSTEAD}", str(dtype))
    classes = None if targets is None else torch.as_tensor(np.asarray(targets), device="cpu").reshape(-1)
    try:
        relevance = attribute(inputs, classes).cpu()
    except (DualViewError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        constraint = f"differentiable in its inputs {INSTEAD}"
        raise InvalidValueError("model", owner, constraint, f"{type(error).__name__}: {error}") from error
    array: NDArray[Any] = (relevance.float() if relevance.dtype == torch.bfloat16 else relevance).numpy()
    return array
