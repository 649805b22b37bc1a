"""Sums over training points that one process computes, or several together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class Total(Protocol):
    """Sums over all training points of what the methods of one object give for a range of them."""

    def __call__(self, name: str, *inputs: Tensor) -> Tensor:
        """The sum of ``method(rows, *inputs)`` over the ranges of training points, for the method of this name."""


@dataclass(frozen=True)
class Alone:
    """The sums of one process: all training points are one range.

    Args:
        summands: has methods that take a range of training points, and tensors, and give a tensor.
        n_train: training points.
    """

    summands: Any
    n_train: int

    def __call__(self, name: str, *inputs: Tensor) -> Tensor:
        """The sum; see :class:`Total`."""
        total: Tensor = getattr(self.summands, name)(range(self.n_train), *inputs)
        return total
