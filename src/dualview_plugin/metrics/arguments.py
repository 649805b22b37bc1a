"""Checks of what metrics and their functions are given, each with the name of what the user called."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.sources.arrays import to_array
from dualview_plugin.validation import check_integer


def check_attributions(attributions: NDArray[Any], owner: str) -> None:
    """Refuse what is no matrix of finite attributions, (n_test, n_train)."""
    if np.ndim(attributions) != 2:
        constraint = "a matrix (n_test, n_train)"
        raise InvalidValueError("attributions", owner, constraint, f"shape {np.shape(attributions)}")
    if not is_real(attributions):
        raise InvalidTypeError("attributions", owner, "real numbers", f"values of type {attributions.dtype}")
    if not np.isfinite(attributions).all():
        raise InvalidValueError("attributions", owner, "finite", "NaN or infinite values")


def is_real(values: NDArray[Any]) -> bool:
    """Whether an array holds real numbers, integers or booleans."""
    return any(np.issubdtype(values.dtype, kind) for kind in (np.floating, np.integer, np.bool_))


def check_k(k: int, n_train: int, owner: str) -> None:
    """Refuse a number of places that is no integer in 1 .. n_train."""
    if check_integer(k, "k", owner) > n_train:
        raise InvalidValueError("k", owner, f"at most the number of training points, {n_train}", k)


def check_class_labels(labels: ArrayLike, parameter: str, owner: str) -> NDArray[np.int64]:
    """The labels as an array of integers, (n,)."""
    values = to_array(labels)
    if not np.issubdtype(values.dtype, np.integer):
        raise InvalidTypeError(parameter, owner, "integers", f"values of type {values.dtype}")
    if values.ndim != 1 or len(values) == 0:
        raise InvalidValueError(parameter, owner, "one-dimensional and not empty", f"shape {values.shape}")
    return values.astype(np.int64)


def check_length(values: NDArray[Any], size: int, parameter: str, owner: str) -> None:
    """Refuse another number of values than of points."""
    if values.shape != (size,):
        raise InvalidValueError(parameter, owner, f"one for each of {size} points", f"shape {values.shape}")


def check_mask(mask: ArrayLike, n_train: int, parameter: str, owner: str) -> NDArray[np.bool_]:
    """The mask as an array, if it marks some of the training points."""
    values = to_array(mask)
    if values.dtype != np.bool_:
        raise InvalidTypeError(parameter, owner, "a bool mask", f"values of type {values.dtype}")
    check_length(values, n_train, parameter, owner)
    if not values.any():
        raise InvalidValueError(parameter, owner, "some of the training points", "none")
    result: NDArray[np.bool_] = values
    return result
