"""Margins and log-probabilities against torch in double precision, where a network is sure and where it is not."""

from __future__ import annotations

import pytest
import torch

from dualview_plugin.gradients import log_probabilities, margins

LOGITS = torch.tensor([[0.3, -1.0, 2.0], [40.0, 0.0, -3.0], [5.0, 5.0, 5.0], [-60.0, 80.0, 3.0]])


def test_margins_are_log_odds() -> None:
    others = torch.stack([LOGITS.double()[:, [j for j in range(3) if j != c]].logsumexp(1) for c in range(3)], 1)
    torch.testing.assert_close(margins(LOGITS).double(), LOGITS.double() - others, rtol=1e-6, atol=1e-6)
    log_p = -torch.nn.functional.softplus(others - LOGITS.double())
    torch.testing.assert_close(log_probabilities(LOGITS).double(), log_p, rtol=1e-5, atol=0)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_gradients_keep_their_digits_where_the_network_is_sure(label: int) -> None:
    """∂ log p_c / ∂z_j = [j = c] − p_j, and 1 − p_c is the sum of the others, not a difference."""
    p = LOGITS.double().softmax(1)
    expected = -p.clone()
    expected[:, label] = p[:, [j for j in range(3) if j != label]].sum(1)
    logits = LOGITS.clone().requires_grad_()
    (found,) = torch.autograd.grad(log_probabilities(logits)[:, label].sum(), logits)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-38)
    assert found.isfinite().all()


def test_margin_gradients_against_double_precision() -> None:
    single, double = (LOGITS.clone().to(dtype).requires_grad_() for dtype in (torch.float32, torch.float64))
    weights = torch.tensor([0.5, -1.0, 2.0])
    found, expected = (
        torch.autograd.grad((margins(x) * weights.to(x.dtype)).sum(), x)[0].double() for x in (single, double)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.autograd.gradcheck(margins, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))
