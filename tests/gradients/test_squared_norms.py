"""Norms of outer products in float32, where the squares of their factors vanish, overflow, or are of mixed size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dualview_plugin.gradients import OuterProducts


def factors(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expected(product: OuterProducts) -> Tensor:
    left = torch.eye(product.n_rows)[product.left] if product.one_hot else product.left
    exact = OuterProducts(left.double(), product.right.double(), product.n_rows).matrices()
    return exact.square().sum((1, 2))


@pytest.mark.parametrize("right_size", [1e-30, 1e-25, 1e-12, 1.0, 1e12, 1e18])
@pytest.mark.parametrize("left_size", [1e-30, 1e-22, 1e-12, 1.0, 1e12, 1e18])
def test_every_size_of_the_factors(left_size: float, right_size: float) -> None:
    product = OuterProducts(left_size * factors(0, 6, 3, 4), right_size * factors(1, 6, 3, 5), 4)
    torch.testing.assert_close(product.squared_norms(), expected(product), rtol=1e-4, atol=0)


def test_samples_of_several_sizes_and_a_zero() -> None:
    sizes = torch.tensor([1e-30, 0.0, 1.0, 1e-20, 1e15])[:, None, None]
    product = OuterProducts(sizes * factors(0, 5, 3, 4), factors(1, 5, 3, 5), 4)
    torch.testing.assert_close(product.squared_norms(), expected(product), rtol=1e-4, atol=0)


def test_terms_of_opposite_sizes() -> None:
    """The largest of each factor is of ordinary size, and yet all products but one vanish in float32."""
    left, right = factors(0, 4, 2, 4), factors(1, 4, 2, 5)
    left[:, 0] *= 1e-22
    right[:, 1] *= 1e-22
    product = OuterProducts(left, right, 4)
    torch.testing.assert_close(product.squared_norms(), expected(product), rtol=1e-4, atol=0)


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
def test_row_numbers(size: float) -> None:
    rows = torch.tensor([[0, 1, 0], [2, 2, 2], [1, 0, 2]])
    product = OuterProducts(rows, size * factors(1, 3, 3, 5), 3)
    torch.testing.assert_close(product.squared_norms(), expected(product), rtol=1e-4, atol=0)


def test_no_terms_and_no_samples() -> None:
    like = torch.zeros(1)
    assert OuterProducts.zeros((3, 4, 5), like, one_hot=False).squared_norms().tolist() == [0.0, 0.0, 0.0]
    assert len(OuterProducts(like.new_zeros(0, 2, 4), like.new_zeros(0, 2, 5), 4).squared_norms()) == 0
