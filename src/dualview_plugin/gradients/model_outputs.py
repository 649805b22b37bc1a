"""Numbers of a network's decision that methods differentiate: log-probabilities and margins, exact where it is sure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

NETWORK = "network"  # the name of the wrapped network, which precedes the names of its layers


class Margins(nn.Module):
    """The network, with log(p_c / (1 − p_c)) = z_c − log Σ_{j≠c} exp z_j in the place of logit c.

    Computed without the difference 1 − p_c, which is zero in float32 for a network that is sure.

    Args:
        network: with logits z (n_samples, n_classes), of two classes at least.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Margins (n_samples, n_classes)."""
        return margins(self.network(*args, **kwargs))


class LogProbabilities(Margins):
    """The network, with log p_c, minus the cross entropy of label c, in the place of logit c."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Log-probabilities (n_samples, n_classes)."""
        return logsigmoid(super().forward(*args, **kwargs))


def margins(logits: Tensor) -> Tensor:
    """z_c − log Σ_{j≠c} exp z_j for each class c, (n_samples, n_classes), differentiable without cancellation.

    The sum leaves out the strongest class c by a mask. For each other class p_c is at most 1/2, so that the sum over
    all classes less its own term keeps its digits.
    """
    values = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    classes = torch.arange(values.shape[1], device=values.device)
    strongest = classes == values.argmax(dim=1, keepdim=True)
    without_strongest = values.masked_fill(strongest, -torch.inf).logsumexp(dim=1, keepdim=True)
    total = values.logsumexp(dim=1, keepdim=True)
    log_probabilities = (values - total).masked_fill(strongest, -1.0)  # any value: they are not used
    without_own = total + torch.log1p(-log_probabilities.exp())
    return values - torch.where(strongest, without_strongest, without_own)
