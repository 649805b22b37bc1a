"""A subset of the training points: validated at construction and again when n_train is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualview_plugin.errors import InvalidTypeError, InvalidValueError
from dualview_plugin.metrics.sources.arrays import to_array


class TrainSubset:
    """Some, but not all, of the training points.

    Args:
        members: a bool mask (n_train,), or distinct indices from 0.
        parameter: what the caller calls it, for error messages.
        owner: the caller.

    Raises:
        InvalidTypeError: neither bools nor integers.
        InvalidValueError: not one-dimensional, empty, every point, repeated or negative indices.
    """

    def __init__(self, members: ArrayLike, parameter: str, owner: str) -> None:
        values = to_array(members)
        self._parameter, self._owner = parameter, owner
        if values.size and values.dtype != np.bool_ and not np.issubdtype(values.dtype, np.integer):
            raise InvalidTypeError(parameter, owner, "a bool mask or integer indices", f"values of type {values.dtype}")
        if values.ndim != 1:
            raise self._error("one-dimensional", f"shape {values.shape}")
        self._n_train = len(values) if values.dtype == np.bool_ else None
        self.indices = np.flatnonzero(values) if values.dtype == np.bool_ else np.sort(values)
        if len(self.indices) == 0 or len(self.indices) == self._n_train:
            raise self._error("some of the training points", "none" if len(self.indices) == 0 else "all of them")
        if len(np.unique(self.indices)) != len(self.indices) or self.indices[0] < 0:
            raise self._error("a bool mask, or distinct indices from 0", values)

    def mask(self, n_train: int) -> NDArray[np.bool_]:
        """The subset as a bool mask, (n_train,).

        Raises:
            InvalidValueError: a mask of another length, an index that is no training point, or every point.
        """
        if self._n_train is not None and self._n_train != n_train:
            raise self._error(f"a mask of {n_train} training points", f"one of {self._n_train}")
        if self.indices[-1] >= n_train:
            raise self._error(f"indices below the number of training points, {n_train}", self.indices[-1])
        if len(self.indices) == n_train:
            raise self._error("some of the training points", "all of them")
        mask = np.zeros(n_train, dtype=np.bool_)
        mask[self.indices] = True
        return mask

    def __repr__(self) -> str:
        return f"TrainSubset({len(self.indices)} points)"

    def _error(self, constraint: str, value: object) -> InvalidValueError:
        return InvalidValueError(self._parameter, self._owner, constraint, value)
