"""Gradients of the cross entropy in the logits of a last layer, exact also where the loss is almost zero."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_residuals(logits: Tensor, labels: Tensor) -> Tensor:
    """∂L/∂logits = p − onehot(y) of the cross entropy L, each entry to the relative precision of float64.

    Args:
        logits: (n, n_classes).
        labels: y (n,), int64.

    Returns:
        (n, n_classes) in float64, differentiable; each row adds up to zero.
    """
    return residuals_of(logits.to(torch.float64).softmax(1), labels)


def residuals_of(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The residuals p − onehot(y), (n, n_classes), from the softmax outputs p; see :func:`softmax_residuals`.

    Where p_y is almost one, p_y − 1 cancels: in float32 it is zero from a logit gap of 17 on, in float64 of 37. The
    probabilities add up to one, so that the entry is minus the sum of the others.
    """
    labels = labels[:, None]
    others = probabilities.scatter(1, labels, 0.0)
    return others.scatter(1, labels, -others.sum(1, keepdim=True))


def weight_gradients(residuals: Tensor, features: Tensor) -> Tensor:
    """The gradients (n, n_classes, n_features) of the weights, the outer products of residuals and features."""
    return residuals[:, :, None] * features.to(residuals.dtype)[:, None, :]
