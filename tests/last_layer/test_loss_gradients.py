"""The residuals of the cross entropy against decimal arithmetic, from equal logits to certainty."""

from __future__ import annotations

from decimal import Decimal, getcontext

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dualview_plugin.last_layer import softmax_residuals, weight_gradients
from tests.conftest import TOLERANCES

LABELS = torch.tensor([0, 1, 2])


def by_decimals(logits: Tensor, labels: Tensor) -> list[list[Decimal]]:
    """p − onehot(y) with so many digits that nothing cancels."""
    getcontext().prec = 700
    rows = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponentials = [Decimal(value).exp() for value in row]
        total = sum(exponentials)
        rows.append([value / total - (index == label) for index, value in enumerate(exponentials)])
    return rows


@pytest.mark.parametrize("gap", [0.0, 1.0, 17.0, 37.0, 100.0, 600.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_residuals_to_the_precision_of_float64(gap: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[gap, 0.0, -1.5], [0.25, gap, 0.0], [gap, gap, 0.5]]).to(dtype)
    found = softmax_residuals(logits, LABELS)
    assert found.dtype == torch.float64
    for row, expected in zip(found.tolist(), by_decimals(logits, LABELS), strict=True):
        assert row == pytest.approx([float(value) for value in expected], rel=1e-13, abs=0)


def test_residuals_are_autograds_and_differentiable() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(cross_entropy(logits, LABELS, reduction="sum"), logits)
    torch.testing.assert_close(softmax_residuals(logits, LABELS).detach(), expected, **TOLERANCES[torch.float64])
    assert torch.autograd.gradcheck(lambda values: softmax_residuals(values, LABELS), logits)


def test_weight_gradients_are_autograds() -> None:
    features = torch.randn(3, 7)
    weight = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    found = weight_gradients(softmax_residuals(features.double() @ weight.detach().mT, LABELS), features)
    for i in range(3):
        loss = cross_entropy(features[i : i + 1].double() @ weight.mT, LABELS[i : i + 1])
        (expected,) = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(found[i], expected, **TOLERANCES[torch.float64])
