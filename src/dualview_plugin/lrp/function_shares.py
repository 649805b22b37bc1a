"""Rules of LRP for functions: autograd functions whose backward pass carries relevance in place of the gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from zennit.core import stabilize

Compute = Callable[..., Tensor]


def share(compute: Compute, operands: list[Tensor], n_factors: int = 1, stabilizer: float = 1e-6) -> Tensor:
    """Relevance by contributions: R_x = x · (∂f/∂x)ᵀ (R / f) / n_factors for each operand x of f.

    For a sum that is a / (a + b) · R (epsilon rule), for a matrix product A V it is ½ A ∘ ((R / (A V)) Vᵀ) (uniform
    rule).

    Args:
        compute: f, linear in all operands at once, or in each of them; without constants that it adds.
        operands: the tensors that depend on the input.
        n_factors: how many of them f multiplies: 1 where it is linear in all of them at once.
        stabilizer: what is added to the denominator, with its sign.
    """
    result: Tensor = _Share.apply(compute, n_factors, stabilizer, *operands)
    return result


def identity(compute: Compute, operand: Tensor) -> Tensor:
    """An elementwise activation hands relevance on as it is (identity rule)."""
    result: Tensor = _Identity.apply(compute, operand)
    return result


def softmax(logits: Tensor, dim: int) -> Tensor:
    """Softmax by its Taylor expansion: R_i = x_i (R_i − s_i Σ_j R_j); the expansion's constant absorbs the rest."""
    result: Tensor = _Softmax.apply(logits, dim)
    return result


def has_rule(node: Any) -> bool:
    """Whether a node of the graph carries relevance by a rule of this module."""
    return getattr(node, "_forward_cls", None) in (_Share, _Identity, _Softmax)


def absorbs_relevance(node: Any) -> bool:
    """Whether a constant takes part of the relevance at a node."""
    return getattr(node, "_forward_cls", None) is _Softmax


class _Share(torch.autograd.Function):
    """See :func:`share`."""

    @staticmethod
    def forward(ctx: Any, compute: Compute, n_factors: int, stabilizer: float, *operands: Tensor) -> Tensor:
        ctx.save_for_backward(*operands)
        ctx.compute, ctx.n_factors, ctx.stabilizer = compute, n_factors, stabilizer
        return compute(*operands)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:
        points = [operand.detach().requires_grad_() for operand in ctx.saved_tensors]
        with torch.enable_grad():
            output = ctx.compute(*points)
        ratio = relevance / stabilize(output.detach(), ctx.stabilizer) / ctx.n_factors
        gradients = torch.autograd.grad(output, points, ratio)
        shares = (point.detach() * gradient for point, gradient in zip(points, gradients, strict=True))
        return None, None, None, *shares


class _Identity(torch.autograd.Function):
    """See :func:`identity`."""

    @staticmethod
    def forward(_: Any, compute: Compute, operand: Tensor) -> Tensor:
        return compute(operand)

    @staticmethod
    def backward(_: Any, relevance: Tensor) -> Any:
        return None, relevance


class _Softmax(torch.autograd.Function):
    """See :func:`softmax`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, dim: int) -> Tensor:
        weights = logits.softmax(dim)
        ctx.save_for_backward(logits, weights)
        ctx.dim = dim
        return weights

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Any:
        logits, weights = ctx.saved_tensors
        shares = logits * (relevance - weights * relevance.sum(ctx.dim, keepdim=True))
        return torch.where(weights == 0, 0.0, shares), None  # a mask's −∞ is no contribution
