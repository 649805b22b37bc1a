"""A direction in the parameters, and its inner product with gradients that pass one parameter at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview_plugin.gradients.sample_gradients import OuterProducts, sum_of


@dataclass(frozen=True)
class Direction:
    """A vector v in the parameters θ, parameter by parameter.

    Args:
        parts: name of a parameter → its part of v, as it is, in any shape, or as outer products of one sample.
    """

    parts: Mapping[str, Tensor | OuterProducts]

    def along(self, name: str, gradient: Tensor) -> Tensor:
        """The inner product, a scalar, of a gradient in one parameter with that part of v."""
        part = self.parts[name]
        if not isinstance(part, OuterProducts):
            return part.flatten() @ gradient.flatten()
        matrix, left, right = gradient.reshape(part.n_rows, -1), part.left[0], part.right[0]
        if part.one_hot:
            return (matrix[left] * right).sum()
        return ((matrix @ right.mT) * left.mT).sum()

    def scaled(self, factor: Tensor) -> Direction:
        """The direction times a scalar."""
        return Direction({name: _scaled(part, factor) for name, part in self.parts.items()})

    def plus(self, other: Direction) -> Direction:
        """The sum of two directions."""
        return Direction({name: _sum(part, other.parts[name]) for name, part in self.parts.items()})

    def vector(self) -> Tensor:
        """The direction as one vector (n_parameters,), parameters in their order."""
        return torch.cat([_whole(part).flatten() for part in self.parts.values()])


def summed(product: OuterProducts) -> Tensor | OuterProducts:
    """The sum over all samples: outer products of one sample, or the matrix where that is smaller."""
    left, right = product.left.flatten(0, 1)[None], product.right.flatten(0, 1)[None]
    return _smaller(OuterProducts(left, right, product.n_rows))


def _smaller(product: OuterProducts) -> Tensor | OuterProducts:
    """Outer products of one sample, or their matrix where that takes less memory."""
    n_elements = product.n_rows * product.right.shape[-1]
    return product if product.left.numel() + product.right.numel() < n_elements else _whole(product)


def _whole(part: Tensor | OuterProducts) -> Tensor:
    return part.weighted_sum(part.right.new_ones(1)) if isinstance(part, OuterProducts) else part


def _scaled(part: Tensor | OuterProducts, factor: Tensor) -> Tensor | OuterProducts:
    if isinstance(part, OuterProducts):
        return OuterProducts(part.left, part.right * factor, part.n_rows)
    return part * factor


def _sum(first: Tensor | OuterProducts, second: Tensor | OuterProducts) -> Tensor | OuterProducts:
    if isinstance(first, OuterProducts) and isinstance(second, OuterProducts):
        return _smaller(sum_of([first, second]))
    return _whole(first).flatten() + _whole(second).flatten()
